package cluster

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// state is all that the driver's lock guards. The driver lends it to functions that run under the
// lock and do not keep it: who has a *state has the lock. See driver for what may be done with it.
type state struct {
	cfg    *Config
	counts *counts
	report *reporter
	out    *published
	// ballots sends what ownership begins and lasts with. Node.compose sets it.
	ballots interface {
		acquire(*state, ownership.Send)
		authorize(*state, ownership.SendAuth)
	}

	machine   *ownership.Machine
	members   members
	hosts     map[kv.Process]*Host
	begun     uint32 // ownership epochs given out
	last      [kv.Partitions]lastOwnership
	changed   chan struct{} // closed, and replaced, on changes; see Node.Changed
	feeds     certificates
	namesakes namesakes
	sweepAt   time.Duration // when to look for members to forget again
	isolation isolation
	drain     drain
	running   running
}

// published is what is read without the lock. It changes under it.
type published struct {
	lapseAt atomic.Int64                 // boot clock when the first authority ends
	dueAt   atomic.Int64                 // ... or the first feed is late
	epochs  [kv.Partitions]atomic.Uint32 // of this node's ownerships; zero: not owned
	serves  atomic.Int32                 // number of these
	view    atomic.Pointer[View]
	quorum  atomic.Bool // a partition without an owner can be taken
}

// running is what exists while Node.Run runs.
type running struct {
	ctx     context.Context // of Run; nil before it, and when it ends
	gossip  *gossip.Gossip  // nil before Run
	address string          // of the peer server, as others use it
	tasks   sync.WaitGroup  // begun under the lock while ctx is not nil
}

// lastOwnership is this node's last ownership of a partition, once it does not serve any
// more. The epoch is zero if the ownership was not released to a successor, as after a
// pause: others may have owned the partition before its end.
type lastOwnership struct {
	epoch uint32
	asOf  kv.Version // of its end; zero: it has not ended
}

// owned returns the set of partitions that this node owns and serves.
func (pub *published) owned() kv.PartitionSet {
	set := kv.NewPartitionSet(kv.Partitions)
	for i := range pub.epochs {
		if pub.epochs[i].Load() != 0 {
			set.Add(uint16(i))
		}
	}
	return set
}

// publish publishes what follows from the machine.
func (s *state) publish() {
	s.out.lapseAt.Store(int64(s.machine.LapseAt()))
	s.publishDue()
	s.out.quorum.Store(s.machine.Quorum())
}

// publishDue publishes when the next tick is due.
func (s *state) publishDue() {
	s.out.dueAt.Store(min(s.out.lapseAt.Load(), int64(s.feeds.dueAt())))
}

// newView returns a View of the machine's ring.
func (s *state) newView() *View {
	v := &View{Table: s.machine.Table(), self: s.cfg.Self.Node}
	for i, m := range v.Table.Members() {
		id := s.machine.Entered()[i] // both lists are sorted by name
		if m.Node != id.Node {
			panic("cluster: the ring's table and its processes differ")
		}
		v.hosts = append(v.hosts, s.host(id))
	}
	s.dropHosts()
	return v
}

// dropHosts drops the processes that are not known any more.
func (s *state) dropHosts() {
	for id := range s.hosts {
		if id != s.cfg.Self && s.members.process(id) == nil && !failpoint.Out(failpoint.NewEpoch) {
			delete(s.hosts, id)
		}
	}
}

// host returns the Host of a process.
func (s *state) host(id kv.Process) *Host {
	o := s.hosts[id]
	if o == nil {
		o = &Host{Process: id}
		if failpoint.Out(failpoint.NewEpoch) {
			s.inherit(o)
		}
		s.hosts[id] = o
	}
	return o
}

// inherit gives a process the lease, and the place in the log, of an earlier process of
// its node. It breaks the rule in Host's comment, for a failpoint.
func (s *state) inherit(o *Host) {
	for id, old := range s.hosts {
		if id.Node == o.Node {
			o.leasedAt.Store(old.leasedAt.Load())
			o.log.Reset(old.log.Applied())
		}
	}
}

// stranger reports whether a process was refused, or refuses this one, and has never
// been in. Such a process owns nothing, and nothing waits for it. One that has left has
// been in, though the machine does not know it any more.
func (s *state) stranger(m *member) bool {
	_, wasIn := s.machine.Standing(m.id.Node)
	return m.trouble != "" && !wasIn && m.left != m.id
}

// status returns the state of a member that gossip hears.
func (s *state) status(m *member) string {
	if m.trouble != "" {
		return StateRefused
	}
	told, _ := s.machine.Standing(m.id.Node)
	return liveState(told.In, told.Weight)
}

// outcast is Node.Outcast.
func (s *state) outcast() (why string) {
	if s.machine.In() || len(s.machine.Entered()) > 0 {
		return ""
	}
	// stuck: this node cannot poll the members, and their trouble says why.
	stuck := s.machine.Trouble(s.cfg.Self.Node) != ""
	for name, m := range s.members {
		told, _ := s.machine.Standing(name)
		switch {
		case !m.alive:
		case m.trouble == "":
			return ""
		case (told.In || stuck) && (why == "" || m.trouble < why):
			why = m.trouble
		}
	}
	return why // if no member is in, this node may still come in
}

// meta returns what gossip tells about this node.
func (s *state) meta() gossip.Meta {
	m := s.machine
	return gossip.Meta{
		Address: s.running.address, Epoch: uint64(s.cfg.Self.Epoch), Weight: m.Weight(),
		MinVersion: 1, MaxVersion: wire.PeerVersion, In: m.In(), State: m.State(),
	}
}

// tellMeta gossips what has changed about this node.
func (s *state) tellMeta() {
	if g := s.running.gossip; g != nil {
		if err := g.SetMeta(s.meta()); err != nil {
			s.cfg.Log.Error("gossip does not take what has changed about this node", "error", err)
		}
	}
}
