package cluster

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
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
	lastSeen atomic.Int64 // the boot clock when it was last read
	lapseAt  atomic.Int64 // and when the authority of the first holding ends
	lastStop atomic.Pointer[stop]
	ownerships [kv.Partitions]atomic.Uint32
	view     atomic.Pointer[View]
	quorum   atomic.Bool // what is not held can be taken

	listening chan struct{} // closed when others can find this node

	mu       sync.Mutex
	machine  *ownership.Machine
	members  map[kv.NodeID]*member
	named    map[kv.NodeID]namesake
	known    known
	meeting  meeting
	owners   map[kv.Process]*Owner
	begun    uint32 // generations given out
	saidIn   bool   // what the log has last said of this node
	lines    lines
	sweepAt  time.Duration     // when the next look for members to forget is due
	told     []ownership.Promise // by the last poll
	toldWire []wire.Promise    // the same, as it travels
	changed  chan struct{}     // closed, and replaced, when the view or a holding changes
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
	pauses, begun, ended, retired  atomic.Int64 // partitions, but for pauses
	stopped                        atomic.Int64 // nanoseconds in which the process did not run, in gaps that count
	polls, pollFailures, conflicts atomic.Int64
	refused                        atomic.Int64
	applied, gaps, resets          atomic.Int64 // events of others' logs
	relayed, unrelayed, heard      atomic.Int64 // events, by gossip
	lag                            atomic.Int64 // how late the last one came, in nanoseconds
}

// New makes a node. One that is alone holds everything at once; another does
// nothing until Run.
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

// Alone says whether there can never be another member.
func (n *Node) Alone() bool { return n.cfg.Bind == "" }

// Self is this process.
func (n *Node) Self() kv.Process { return n.cfg.Self }

// Bound is B.
func (n *Node) Bound() time.Duration { return n.cfg.Bound }

// LeaveTimeout bounds how long this node leaves.
func (n *Node) LeaveTimeout() time.Duration { return n.cfg.LeaveTimeout }

// View is the ring as it is now.
func (n *Node) View() *View { return n.view.Load() }

// OwnershipEpoch returns the generation of this node's holding of a partition, zero
// where it has none that serves. A generation never comes back.
func (n *Node) OwnershipEpoch(p uint16) uint32 { return n.ownerships[p].Load() }

// Owned is the set of partitions that this node holds.
func (n *Node) Owned() kv.PartitionSet {
	set := kv.NewPartitionSet(kv.Partitions)
	for p := range n.ownerships {
		if n.ownerships[p].Load() != 0 {
			set.Add(uint16(p))
		}
	}
	return set
}

// CheckPause looks for a pause, and for authority that is over. Whoever has read the
// clock calls it before anything is answered from what this node holds, and
// again before a write is acknowledged: where the process did not run for as
// long as B, or for several times that add up to a pause, all holdings have ended
// when it returns; and those have that no majority of the voters has acknowledged
// for so long, where there are voters.
func (n *Node) CheckPause(now time.Duration) {
	n.seen(now)
	if int64(now) >= n.lapseAt.Load() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.machine.Tick(now)
		n.carryOut()
	}
}

// seen notes that the process runs. Only a gap that counts takes the lock: what
// it ends has ended before the time moves at which the process was last seen, and
// who finds the same gap meanwhile waits.
func (n *Node) seen(now time.Duration) {
	last := n.lastSeen.Load()
	gap := now - time.Duration(last)
	if gap <= n.cfg.Bound/ownership.LookEvery { // not each time: others read it
		return
	}
	n.stood(now, gap)
	if gap > n.cfg.Bound/ownership.GapAbove {
		n.gap()
	} else {
		n.lastSeen.CompareAndSwap(last, int64(now))
	}
}

// gap adds a gap to those before and ends what it must, unless another caller has
// already.
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

// judge tells the machine of a gap, and does what a pause means for leases. The
// lock is held.
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

// gapUnlocked is gap as it must not be: who comes second sees no gap, before what
// the first one finds has ended.
func (n *Node) gapUnlocked() {
	now := n.cfg.Clock.Read().Boot
	length := now - time.Duration(n.lastSeen.Swap(int64(now)))
	failpoint.At(failpoint.GapFound)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.judge(now, length)
}

// Quorum says whether what nobody holds can be taken by anyone whom this node
// reaches: under policy Consistent only with a majority of the voters.
func (n *Node) Quorum() bool { return n.quorum.Load() }

// SetWeight changes this node's part of the keys, relative to others'.
func (n *Node) SetWeight(weight uint32) {
	n.step(func(m *ownership.Machine, now time.Duration) { m.SetWeight(now, weight) })
}

// Changed is closed when the view or a holding changes. Whoever waits takes it
// first, and looks at what it waits for then.
func (n *Node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// Do sends a request to another process and waits for its answer; see
// peer.Pool.Do.
func (n *Node) Do(ctx context.Context, to kv.Process, timeout time.Duration, q *wire.Request, a *peer.Answer) error {
	return n.pool.Do(ctx, to, peer.Call, timeout, q, a)
}

// Admit says whether the newest version in an answer of a process may be merged;
// if not, nothing of the answer counts. Do has asked it.
func (n *Node) Admit(from kv.Process, newest uint64) error {
	return n.pool.Admit(from, newest)
}

// Live returns the connection for calls to another process, if there is one.
func (n *Node) Live(to kv.Process) *rpc.Client { return n.pool.Live(to, peer.Call) }

// carryOut does what the machine wants done. The lock is held.
func (n *Node) carryOut() {
	changed := false
	var died []ownership.Died
	for _, a := range n.machine.Take() {
		switch a := a.(type) {
		case ownership.Ended:
			n.stop(a.Partitions)
			// Stamped after the holdings have ended: every write that was
			// acknowledged has found its holding alive after it was stamped.
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
	n.sayDied(died, n.View(), n.View()) // in no ring
	n.lapseAt.Store(int64(n.machine.LapseAt()))
	n.quorum.Store(n.machine.Quorum())
	if changed {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// newView is the machine's ring. The lock is held.
func (n *Node) newView() *View {
	v := &View{Table: n.machine.Table(), self: n.cfg.Self.Node}
	for i, m := range v.Table.Members() {
		id := n.machine.Entered()[i] // both are by name
		if m.Node != id.Node {
			panic("cluster: the ring's table and its processes differ")
		}
		v.owners = append(v.owners, n.owner(id))
	}
	n.dropOwners()
	return v
}

// dropOwners drops the processes that are known no more. The lock is held.
func (n *Node) dropOwners() {
	for id := range n.owners {
		if m := n.members[id.Node]; id != n.cfg.Self && (m == nil || m.id != id) && !failpoint.Out(failpoint.NewEpoch) {
			delete(n.owners, id)
		}
	}
}

// owner is the Owner of a process. The lock is held.
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

// step feeds the machine under the lock and carries out what comes of it.
func (n *Node) step(f func(m *ownership.Machine, now time.Duration)) {
	now := n.cfg.Clock.Read().Boot
	n.CheckPause(now)
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.machine, now)
	n.carryOut()
}

// inherit gives a process the lease of an earlier one of its node's, and that
// one's place in its log, as it must not. The lock is held.
func (n *Node) inherit(o *Owner) {
	for id, old := range n.owners {
		if id.Node == o.Node {
			o.leasedAt.Store(old.leasedAt.Load())
			o.log.Reset(old.log.Applied())
		}
	}
}
