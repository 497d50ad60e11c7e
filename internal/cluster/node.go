package cluster

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Node is this process's part in the cluster. It is safe for concurrent use.
type Node struct {
	cfg    Config
	id     *peer.Identity
	pool   *peer.Pool
	server *peer.Server

	// Read without the lock, changed under it.
	lastSeen   atomic.Int64 // boot clock at its last reading
	lapseAt    atomic.Int64 // boot clock when the first authority ends
	lastStop   atomic.Pointer[stop]
	ownerships [kv.Partitions]atomic.Uint32
	view       atomic.Pointer[View]
	quorum     atomic.Bool // a partition without an owner can be taken

	listening chan struct{} // closed when other nodes can find this one

	mu       sync.Mutex
	machine  *ownership.Machine
	members  map[kv.NodeID]*member
	named    map[kv.NodeID]namesake
	known    known
	meeting  meeting
	owners   map[kv.Process]*Owner
	begun    uint32 // ownership epochs given out
	saidIn   bool   // what the log has last said about this node
	lines    lines
	sweepAt  time.Duration       // when to look for members to forget again
	told     []ownership.Promise // in the last poll
	toldWire []wire.Promise      // the same in wire form
	changed  chan struct{}       // closed, and replaced, on changes; see Changed
	gossip   *gossip.Gossip
	running  context.Context // of Run; nil before
	readers  readers
	news     news
	tasks    sync.WaitGroup // begun under the lock while running
	address  string         // of the peer server, as others use it

	counts counts
}

// counts of what has happened.
type counts struct {
	pauses, begun, ended, retired  atomic.Int64 // partitions, except pauses
	stopped                        atomic.Int64 // ns without running, in gaps that count
	polls, pollFailures, conflicts atomic.Int64
	refused                        atomic.Int64
	applied, gaps, resets          atomic.Int64 // events of others' logs
	relayed, unrelayed, heard      atomic.Int64 // events, by gossip
	lag                            atomic.Int64 // how late the last event was, ns
}

// New makes a node. A node that is alone owns every partition at once; any other node
// does nothing until Run.
func New(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.Versions.Follow(cfg.Clock)
	now := cfg.Clock.Read()
	n := &Node{cfg: cfg, members: map[kv.NodeID]*member{}, named: map[kv.NodeID]namesake{}, owners: map[kv.Process]*Owner{}, changed: make(chan struct{}), listening: make(chan struct{})}
	n.id = &peer.Identity{
		Cluster: cfg.Cluster, Self: cfg.Self, Settings: cfg.settings(), MaxSkew: cfg.MaxSkew, Clock: cfg.Clock, Versions: cfg.Versions,
		Floors: func() []wire.Floor { return n.floors(failpoint.FloorsInHello) }, Learn: n.learn,
	}
	n.pool = peer.NewPool(peer.PoolConfig{Identity: n.id, Credentials: cfg.Credentials, Dial: cfg.Network.Dial, Unheard: 2 * cfg.Bound, Greeted: n.greeted, Budget: cfg.Budget})
	n.server = peer.NewServer(n.id, cfg.Credentials, n.limits(), cfg.Log, n.handler, n.refused)
	n.machine = ownership.New(ownership.Config{
		Self: cfg.Self, Weight: cfg.Weight, Bound: cfg.Bound, Detection: cfg.Detection,
		Alone: len(cfg.Join) == 0, Table: cfg.Network.Table,
		Voters: nodes(cfg.Voters),
		Stamp:  func() kv.Version { return cfg.Versions.Next(cfg.Clock.Read().Wall) },
		Rand:   rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}, now.Boot)
	n.lastSeen.Store(int64(now.Boot))
	n.lapseAt.Store(int64(n.machine.LapseAt()))
	n.quorum.Store(n.machine.Quorum())
	n.view.Store(n.newView())
	if cfg.Bind == "" {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.machine.Tick(now.Boot)
		n.carryOut()
	}
	return n, nil
}

// Alone reports whether there can never be another member.
func (n *Node) Alone() bool { return n.cfg.Bind == "" }

// Self returns this process.
func (n *Node) Self() kv.Process { return n.cfg.Self }

// Bound returns B.
func (n *Node) Bound() time.Duration { return n.cfg.Bound }

