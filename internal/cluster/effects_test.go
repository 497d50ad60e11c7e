package cluster

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// told notes what a node tells the tiers and the mirror under its lock.
type told struct {
	noDelegate
	words []string
}

func (td *told) Begin(ownership.Begun, func(kv.Process) *Host) { td.words = append(td.words, "begin") }
func (td *told) Settle()                                       { td.words = append(td.words, "settle") }
func (td *told) Ended(kv.PartitionSet, kv.Version)             { td.words = append(td.words, "ended") }
func (td *told) Late([]string, bool, kv.PartitionSet)          { td.words = append(td.words, "late") }
func (td *told) StillLate([]string)                            { td.words = append(td.words, "still late") }
func (td *told) Viewed(*View)                                  { td.words = append(td.words, "viewed") }
func (td *told) Stopped(kv.PartitionSet)                       { td.words = append(td.words, "stopped") }
func (td *told) Paused()                                       { td.words = append(td.words, "paused") }

// since returns what was told since it was asked last.
func (td *told) since() string {
	words := slices.Compact(td.words)
	td.words = nil
	return strings.Join(words, ", ")
}

// isClosed reports whether a channel is closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestEffectsOfAPause checks what follows from the begin of all ownerships, from a feed that stays late, and from a
// pause: whom the node tells, in which order, what it counts, and what it publishes.
func TestEffectsOfAPause(t *testing.T) {
	clock, td := &still{}, &told{}
	clock.boot.Store(int64(time.Hour))
	n, err := New(Config{
		Self: kv.Process{Node: "a", Epoch: 1}, Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", Bound: time.Second,
		Clock: clock, Versions: kv.NewHLC(1), Delegate: td, Mirror: td, Events: invalidation.NewLog(1),
		Feeds: []Feed{{Name: "shop", MaxLag: time.Minute}}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	changed := n.Changed()
	is := func(when, tells string, changes bool, begun, ended, pauses, stoppedMS int64) {
		t.Helper()
		if got := td.since(); got != tells {
			t.Errorf("%s: it tells %s, want %s", when, got, tells)
		}
		if isClosed(changed) != changes {
			t.Errorf("%s: Changed is closed: %v", when, !changes)
		}
		changed = n.Changed()
		st := n.Stats()
		if st.Begun != begun || st.Ended != ended || st.Pauses != pauses || st.StoppedMS != stoppedMS {
			t.Errorf("%s: %d begun, %d ended, %d pauses, %d ms stopped", when, st.Begun, st.Ended, st.Pauses, st.StoppedMS)
		}
	}
	run := func(d time.Duration) {
		for step := n.Bound() / 32; d > 0; d -= step {
			clock.boot.Add(int64(step))
			n.CheckPause(clock.Read().Boot)
		}
	}
	is("new", "viewed", false, 0, 0, 0, 0)
	for range 1000 {
		n.driver.tick(clock.Read().Boot)
		if n.Owned().Len() > 0 {
			break
		}
		run(n.Bound() / 16)
	}
	is("all is begun", "viewed, begin, late", true, kv.Partitions, 0, 0, 0)
	o := n.driver.hostOf(kv.Process{Node: "b", Epoch: 1})
	later(&o.leasedAt, clock.Read().Boot)
	run(n.Bound())
	is("the feed stays late", "still late", false, kv.Partitions, 0, 0, 0)
	n.Certified("shop", clock.Read().Boot, "")
	is("the feed is in time", "late", false, kv.Partitions, 0, 0, 0) // and no tick is due when the pause ends
	clock.boot.Add(int64(5 * n.Bound()))
	n.CheckPause(clock.Read().Boot)
	// It is alone and takes all again at once: what it had before has ended.
	is("after a pause", "paused, stopped, settle, ended, begin", true, 2*kv.Partitions, kv.Partitions, 1, 5000)
	if o.LeasedAt() != 0 {
		t.Error("a lease has outlived the pause")
	}
	n.driver.step(func(s *state, now time.Duration) { s.machine.Stop(now) })
	is("stopped", "stopped, settle, ended, viewed", true, 2*kv.Partitions, 2*kv.Partitions, 1, 5000)
	if n.Owned().Len() > 0 {
		t.Errorf("stopped: it owns %d", n.Owned().Len())
	}
}
