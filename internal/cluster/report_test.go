package cluster

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestNamesakes checks that gossip's report of two processes with one name is in the
// list for as long as gossip repeats it.
func TestNamesakes(t *testing.T) {
	clock := &shifted{Clock: kv.NewSystemClock()}
	n := startNode(t, "a", clock)
	why := func() string { return n.Members()[0].Why }
	if got := why(); got != "" {
		t.Errorf("before: %q", got)
	}
	n.watcher.conflict("a", "10.0.0.1:7946", "10.0.0.2:7946")
	if got := why(); !strings.Contains(got, "10.0.0.1:7946 and 10.0.0.2:7946: names must be unique") {
		t.Errorf("then: %q", got)
	}
	n.driver.withState(func(s *state) {
		s.namesakes["a"] = namesake{at: clock.Read().Boot - namesakeFor, why: "old"}
	})
	if got := why(); got != "" {
		t.Errorf("a minute after the last word of it: %q", got)
	}
}

// TestViewLacks compares the processes of two rings.
func TestViewLacks(t *testing.T) {
	a, b, again := &Host{Process: kv.Process{Node: "a"}}, &Host{Process: kv.Process{Node: "b", Epoch: 1}}, &Host{Process: kv.Process{Node: "b", Epoch: 2}}
	for _, test := range []struct {
		name       string
		old, view  []*Host
		came, went string
	}{
		{"the same", []*Host{a, b}, []*Host{a, b}, "", ""},
		{"first", nil, []*Host{a}, "a", ""},
		{"one comes", []*Host{a}, []*Host{a, b}, "b", ""},
		{"one goes", []*Host{a, b}, []*Host{b}, "", "a"},
		{"another process", []*Host{a, b}, []*Host{a, again}, "b", "b"},
	} {
		view, old := &View{hosts: test.view}, &View{hosts: test.old}
		if came, went := names(old.lacks(view)), names(view.lacks(old)); came != test.came || went != test.went {
			t.Errorf("%s: %q came and %q went, want %q and %q", test.name, came, went, test.came, test.went)
		}
	}
}

func names(list []kv.Process) string {
	var names []string
	for _, id := range list {
		names = append(names, string(id.Node))
	}
	return strings.Join(names, ",")
}

// TestLinesOfOthers checks that a line that other hosts cause is written once a minute
// for each host and subject, and not at all for hosts beyond the limit.
func TestLinesOfOthers(t *testing.T) {
	clock := &still{}
	l := &reporter{clock: clock, lines: map[string]time.Duration{}}
	due := func(subject string, node kv.NodeID, now time.Duration) bool {
		clock.boot.Store(int64(now))
		return l.due(subject, node)
	}
	now := time.Hour
	for i, want := range []bool{true, false, false} {
		if got := due("refused", "a", now+time.Duration(i)*29*time.Second); got != want {
			t.Errorf("the line %d: %v, want %v", i, got, want)
		}
	}
	if !due("name", "a", now) || !due("refused", "a", now+time.Minute) {
		t.Error("another matter, or a minute later: there is no line")
	}
	for i := range 10 * maxLines {
		due("refused", kv.NodeID(fmt.Sprint(i)), now+time.Minute)
	}
	if len(l.lines) > maxLines {
		t.Errorf("%d are remembered", len(l.lines))
	}
	if !due("refused", "b", now+2*time.Minute) {
		t.Error("there is no line once the others are old")
	}
}

// TestOwnStopIsNoSkew checks that a message written while this process stood still does
// not make its sender's clock look off. A clock that is further off than the stop, or
// ahead, does look off.
func TestOwnStopIsNoSkew(t *testing.T) {
	clock := &still{}
	clock.boot.Store(int64(time.Hour))
	n, err := New(Config{Self: kv.Process{Node: "a", Epoch: 1}, Clock: clock, Versions: kv.NewHLC(1), Delegate: noDelegate{}, Mirror: noDelegate{}, Bound: 2 * time.Second})
	testenv.Must(t, err)
	behind := func(d time.Duration) bool {
		return n.driver.causedByStandstill(fmt.Errorf("refused: %w", &peer.SkewError{Node: "b", Behind: d, Ahead: -d, Most: n.cfg.MaxSkew}))
	}
	if behind(time.Second) {
		t.Error("without a stop")
	}
	clock.boot.Add(int64(4400 * time.Millisecond))
	if !behind(4 * time.Second) {
		t.Error("within a stop of 4.4 s")
	}
	if behind(10*time.Second) || n.driver.causedByStandstill(&peer.SkewError{Node: "b", Behind: -time.Second, Ahead: time.Second}) || n.driver.causedByStandstill(errSkewed) {
		t.Error("what a stop of 4.4 s does not explain")
	}
	for range 40 { // it runs
		clock.boot.Add(int64(50 * time.Millisecond))
		n.CheckPause(clock.Read().Boot)
	}
	if behind(4 * time.Second) {
		t.Error("2 s after it")
	}
}

// still is a clock that a test sets.
type still struct{ boot atomic.Int64 }

func (stc *still) Read() kv.Moment {
	boot := stc.boot.Load()
	return kv.Moment{Wall: 1e12 + boot/1e6, Boot: time.Duration(boot)}
}
