package cluster

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
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
func (td *told) acquire(_ *state, a ownership.Send) {
	td.words = append(td.words, "acquire "+string(a.To.Node))
}
func (td *told) authorize(_ *state, a ownership.SendAuth) {
	td.words = append(td.words, "auth "+string(a.To.Node))
}
func (td *told) Late(_ []string, late bool, set kv.PartitionSet) {
	td.words = append(td.words, fmt.Sprintf("late %v of %d", late, set.Len()))
}
func (td *told) StillLate([]string)      { td.words = append(td.words, "still late") }
func (td *told) Viewed(*View)            { td.words = append(td.words, "viewed") }
func (td *told) Stopped(kv.PartitionSet) { td.words = append(td.words, "stopped") }
func (td *told) Paused()                 { td.words = append(td.words, "paused") }

// since returns what was told since it was asked last.
func (td *told) since() string {
	words := slices.Compact(td.words)
	td.words = nil
	return strings.Join(words, ", ")
}

// node returns a node that tells td, and its clock.
func (td *told) node(t *testing.T, log slog.Handler) (*Node, *still) {
	clock := &still{}
	clock.boot.Store(int64(time.Hour))
	n, err := New(Config{
		Self: kv.Process{Node: "a", Epoch: 1}, Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", Bound: time.Second,
		Clock: clock, Versions: kv.NewHLC(1), Delegate: td, Mirror: td, Events: invalidation.NewLog(1),
		Feeds: []Feed{{Name: "shop", MaxLag: time.Minute}}, Log: slog.New(log),
	})
	testenv.Must(t, err)
	return n, clock
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
	td := &told{}
	n, clock := td.node(t, slog.DiscardHandler)
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
	is("all is begun", "viewed, begin, late true of 16384", true, kv.Partitions, 0, 0, 0)
	o := n.driver.hostOf(kv.Process{Node: "b", Epoch: 1})
	later(&o.leasedAt, clock.Read().Boot)
	run(n.Bound())
	is("the feed stays late", "still late", false, kv.Partitions, 0, 0, 0)
	n.Certified("shop", clock.Read().Boot, "")
	is("the feed is in time", "late false of 16384", false, kv.Partitions, 0, 0, 0) // and no tick is due when the pause ends
	clock.boot.Add(int64(n.Bound() / 10))
	n.CheckPause(clock.Read().Boot)
	is("a stall", "", false, kv.Partitions, 0, 0, 100)
	clock.boot.Add(int64(5 * n.Bound()))
	n.CheckPause(clock.Read().Boot)
	// It is alone and takes all again at once: what it had before has ended.
	is("after a pause", "paused, stopped, settle, ended, begin", true, 2*kv.Partitions, kv.Partitions, 1, 5100)
	if o.LeasedAt() != 0 {
		t.Error("a lease has outlived the pause")
	}
	n.driver.step(func(s *state, now time.Duration) { s.machine.Stop(now) })
	is("stopped", "stopped, settle, ended, viewed", true, 2*kv.Partitions, 2*kv.Partitions, 1, 5100)
	if n.Owned().Len() > 0 {
		t.Errorf("stopped: it owns %d", n.Owned().Len())
	}
}

// TestEffects checks what follows from each action of the machine: whom the node tells, what becomes of two
// ownerships, what the log says, and what it publishes.
func TestEffects(t *testing.T) {
	b := kv.Process{Node: "b", Epoch: 1}
	one, both := kv.NewPartitionSet(kv.Partitions), kv.NewPartitionSet(kv.Partitions)
	one.Add(7)
	both.Add(7)
	both.Add(8)
	const stay, dead = "3 {0 0} 4 {0 0}", "a host counts as dead"
	for _, tc := range []struct {
		name      string
		actions   []ownership.Action
		tells     string
		changes   bool
		becomes   string // epoch and last ownership of the partitions 7 and 8
		says      string // one line of the log
		kicks     int
		isRetired int64
	}{
		{"none", nil, "", false, stay, "", 0, 0},
		{"begun", []ownership.Action{ownership.Begun{Partitions: both}}, "begin", true, "5 {0 0} 6 {0 0}", "", 0, 0},
		{"ended", []ownership.Action{ownership.Ended{Partitions: both, Released: one}}, "stopped, settle, ended", true,
			"0 {3 1} 0 {0 0}", "", 0, 0},
		{"retired", []ownership.Action{ownership.Retired{Partitions: one}}, "stopped, settle", true,
			"0 {3 0} 4 {0 0}", "", 0, 1},
		{"ACQUIRE", []ownership.Action{ownership.Send{To: b}}, "acquire b", false, stay, "", 0, 0},
		{"AUTH", []ownership.Action{ownership.SendAuth{To: b}}, "auth b", false, stay, "", 0, 0},
		{"in", []ownership.Action{ownership.StateChanged{In: true}}, "", false, stay, "this host is in", 1, 0},
		{"dead", []ownership.Action{ownership.Died{ID: b}}, "", false, stay, dead, 0, 0},
		{"dead, and out of the ring", []ownership.Action{ownership.Died{ID: b}, ownership.RingChanged{}}, "viewed", true,
			stay, dead, 0, 0},
	} {
		var log bytes.Buffer
		td := &told{}
		n, _ := td.node(t, slog.NewTextHandler(&log, nil))
		changed := n.Changed()
		td.since()
		n.driver.withState(func(s *state) {
			m := newMember()
			m.id, s.members["b"], s.ballots, s.begun = b, m, td, 4
			s.out.view.Load().hosts = []*Host{s.host(b)}
			s.out.epochs[7].Store(3)
			s.out.epochs[8].Store(4)
			s.out.lapseAt.Store(-1)
			s.out.dueAt.Store(-1)
			s.out.quorum.Store(!s.machine.Quorum())
			s.carryOutAll(tc.actions)
			becomes := ""
			for p := range both.All() {
				s.last[p].asOf = min(s.last[p].asOf, 1)
				becomes += fmt.Sprint(s.out.epochs[p].Load(), s.last[p], " ")
			}
			tells, says := td.since(), strings.TrimSpace(log.String())
			if tells != tc.tells || isClosed(changed) != tc.changes || strings.TrimSpace(becomes) != tc.becomes {
				t.Errorf("%s: it tells %q, Changed is closed: %v, becomes %q", tc.name, tells, isClosed(changed), becomes)
			}
			if tc.says != "" && strings.Count(says, tc.says) != 1 || tc.says == "" && says != "" {
				t.Errorf("%s: the log says %q, want %q", tc.name, says, tc.says)
			}
			if len(m.kick) != tc.kicks || s.counts.retired.Load() != tc.isRetired {
				t.Errorf("%s: %d kicks, %d retired", tc.name, len(m.kick), s.counts.retired.Load())
			}
			lapse := int64(s.machine.LapseAt())
			if s.out.lapseAt.Load() != lapse || s.out.dueAt.Load() != min(lapse, int64(s.feeds.dueAt())) ||
				s.out.quorum.Load() != s.machine.Quorum() {
				t.Errorf("%s: what it publishes is old", tc.name)
			}
		})
	}
}
