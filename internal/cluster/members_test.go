package cluster

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/holding"
)

// noTiers hold nothing.
type noTiers struct{}

func (noTiers) Begin(holding.Begun)                                {}
func (noTiers) Ended(kv.PartitionSet, kv.Version)                  {}
func (noTiers) Offer(kv.Process, *holding.Ballot, kv.PartitionSet) {}
func (noTiers) Offering() bool                                     { return false }
func (noTiers) Calls(kv.Process) rpc.Handler                       { return nil }
func (noTiers) Apply(kv.Process, uint64, []invalidation.Event)     {}
func (noTiers) Relayed(kv.Process, uint64, []invalidation.Event)   {}
func (noTiers) Floors() []wire.Floor                               { return nil }
func (noTiers) Reset(kv.Process, []invalidation.Mark, []wire.Floor, kv.Version) {
}

// shifted is the machine's clock, with a wall clock that can be set.
type shifted struct {
	kv.Clock
	by atomic.Int64 // milliseconds
}

func (c *shifted) Read() kv.Moment {
	m := c.Clock.Read()
	m.Wall += c.by.Load()
	return m
}

// startNode runs a node on loopback.
func startNode(t *testing.T, name string, clock kv.Clock, join ...string) *Node {
	t.Helper()
	n, err := New(Config{
		Self: kv.Process{Node: kv.NodeID(name), Epoch: 1}, Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", Join: join,
		Bound: MinBound, Clock: clock, Versions: kv.NewHLC(uint16(name[0])), Tiers: noTiers{},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }() // ends with stop, in the cleanup
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	for n.GossipAddress() == "" {
		time.Sleep(time.Millisecond)
	}
	return n
}

// sees waits until a node lists another one in a state.
func (n *Node) sees(t *testing.T, other kv.NodeID, state string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		for _, m := range n.Members() {
			if m.ID.Node == other && m.State == state {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never has %s %s: %+v", n.Self().Node, other, state, n.Members())
		}
	}
}

// A member whose clock was off, or whose poll a busy machine has held up for as
// long, is itself again as soon as it is answered as it should.
func TestClockThatComesBack(t *testing.T) {
	clock := &shifted{Clock: kv.NewSystemClock()}
	a := startNode(t, "a", kv.NewSystemClock())
	b := startNode(t, "b", clock, a.GossipAddress())
	a.sees(t, "b", StateIn)
	b.sees(t, "a", StateIn)
	clock.by.Store(time.Hour.Milliseconds())
	a.sees(t, "b", StateRefused)
	clock.by.Store(0)
	a.sees(t, "b", StateIn)
	b.sees(t, "a", StateIn)
}
