package hosts

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestFactsOnEveryPath checks that what a value says of itself comes whole to every reader: flags, version and TTL,
// from the owner's store, from the owner through another host, from a copy there, from an origin, after each write
// that keeps them, and after a handoff.
func TestFactsOnEveryPath(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	ttl := time.Hour
	a, b := twoHosts(t, Config{Namespaces: map[string]Namespace{"loaded": {
		DefaultTTL: &ttl, TTLJitter: new(float64), RefreshEarly: new(float64),
		Origin: own(func(context.Context, []byte) (loader.Value, error) {
			return loader.Value{Bytes: []byte("1"), Flags: 7}, nil
		}),
	}}})
	ctx := t.Context()
	for _, owned := range []bool{true, false} {
		key := keysIn(a.Sidecar, "default", "k", owned, 1)[0]
		for _, w := range []struct {
			name  string
			write func() (uint64, error)
		}{
			{"SET", func() (uint64, error) {
				return a.Set(ctx, "default", key, []byte("1"), cachesidecar.SetOptions{Flags: 7, TTL: ttl, AckAll: true})
			}},
			{"INCR", func() (uint64, error) {
				_, err := a.Incr(ctx, "default", key, 1, cachesidecar.IncrOptions{AckAll: true})
				return 0, err
			}},
			{"append", func() (uint64, error) {
				return a.Append(ctx, "default", key, []byte("1"), cachesidecar.AppendOptions{AckAll: true})
			}},
			{"TOUCH", func() (uint64, error) {
				return 0, a.Touch(ctx, "default", key, cachesidecar.TouchOptions{TTL: ttl, AckAll: true})
			}},
		} {
			version, err := w.write()
			if err != nil {
				t.Fatalf("%s: %v", w.name, err)
			}
			checkFacts(t, w.name, "default", key, version, a, b)
		}
		checkFacts(t, "a load", "loaded", keysIn(a.Sidecar, "loaded", "k", owned, 1)[0], 0, a, b)
	}
	moved := keysIn(a.Sidecar, "default", "k", true, 1)[0]
	before, err := a.Get(ctx, "default", moved, cachesidecar.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a.leave()
	settled(t, b)
	checkFacts(t, "a handoff", "default", moved, before.Version, b)
}

// checkFacts reads a value at each host until its owner has answered, or a copy, and checks what it says each time. A
// version of zero is not checked.
func checkFacts(t *testing.T, what, ns, key string, version uint64, hosts ...*host) {
	t.Helper()
	wrong := func(it cachesidecar.Item) bool {
		return it.Flags != 7 || version != 0 && it.Version != version || it.TTL < 50*time.Minute || it.TTL > time.Hour
	}
	for _, h := range hosts {
		want := "l1"
		if owns(h.Sidecar, ns, key) {
			want = "l2"
		}
		testenv.Eventually(t, what+": read from "+want, func() bool {
			it, err := h.Get(t.Context(), ns, key, cachesidecar.GetOptions{})
			if err != nil || wrong(it) {
				t.Fatalf("%s, read at %s: %+v, %v, want version %d", what, h.cfg.Node, it, err, version)
			}
			return it.Source == want
		})
		all, err := h.GetMulti(t.Context(), ns, []string{key}, cachesidecar.GetOptions{Fresh: true})
		if it := all[key]; err != nil || wrong(it) {
			t.Errorf("%s, one of many at %s: %+v, %v, want version %d", what, h.cfg.Node, it, err, version)
		}
	}
}

// TestAbsenceIsCopied checks that a host answers by itself that the origin has no such key, once the owner has said so.
func TestAbsenceIsCopied(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	ttl := time.Hour
	a, b := twoHosts(t, Config{Namespaces: map[string]Namespace{"loaded": {
		NegativeTTL: &ttl,
		Origin:      own(func(context.Context, []byte) (loader.Value, error) { return loader.Value{}, loader.ErrAbsent }),
	}}})
	key := keysIn(a.Sidecar, "loaded", "k", true, 1)[0]
	tries := 0
	testenv.Eventually(t, "the absence is in a copy", func() bool {
		if tries++; tries > 300 {
			t.Fatal("the owner is asked each time")
		}
		before := b.telemetry.ClusterState().PeerReads
		if _, err := b.Get(t.Context(), "loaded", key, cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
			t.Fatal(err)
		}
		return b.telemetry.ClusterState().PeerReads == before
	})
}
