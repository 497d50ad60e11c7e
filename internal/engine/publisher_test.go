package engine

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// TestOwnerLeaves checks that nothing stays certified in the slot of an owner that has left the ring: the
// next one in the slot would have its lease.
func TestOwnerLeaves(t *testing.T) {
	p, o := newPublisher(invalidation.NewLedger(invalidation.DefaultSlots)), new(cluster.Host)
	p.slots.Store(&owners{o: 1})
	p.Leased(o, time.Minute)
	if at := p.Certified(1); at != time.Minute {
		t.Fatalf("certified at %v", at)
	}
	p.Viewed(&cluster.View{Table: new(ownership.Ring)})
	if at := p.Certified(1); at != 0 {
		t.Errorf("still certified at %v", at)
	}
	if p.Leased(o, 2*time.Minute); p.Certified(1) == 2*time.Minute {
		t.Error("a lease of the owner that has left is certified")
	}
}

// TestAskedInTurn has keys asked for in turn, over and over, until each has been asked for
// twice as far as the marks know.
func TestAskedInTurn(t *testing.T) {
	for _, c := range []struct{ keys, rounds int }{{1000, 3}, {10_000, 4}, {50_000, 12}} {
		rng := rand.New(rand.NewPCG(1, 2))
		var left []kv.Hash
		for range c.keys {
			left = append(left, kv.Hash(rng.Uint64()))
		}
		a, most := new(asked), c.keys/500
		for range c.rounds {
			var more []kv.Hash
			for _, h := range left {
				if !a.again(h) {
					more = append(more, h)
				}
			}
			left = more
		}
		if len(left) > most {
			t.Errorf("%d of %d keys still count as not asked for after %d rounds, want %d at most", len(left), c.keys, c.rounds, most)
		}
	}
}
