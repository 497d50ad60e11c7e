package cluster

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// flushedAtTheEnd knows of a flush from the moment on that a holding of its own has
// ended: no greeting has told of it.
type flushedAtTheEnd struct {
	noTiers
	ended atomic.Bool
}

func (f *flushedAtTheEnd) Ended(kv.PartitionSet, kv.Version) { f.ended.Store(true) }

func (f *flushedAtTheEnd) Floors() []wire.Floor {
	if f.ended.Load() {
		return []wire.Floor{{Version: 7}}
	}
	return nil
}

// taker notes whether it knew of the flush when it began to hold what another had.
type taker struct {
	noTiers
	learned atomic.Bool
	begun   chan bool
}

func (k *taker) Learn(floors []wire.Floor) {
	if len(floors) == 1 && floors[0].Version == 7 {
		k.learned.Store(true)
	}
}

func (k *taker) Begin(b ownership.Begun, _ func(kv.Process) *Owner) {
	if len(b.Releasers) > 0 {
		select {
		case k.begun <- k.learned.Load():
		default:
		}
	}
}

// Whoever takes a partition knows of the flushes that its last holder knows of before
// it begins to hold it.
func TestFlushesComeBeforeTheHolding(t *testing.T) {
	a := startWith(t, "a", kv.NewSystemClock(), &flushedAtTheEnd{}, nil)
	for a.Owned().Len() == 0 {
		time.Sleep(time.Millisecond)
	}
	k := &taker{begun: make(chan bool, 1)}
	startWith(t, "b", kv.NewSystemClock(), k, nil, a.GossipAddress())
	select {
	case knew := <-k.begun:
		if !knew {
			t.Error("it holds what the last holder has released, and has not heard of its flush")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is taken over")
	}
}