// LeaveTimeout returns the limit on the time that this node takes to leave.
func (n *Node) LeaveTimeout() time.Duration { return n.cfg.LeaveTimeout }

// View returns the present ring.
func (n *Node) View() *View { return n.view.Load() }

// OwnershipEpoch returns the epoch of this node's ownership of a partition; zero if the
// node does not serve the partition. An epoch is never used again.
func (n *Node) OwnershipEpoch(p uint16) uint32 { return n.ownerships[p].Load() }

// Owned returns the set of partitions that this node owns and serves.
func (n *Node) Owned() kv.PartitionSet {
	set := kv.NewPartitionSet(kv.Partitions)
	for p := range n.ownerships {
		if n.ownerships[p].Load() != 0 {
			set.Add(uint16(p))
		}
	}
	return set
}

// CheckPause ends ownerships after a pause of this process, and when their authority is
// over. now is a reading of the boot clock. Call it before any answer from what this
// node owns, and again before a write is acknowledged. If the process did not run for
// B, or for several gaps that add up to a pause, all ownerships have ended when
// CheckPause returns. With voters, ownerships have also ended that no majority of them
// has acknowledged for B.
func (n *Node) CheckPause(now time.Duration) {
	n.seen(now)
	if int64(now) >= n.lapseAt.Load() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.machine.Tick(now)
		n.carryOut()
	}
}

// seen notes that the process runs. Only a gap that counts takes the lock. What the gap
// ends has ended before lastSeen moves; a caller that finds the same gap meanwhile
// waits for the lock.
func (n *Node) seen(now time.Duration) {
	last := n.lastSeen.Load()
	gap := now - time.Duration(last)
	if gap <= n.cfg.Bound/ownership.LookEvery { // not each time: other goroutines read it
		return
	}
	n.stood(now, gap)
	if gap > n.cfg.Bound/ownership.GapAbove {
		n.gap()
	} else {
		n.lastSeen.CompareAndSwap(last, int64(now))
	}
}

