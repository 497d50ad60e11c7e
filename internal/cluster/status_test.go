package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// noDelegate stores nothing.
type noDelegate struct{}

func (noDelegate) Begin(ownership.Begun, func(kv.Process) *Host)  {}
func (noDelegate) Settle()                                        {}
func (noDelegate) Ended(kv.PartitionSet, kv.Version)              {}
func (noDelegate) Offer(kv.Process, *kv.Ballot, kv.PartitionSet)  {}
func (noDelegate) Late([]string, bool, kv.PartitionSet)           {}
func (noDelegate) Exiting()                                       {}
func (noDelegate) KeepsEntries() bool                             { return false }
func (noDelegate) StillLate([]string)                             {}
func (noDelegate) Awaited() bool                                  { return false }
func (noDelegate) Calls(kv.Process) server.Handler                { return nil }
func (noDelegate) Apply(kv.Process, uint64, []invalidation.Event) {}
func (noDelegate) Relayed([]invalidation.Event)                   {}
func (noDelegate) Floors() []wire.Floor                           { return nil }
func (noDelegate) NoteFlush(wire.Floor) error                     { return nil }
func (noDelegate) LearnFlushes([]wire.Floor)                      {}
func (noDelegate) Reset(kv.Process, []invalidation.Mark, []wire.Floor, kv.Version) {
}

// noDelegate mirrors nothing.
func (noDelegate) Viewed(*View)                {}
func (noDelegate) Stopped(kv.PartitionSet)     {}
func (noDelegate) Leased(*Host, time.Duration) {}
func (noDelegate) Paused()                     {}
func (noDelegate) Running() time.Duration      { return 0 }
func (noDelegate) Ran(_, _ time.Duration)      {}

// shifted is the machine's clock with an adjustable wall clock.
type shifted struct {
	kv.Clock
	by atomic.Int64 // milliseconds
}

func (sc *shifted) Read() kv.Moment {
	m := sc.Clock.Read()
	m.Wall += sc.by.Load()
	return m
}

// startNode runs a node on loopback.
func startNode(t *testing.T, name string, clock kv.Clock, join ...string) *Node {
	t.Helper()
	return startVoter(t, name, clock, nil, join...)
}

// startVoter runs a node, under policy consistent if voters are given.
func startVoter(t *testing.T, name string, clock kv.Clock, voters []string, join ...string) *Node {
	t.Helper()
	return startWith(t, name, clock, noDelegate{}, voters, join...)
}

// startWith runs a node with tiers.
func startWith(t *testing.T, name string, clock kv.Clock, tiers Delegate, voters []string, join ...string) *Node {
	t.Helper()
	policy := Available
	if len(voters) > 0 {
		policy = Consistent
	}
	n, err := New(Config{
		Policy: policy, Voters: voters,
		Self: kv.Process{Node: kv.NodeID(name), Epoch: 1}, Bind: "127.0.0.1:0", PeerBind: "127.0.0.1:0", Join: join,
		Bound: MinBound, Clock: clock, Versions: kv.NewHLC(uint16(name[0])), Delegate: tiers,
		Mirror: noDelegate{}, Events: invalidation.NewLog(1),
	})
	testenv.Must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }() // ends with stop, in the cleanup
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	testenv.Eventually(t, "it gossips", func() bool { return n.GossipAddress() != "" })
	return n
}

// sees waits until a node lists another node in a state.
func (n *Node) sees(t *testing.T, other kv.NodeID, state string) {
	t.Helper()
	testenv.Succeeds(t, fmt.Sprintf("%s has %s %s", n.Self().Node, other, state), func() error {
		for _, m := range n.Members() {
			if m.ID.Node == other && m.State == state {
				return nil
			}
		}
		return fmt.Errorf("it has %+v", n.Members())
	})
}

// TestClockThatComesBack checks that a member whose clock was off is accepted again at
// its first correct answer. The same holds if a busy machine has held up its poll.
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

// TestVotersDiffer checks that nodes with different policies or voters do not talk to
// each other, and that both say how they differ. The order of the voters does not
// matter.
func TestVotersDiffer(t *testing.T) {
	a := startVoter(t, "a", kv.NewSystemClock(), []string{"a", "b", "c"})
	b := startNode(t, "b", kv.NewSystemClock(), a.GossipAddress())
	c := startVoter(t, "c", kv.NewSystemClock(), []string{"a", "b", "d"}, a.GossipAddress())
	d := startVoter(t, "d", kv.NewSystemClock(), []string{"c", "b", "a"}, a.GossipAddress())
	for _, tt := range []struct {
		n     *Node
		other kv.NodeID
		want  []string // whichever of the two nodes has found it first
	}{
		{a, "b", []string{"partition_policy", "available", "consistent", "voters", `""`, `"a,b,c"`}},
		{b, "a", []string{"partition_policy", "available", "consistent", "voters", `""`, `"a,b,c"`}},
		{a, "c", []string{"voters", `"a,b,c"`, `"a,b,d"`}},
		{c, "a", []string{"voters", `"a,b,c"`, `"a,b,d"`}},
	} {
		tt.n.sees(t, tt.other, StateRefused)
		for _, m := range tt.n.Members() {
			for _, want := range tt.want {
				if why := strings.ReplaceAll(m.Why, `\`, ""); m.ID.Node == tt.other && !strings.Contains(why, want) {
					t.Errorf("%s says of %s %q, want %q in it", tt.n.Self().Node, tt.other, m.Why, want)
				}
			}
		}
	}
	testenv.Succeeds(t, "a and d talk", func() error {
		if s := d.Stats(); s.Polls > s.PollFailures {
			return nil
		}
		return fmt.Errorf("d has %+v", d.Members())
	})
}

// TestRefusedAfterGoodbye checks that a host whose next process is refused is still one that has left: it has
// been in, a FLUSH knows that it owns nothing, and it is not forgotten as a stranger is.
func TestRefusedAfterGoodbye(t *testing.T) {
	a := startNode(t, "a", kv.NewSystemClock())
	b := startNode(t, "b", kv.NewSystemClock(), a.GossipAddress())
	a.sees(t, "b", StateIn)
	a.watcher.goodbye(b.Self())
	a.admission.refused("b", errors.New("other settings"))
	for _, m := range a.Members() {
		if m.ID == b.Self() && m.Stranger {
			t.Errorf("%+v is a stranger", m)
		}
	}
}
