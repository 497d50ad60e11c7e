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
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// driver drives the state machine of ownership and carries out what it decides. It has
// the answer to "which process owns this partition now".
//
// Locking. mu guards the machine, the roster and the owners. Every decision about
// ownership happens under mu, and its effects are carried out before mu is released, so
// no reader sees an ownership that has ended. The atomic fields are read without mu and
// changed under it, except lastSeen and lastStop: see markRunning. mu is not held during
// a call to another process. Methods of gossip and of the pool may be called under mu.
// Both have locks of their own, and functions that they call under those locks must not
// take mu. No other lock of this package is held when mu is taken; those of
// acquaintances and reporter may be taken under it.
type driver struct {
	cfg    *Config
	counts *counts
	report *reporter
	// What the other nodes are asked and told. Node.compose sets both.
	ballots *ballots
	tell    func() // gossips what has changed about this node

	// Read and changed without the lock; a stall that counts moves lastSeen under it.
	lastSeen atomic.Int64 // boot clock at its last reading
	lastStop atomic.Pointer[standstill]
	// Read without the lock, changed under it.
	lapseAt atomic.Int64                 // boot clock when the first authority ends
	dueAt   atomic.Int64                 // ... or the first feed is late
	epochs  [kv.Partitions]atomic.Uint32 // of this node's ownerships; zero: not owned
	view    atomic.Pointer[View]
	quorum  atomic.Bool // a partition without an owner can be taken

	mu      sync.Mutex
	machine *ownership.Machine
	members roster
	owners  map[kv.Process]*Owner
	begun   uint32 // ownership epochs given out
	last    [kv.Partitions]lastOwnership
	changed chan struct{} // closed, and replaced, on changes; see Node.Changed
	feeds   certificates
	running running
}

// running is what exists while Node.Run runs.
type running struct {
	ctx     context.Context // of Run; nil before it, and when it ends
	gossip  *gossip.Gossip  // nil before Run
	address string          // of the peer server, as others use it
	tasks   sync.WaitGroup  // begun under the driver's lock while ctx is not nil
}

// lastOwnership is this node's last ownership of a partition, once it does not serve any
// more. The epoch is zero if the ownership was not released to a successor, as after a
// pause: others may have owned the partition before its end.
type lastOwnership struct {
	epoch uint32
	asOf  kv.Version // of its end; zero: it has not ended
}

// newDriver returns a driver without members.
func newDriver(cfg *Config, counts *counts, report *reporter) *driver {
	d := &driver{
		cfg: cfg, counts: counts, report: report,
		members: roster{}, owners: map[kv.Process]*Owner{}, changed: make(chan struct{}),
		feeds: newCertificates(cfg.Feeds),
	}
	now := cfg.Clock.Read().Boot
	d.machine = ownership.New(ownership.Config{
		Self: cfg.Self, Weight: cfg.Weight, Bound: cfg.Bound, Detection: cfg.detection(),
		Bootstrap: len(cfg.Join) == 0, Table: cfg.Network.Table,
		Voters: nodes(cfg.Voters),
		Stamp:  func() kv.Version { return cfg.Versions.Next(cfg.Clock.Read().Wall) },
		Rand:   rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}, now)
	d.lastSeen.Store(int64(now))
	d.lapseAt.Store(int64(d.machine.LapseAt()))
	d.due()
	d.quorum.Store(d.machine.Quorum())
	d.view.Store(d.newView())
	cfg.Mirror.Viewed(d.view.Load())
	return d
}

// tick advances the machine's time.
func (d *driver) tick(now time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.machine.Tick(now)
	d.carryOut()
	d.judge(now)
}

// step calls f with the machine under the lock and carries out the resulting actions.
func (d *driver) step(f func(m *ownership.Machine, now time.Duration)) {
	now := d.cfg.Clock.Read().Boot
	d.checkPause(now)
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.machine, now)
	d.carryOut()
}

// stepAbout is step for information about a process. It does nothing if the process is
// not known any more: late information must not bring back a forgotten member.
func (d *driver) stepAbout(id kv.Process, f func(m *ownership.Machine, now time.Duration)) {
	d.step(func(m *ownership.Machine, now time.Duration) {
		if d.members.process(id) != nil {
			f(m, now)
		}
	})
}

// stepFor is step for a request of a process. If gossip does not know the process, its
// silence counts like that of a member that gossip has lost.
func (d *driver) stepFor(id kv.Process, f func(m *ownership.Machine, now time.Duration)) {
	d.step(func(m *ownership.Machine, now time.Duration) {
		f(m, now)
		if d.members[id.Node] == nil {
			m.Missing(now, id.Node)
		}
	})
}

// owned returns the set of partitions that this node owns and serves.
func (d *driver) owned() kv.PartitionSet {
	set := kv.NewPartitionSet(kv.Partitions)
	for p := range d.epochs {
		if d.epochs[p].Load() != 0 {
			set.Add(uint16(p))
		}
	}
	return set
}