// gap adds a gap to those before and ends what must end, unless another caller has done
// so already.
func (n *Node) gap() {
	if failpoint.Out(failpoint.GapLocked) {
		n.gapUnlocked()
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.cfg.Clock.Read().Boot
	n.judge(now, now-time.Duration(n.lastSeen.Load()))
	n.lastSeen.Store(int64(now))
}

// judge tells the machine about a gap, and ends all leases if the gap is a pause. n.mu
// is held.
func (n *Node) judge(now, length time.Duration) {
	if length <= n.cfg.Bound/ownership.GapAbove {
		return
	}
	n.counts.stopped.Add(int64(length))
	stop, paused := n.machine.Gap(now, length)
	if paused {
		n.counts.pauses.Add(1)
		n.cfg.Log.Warn("this process did not run for "+stop.String(), "given_up", n.Owned().Len())
		for _, o := range n.owners {
			o.polledAt.Store(0)
			o.leasedAt.Store(0)
			o.log.Drop()
		}
	}
	n.carryOut()
}

// gapUnlocked is gap without its guard, for a failpoint: the second caller sees no gap
// although what the first one must end has not ended yet.
func (n *Node) gapUnlocked() {
	now := n.cfg.Clock.Read().Boot
	length := now - time.Duration(n.lastSeen.Swap(int64(now)))
	failpoint.At(failpoint.GapFound)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.judge(now, length)
}

// Quorum reports whether a partition without an owner can be taken by a node that this
// one reaches. Under policy Consistent that needs a majority of the voters.
func (n *Node) Quorum() bool { return n.quorum.Load() }

// SetWeight changes this node's share of the keys, relative to other nodes.
func (n *Node) SetWeight(weight uint32) {
	n.step(func(m *ownership.Machine, now time.Duration) { m.SetWeight(now, weight) })
}

// Changed returns a channel that is closed when the view or an ownership changes. To
// wait for a condition, call Changed first and check the condition afterwards.
func (n *Node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// Do sends a request to another process and waits for its answer; see peer.Pool.Do.
func (n *Node) Do(ctx context.Context, to kv.Process, timeout time.Duration, q *wire.Request, a *peer.Answer) error {
	return n.pool.Do(ctx, to, peer.Call, timeout, q, a)
}

// Admit returns an error if newest, the newest version in an answer of a process, is
// too far ahead. The caller must then ignore the answer. Do has called Admit already.
func (n *Node) Admit(from kv.Process, newest uint64) error {
	return n.pool.Admit(from, newest)
}

// Live returns the connection for calls to another process; nil if there is none.
func (n *Node) Live(to kv.Process) *rpc.Client { return n.pool.Live(to, peer.Call) }

// carryOut carries out the machine's actions. n.mu is held.
func (n *Node) carryOut() {
	changed := false
	var died []ownership.Died
	for _, a := range n.machine.Drain() {
		switch a := a.(type) {
		case ownership.Ended:
			n.stop(a.Partitions)
			// asOf is stamped after the ownerships have ended. Each acknowledged write
			// was stamped first, and then found its ownership alive: so it is older.
			asOf := n.cfg.Versions.Next(n.cfg.Clock.Read().Wall)
			n.cfg.Tiers.Ended(a.Partitions, asOf)
			n.counts.ended.Add(int64(a.Partitions.Len()))
			n.cfg.Log.Debug("ownership ended", "partitions", a.Partitions.Len(), "reason", a.Why)
			changed = true
		case ownership.Retired:
			n.stop(a.Partitions)
			n.counts.retired.Add(int64(a.Partitions.Len()))
			n.cfg.Log.Debug("ownership retired", "partitions", a.Partitions.Len(), "reason", a.Why)
			changed = true
		case ownership.Begun:
			n.cfg.Tiers.Begin(a, n.owner)
			for p := range a.Partitions.All() {
				n.begun = max(n.begun+1, 1)
				n.ownerships[p].Store(n.begun)
			}
			n.counts.begun.Add(int64(a.Partitions.Len()))
			n.cfg.Log.Debug("ownership begun", "partitions", a.Partitions.Len())
			changed = true
		case ownership.Send:
			n.send(a)
		case ownership.SendAuth:
			n.sendAuth(a)
		case ownership.RingChanged:
			v := n.newView()
			died = n.sayRing(v, n.view.Swap(v), died)
			changed = true
		case ownership.StateChanged:
			n.sayState(a)
			n.tellMeta()
		case ownership.Died:
			died = append(died, a)
		}
	}
	n.sayDied(died, n.View(), n.View()) // these were in no ring
	n.lapseAt.Store(int64(n.machine.LapseAt()))
	n.quorum.Store(n.machine.Quorum())
	if changed {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// newView returns a View of the machine's ring. n.mu is held.
func (n *Node) newView() *View {
	v := &View{Table: n.machine.Table(), self: n.cfg.Self.Node}
	for i, m := range v.Table.Members() {
		id := n.machine.Entered()[i] // both lists are sorted by name
		if m.Node != id.Node {
			panic("cluster: the ring's table and its processes differ")
		}
		v.owners = append(v.owners, n.owner(id))
	}
	n.dropOwners()
	return v
}

// dropOwners drops the processes that are not known any more. n.mu is held.
func (n *Node) dropOwners() {
	for id := range n.owners {
		if m := n.members[id.Node]; id != n.cfg.Self && (m == nil || m.id != id) && !failpoint.Out(failpoint.NewEpoch) {
			delete(n.owners, id)
		}
	}
}

// owner returns the Owner of a process. n.mu is held.
func (n *Node) owner(id kv.Process) *Owner {
	o := n.owners[id]
	if o == nil {
		o = &Owner{Process: id}
		if failpoint.Out(failpoint.NewEpoch) {
			n.inherit(o)
		}
		n.owners[id] = o
	}
	return o
}

func (n *Node) stop(set kv.PartitionSet) {
	for p := range set.All() {
		n.ownerships[p].Store(0)
	}
}

// step calls f with the machine under the lock and carries out the resulting actions.
func (n *Node) step(f func(m *ownership.Machine, now time.Duration)) {
	now := n.cfg.Clock.Read().Boot
	n.CheckPause(now)
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.machine, now)
	n.carryOut()
}

// inherit gives a process the lease, and the place in the log, of an earlier process of
// its node. It is wrong on purpose, for a failpoint. n.mu is held.
func (n *Node) inherit(o *Owner) {
	for id, old := range n.owners {
		if id.Node == o.Node {
			o.leasedAt.Store(old.leasedAt.Load())
			o.log.Reset(old.log.Applied())
		}
	}
}
