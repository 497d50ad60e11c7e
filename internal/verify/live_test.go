package verify

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// values is a cluster of two hosts that remembers all values of its keys. The hosts read the
// value from some time ago.
type values struct {
	mu    sync.Mutex
	of    map[string][]time.Time // when each number was stored
	begun time.Time
	late  map[kv.NodeID]time.Duration // for which a host returns an overwritten value
	fresh time.Duration               // the same for fresh reads
	plus  uint64                      // is added to each number
}

func (c *values) set(_ context.Context, q *wire.Request) (wire.Reply, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.Op == wire.OpSet {
		c.of[string(q.Key)] = append(c.of[string(q.Key)], time.Now())
	}
	return wire.Reply{Status: wire.OK}, nil
}

func (c *values) read(_ context.Context, p kv.Process, q *wire.Probe) (wire.Probed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	late := c.late[p.Node]
	if q.Fresh {
		late = c.fresh
	}
	stored := c.of[string(q.Key)]
	n := len(stored)
	for n > 1 && time.Since(stored[n-1]) < late {
		n--
	}
	if n == 0 {
		return wire.Probed{Status: uint8(wire.Miss)}, nil
	}
	return wire.Probed{
		Status: uint8(wire.OK), Source: uint8(wire.SourceL1), Value: binary.BigEndian.AppendUint64(nil, uint64(n)+c.plus),
	}, nil
}

// TestLive: a check of ten seconds finds what is broken, and tells how stale reads were.
func TestLive(t *testing.T) {
	testenv.Takes(t, time.Second)
	const bound = 2 * time.Second
	a, b := kv.Process{Node: "a"}, kv.Process{Node: "b"}
	for _, tc := range []struct {
		name        string
		late, other time.Duration
		fresh       time.Duration
		plus        uint64
		want        string
	}{
		{"right", 0, time.Second, 0, 0, ""},
		{"beyond the bound", 0, bound + time.Second, 0, 0, beyondBound},
		{"not one's own", time.Second, 0, 0, 0, ownWrite},
		{"not fresh", 0, 0, time.Second, 0, notFresh},
		{"invented", 0, 0, 0, 1000, unwritten},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				c := &values{of: map[string][]time.Time{}, begun: time.Now(), fresh: tc.fresh, plus: tc.plus}
				c.late = map[kv.NodeID]time.Duration{"a": tc.late, "b": tc.other}
				v := NewLive(LiveConfig{
					Self: a, Bound: bound, Hosts: []kv.Process{a, b},
					Owner: func(key []byte) (kv.Process, bool) { return []kv.Process{a, b}[key[len(key)-1]&1], true },
					Now:   func() time.Duration { return time.Since(c.begun) }, Execute: c.set, Probe: c.read,
				})
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				got := v.Run(ctx)
				if len(got.Inconclusive) > 0 || got.Keys != 8 || got.Writes < 1000 || got.WriteErrors > 0 {
					t.Errorf("got %+v", got)
				}
				if (got.ViolationsTotal > 0) != (tc.want != "") || len(got.Violations) > maxViolations {
					t.Errorf("%d violations, want %q: %q", got.ViolationsTotal, tc.want, got.Violations)
				}
				// One's own writes are fresh reads too, and a fresh read may be one's own.
				if slices.ContainsFunc(got.Violations, func(s string) bool {
					return !strings.HasPrefix(s, tc.want) && !strings.HasPrefix(s, ownWrite)
				}) {
					t.Errorf("want only %q: %q", tc.want, got.Violations)
				}
				most := time.Duration(max(got.Nodes[0].StaleMaxUS, got.Nodes[1].StaleMaxUS)) * time.Microsecond
				if want := max(tc.late, tc.other, tc.fresh); tc.plus == 0 && (most < want-200*time.Millisecond || most > want) {
					t.Errorf("the most stale read was %v late, want about %v", most, want)
				}
			})
		})
	}
}

// TestStaleness: each read is in one bucket.
func TestStaleness(t *testing.T) {
	var a, b staleness
	for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, 3 * time.Minute} {
		a.add(d)
	}
	b.merge(&a)
	if b.counts[0] != 1 || b.counts[1] != 1 || b.counts[2] != 1 || b.counts[len(b.counts)-1] != 1 || b.max != 3*time.Minute {
		t.Errorf("got %+v", b)
	}
}