// carryOut carries out the machine's actions. d.mu is held.
func (d *driver) carryOut() {
	changed := false
	var died []ownership.Died
	for _, a := range d.machine.TakeActions() {
		switch a := a.(type) {
		case ownership.Ended:
			d.end(a)
			changed = true
		case ownership.Retired:
			d.stopServing(a.Partitions)
			d.counts.retired.Add(int64(a.Partitions.Len()))
			d.cfg.Log.Debug("ownership retired", "partitions", a.Partitions.Len(), "reason", a.Why)
			changed = true
		case ownership.Begun:
			d.begin(a)
			changed = true
		case ownership.Send:
			d.ballots.acquire(a)
		case ownership.SendAuth:
			d.ballots.authorize(a)
		case ownership.RingChanged:
			v := d.newView()
			died = d.report.ringChanged(d.members, v, d.view.Swap(v), died)
			d.cfg.Mirror.Viewed(v)
			changed = true
		case ownership.StateChanged:
			d.report.stateChanged(a, d.machine.Leaving())
			d.tell()
			for _, m := range d.members { // polls tell the change earlier than gossip does
				m.poll()
			}
		case ownership.Died:
			died = append(died, a)
		}
	}
	v := d.view.Load()
	d.report.hostsDied(died, v, v) // these were in no ring
	d.lapseAt.Store(int64(d.machine.LapseAt()))
	d.due()
	d.quorum.Store(d.machine.Quorum())
	if changed {
		close(d.changed)
		d.changed = make(chan struct{})
	}
}

// begin starts ownerships. d.mu is held.
func (d *driver) begin(a ownership.Begun) {
	d.cfg.Delegate.Begin(a, d.owner)
	for p := range a.Partitions.All() {
		d.begun = max(d.begun+1, 1)
		d.epochs[p].Store(d.begun)
	}
	d.counts.begun.Add(int64(a.Partitions.Len()))
	d.cfg.Log.Debug("ownership begun", "partitions", a.Partitions.Len())
}

// end ends ownerships. d.mu is held.
func (d *driver) end(a ownership.Ended) {
	d.stopServing(a.Partitions)
	// asOf is stamped after the last change of the ownerships.
	asOf := d.cfg.Versions.Next(d.cfg.Clock.Read().Wall)
	for p := range a.Partitions.All() {
		if d.last[p].asOf = asOf; !a.Released.Has(p) {
			d.last[p] = lastOwnership{}
		}
	}
	d.cfg.Delegate.Ended(a.Partitions, asOf)
	d.counts.ended.Add(int64(a.Partitions.Len()))
	d.cfg.Log.Debug("ownership ended", "partitions", a.Partitions.Len(), "reason", a.Why)
}

// stopServing stops serving partitions. No change is made in them afterwards.
func (d *driver) stopServing(set kv.PartitionSet) {
	for p := range set.All() {
		if epoch := d.epochs[p].Swap(0); epoch != 0 {
			d.last[p] = lastOwnership{epoch: epoch}
		}
	}
	d.cfg.Mirror.Stopped(set)
	d.cfg.Delegate.Settle()
}

// newView returns a View of the machine's ring. d.mu is held.
func (d *driver) newView() *View {
	v := &View{Table: d.machine.Table(), self: d.cfg.Self.Node}
	for i, m := range v.Table.Members() {
		id := d.machine.Entered()[i] // both lists are sorted by name
		if m.Node != id.Node {
			panic("cluster: the ring's table and its processes differ")
		}
		v.owners = append(v.owners, d.owner(id))
	}
	d.dropOwners()
	return v
}

// dropOwners drops the processes that are not known any more. d.mu is held.
func (d *driver) dropOwners() {
	for id := range d.owners {
		if id != d.cfg.Self && d.members.process(id) == nil && !failpoint.Out(failpoint.NewEpoch) {
			delete(d.owners, id)
		}
	}
}

// owner returns the Owner of a process. d.mu is held.
func (d *driver) owner(id kv.Process) *Owner {
	o := d.owners[id]
	if o == nil {
		o = &Owner{Process: id}
		if failpoint.Out(failpoint.NewEpoch) {
			d.inherit(o)
		}
		d.owners[id] = o
	}
	return o
}

// ownerOf is owner for callers without the lock.
func (d *driver) ownerOf(id kv.Process) *Owner {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.owner(id)
}

// inherit gives a process the lease, and the place in the log, of an earlier process of
// its node. It breaks the rule in Owner's comment, for a failpoint. d.mu is held.
func (d *driver) inherit(o *Owner) {
	for id, old := range d.owners {
		if id.Node == o.Node {
			o.leasedAt.Store(old.leasedAt.Load())
			o.log.Reset(old.log.Applied())
		}
	}
}

// gossip returns gossip for callers without the lock; nil before Run.
func (d *driver) gossip() *gossip.Gossip {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running.gossip
}

// hasLeft reports whether a process has said goodbye. Such a process owns nothing.
func (d *driver) hasLeft(id kv.Process) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.members[id.Node]
	return m != nil && m.left == id
}

// stranger reports whether a process was refused, or refuses this one, and has never
// been in. Such a process owns nothing, and nothing waits for it. One that has left has
// been in, though the machine does not know it any more. d.mu is held.
func (d *driver) stranger(m *member) bool {
	_, wasIn := d.machine.Standing(m.id.Node)
	return m.trouble != "" && !wasIn && m.left != m.id
}

// status returns the state of a member that gossip hears. d.mu is held.
func (d *driver) status(m *member) string {
	if m.trouble != "" {
		return StateRefused
	}
	s, _ := d.machine.Standing(m.id.Node)
	return liveState(s.In, s.Weight)
}

// outcast is Node.Outcast. d.mu is held.
func (d *driver) outcast() (why string) {
	if d.machine.In() || len(d.machine.Entered()) > 0 {
		return ""
	}
	// stuck: this node cannot poll the members, and their trouble says why.
	stuck := d.machine.Trouble(d.cfg.Self.Node) != ""
	for name, m := range d.members {
		s, _ := d.machine.Standing(name)
		switch {
		case !m.alive:
		case m.trouble == "":
			return ""
		case (s.In || stuck) && (why == "" || m.trouble < why):
			why = m.trouble
		}
	}
	return why // if no member is in, this node may still come in
}
