package cluster

import (
	"sync/atomic"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// flushedAtTheEnd knows of a flush from the moment when an ownership of its own ends.
// No greeting has told of that flush.
type flushedAtTheEnd struct {
	noDelegate
	ended atomic.Bool
}

func (fe *flushedAtTheEnd) Ended(kv.PartitionSet, kv.Version) { fe.ended.Store(true) }

func (fe *flushedAtTheEnd) Floors() []wire.Floor {
	if fe.ended.Load() {
		return []wire.Floor{{Version: 7}}
	}
	return nil
}

// taker records whether it knew of the flush when it began to own what another node
// owned.
type taker struct {
	noDelegate
	learned atomic.Bool
	begun   chan bool
}

func (k *taker) LearnFlushes(floors []wire.Floor) {
	if len(floors) == 1 && floors[0].Version == 7 {
		k.learned.Store(true)
	}
}

func (k *taker) Begin(b ownership.Begun, _ func(kv.Process) *Host) {
	if len(b.Releasers) > 0 {
		select {
		case k.begun <- k.learned.Load():
		default:
		}
	}
}

// TestFlushesComeBeforeOwnership checks that a node that takes over a partition learns
// the flushes of the last owner before its own ownership begins.
func TestFlushesComeBeforeOwnership(t *testing.T) {
	a := startWith(t, "a", kv.NewSystemClock(), &flushedAtTheEnd{}, nil)
	testenv.Eventually(t, "the first node owns", func() bool { return a.Owned().Len() > 0 })
	k := &taker{begun: make(chan bool, 1)}
	startWith(t, "b", kv.NewSystemClock(), k, nil, a.GossipAddress())
	select {
	case knew := <-k.begun:
		if !knew {
			t.Error("it owns what the last owner has released, and has not heard of its flush")
		}
	case <-testenv.Expired():
		t.Fatal("nothing is taken over")
	}
}
