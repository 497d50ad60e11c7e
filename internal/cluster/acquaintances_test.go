package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

func gossiped(node string, epoch uint64) gossip.Member {
	return gossip.Member{Node: node, Address: node + ":1", Meta: gossip.Meta{Address: node + ":2", Epoch: epoch, In: true}}
}

// TestGreetings checks that a process that does not answer is greeted less and less often, at
// a bounded rate in all, and at once when it has greeted this one. One that gossip tells of
// no more is forgotten.
func TestGreetings(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		a := newAcquaintances("self", nil, nil)
		limit := rate.NewLimiter(meetRate, meetBurst)
		greets := func(d time.Duration, names int) (n int) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(meetEvery) {
				for i := range names {
					a.known(gossiped(fmt.Sprint("n", i), 1))
				}
				for _, u := range a.due(limit) {
					n++
					a.noteGreeting(u.id, errors.New("no answer"))
				}
			}
			return n
		}
		if n := greets(time.Minute, 1); n < 10 || n > 25 {
			t.Errorf("%d greetings of one in a minute", n)
		}
		list := a.list(members{})
		if len(list) != 1 || list[0].Why != "gossip alone tells of it: no answer" || !a.rumour() {
			t.Errorf("listed: %v", list)
		}
		if len(a.changed) != 1 {
			t.Error("a process that gossip tells of waits for the next look")
		}
		<-a.changed
		a.meet(kv.Process{Node: "n0", Epoch: 1})
		if list := a.due(limit); len(list) != 1 || !list[0].met || !a.untold(list[0].id) || len(a.changed) != 1 {
			t.Errorf("it has greeted this one, and is to tell about itself: %v", list)
		}
		if !a.known(gossiped("n0", 1)) || a.known(gossiped("n0", 2)) {
			t.Error("a process is a name and an epoch")
		}
		a.forget(kv.Process{Node: "n0", Epoch: 1})
		if a.known(gossiped("n0", 1)) {
			t.Error("it is not forgotten")
		}
		if n := greets(time.Minute, 2*maxUnknown); n > 60*meetRate+meetBurst {
			t.Errorf("%d greetings of many in a minute", n)
		}
		time.Sleep(unknownFor + time.Second)
		if list := a.list(members{}); len(list) > 0 || a.rumour() {
			t.Errorf("%d are remembered that gossip does not tell of", len(list))
		}
	})
}

// TestAcquaintancesAreBounded checks that few processes are remembered.
func TestAcquaintancesAreBounded(t *testing.T) {
	a := newAcquaintances("self", nil, nil)
	for i := range 4 * maxUnknown {
		a.known(gossiped(fmt.Sprint("n", i), 1))
	}
	if len(a.unknown) != maxUnknown || a.forgotten != 3*maxUnknown {
		t.Errorf("%d are remembered, %d forgotten", len(a.unknown), a.forgotten)
	}
	for i := range 2 * maxKnown {
		a.meet(kv.Process{Node: "n", Epoch: kv.Epoch(i)})
	}
	if len(a.met) != maxKnown {
		t.Errorf("%d were met", len(a.met))
	}
}
