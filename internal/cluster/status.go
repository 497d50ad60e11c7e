package cluster

import (
	"cmp"
	"slices"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// What a node shows of itself and of the members.

// Member is what this node knows about a node: another one, or itself.
type Member struct {
	ID      kv.Process
	Address string
	State   string // one of the states below
	Why     string
	Weight  uint32
	Owned   int // partitions that the ring assigns to it
	// MayOwn says that it owns something, or may come to. Operations on the whole
	// cluster wait for it. MayOwn is false for a process that has left or is considered
	// dead (gossip misses it, and nothing was heard of it on any path for the detection
	// time), and for a Stranger.
	MayOwn bool
	// Stranger says that it is refused and has never been in. It is no part of the
	// cluster.
	Stranger bool
}

// States of a member.
const (
	StateIn      = "in"      // it owns partitions
	StateOut     = "out"     // it lives, and owns none
	StateDrained = "drained" // it lives, and wants none: it was drained, or it leaves
	StateMissing = "missing" // gossip considers it dead
	StateLeft    = "left"    // it has said goodbye
	StateRefused = "refused" // it is not talked to; see Why
	StateUnknown = "unknown" // only gossip tells of it, and it counts for nothing
)

// States has all states of members.
var States = [...]string{StateIn, StateOut, StateDrained, StateMissing, StateLeft, StateRefused, StateUnknown}

// liveState returns the state of a member that lives. A weight of zero is told only by a
// member that is drained.
func liveState(in bool, weight uint32) string {
	switch {
	case weight == 0:
		return StateDrained
	case in:
		return StateIn
	}
	return StateOut
}

// Stats returns what this node counts of the cluster's statistics.
func (n *Node) Stats() cachesidecar.ClusterState {
	s := n.counts.stats()
	s.Settings = n.Agreement.Differing()
	s.Alone, s.Owned, s.Links = n.SingleNode(), n.Owned().Len(), n.server.Stats()
	now := n.cfg.Clock.Read().Boot
	d := n.driver
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Members = 1 + len(d.members.alive())
	if d.running.gossip != nil {
		s.Gossip = d.running.gossip.Stats()
	}
	n.acquaintances.addTo(&s.Gossip)
	s.In, s.Drained, s.Isolated = d.machine.In(), d.machine.Leaving(), n.membership.isolation.why
	leases := &s.Invalidations.Leases
	for id, o := range d.owners {
		m, listed := d.members[id.Node]
		gone := listed && (m.left == m.id || !m.alive)
		if id != n.cfg.Self && !gone {
			*leases = append(*leases, leaseStats(id.Node, now, o.LeasedAt(), n.cfg.Bound))
		}
	}
	slices.SortFunc(*leases, func(a, b cachesidecar.LeaseStats) int { return cmp.Compare(a.Node, b.Node) })
	return s
}

// Members lists this node and the others, sorted by name.
func (n *Node) Members() []Member {
	v := n.View()
	share := map[kv.NodeID]int{}
	for i, c := range v.Table.Counts() {
		share[v.Table.Members()[i].Node] = c
	}
	d := n.driver
	d.mu.Lock()
	defer d.mu.Unlock()
	self := n.cfg.Self
	list := []Member{{
		ID: self, Address: d.running.address, Weight: d.machine.Weight(),
		State: liveState(d.machine.In(), d.machine.Weight()),
		Owned: share[self.Node], MayOwn: true,
		Why: cmp.Or(n.membership.namesake(self.Node), d.outcast(), d.machine.Trouble(self.Node)),
	}}
	now := n.cfg.Clock.Read().Boot
	for name, m := range d.members {
		_, dead := d.machine.Silence(now, name)
		s, _ := d.machine.Standing(name)
		o := Member{
			ID: m.id, Address: m.address, Weight: s.Weight, Owned: share[name],
			State: d.status(m), Stranger: d.stranger(m),
			Why: cmp.Or(m.trouble, n.membership.namesake(name), d.machine.Trouble(name)),
		}
		o.MayOwn = m.left != m.id && !(dead && !m.alive) && !o.Stranger
		switch {
		case m.left == m.id:
			o.State, o.Why = StateLeft, ""
		case !m.alive:
			o.State, o.Why = StateMissing, cmp.Or(o.Why, "gossip does not hear it any more")
		}
		list = append(list, o)
	}
	list = append(list, n.acquaintances.list(d.members)...)
	slices.SortFunc(list, func(a, b Member) int { return a.ID.Compare(b.ID) })
	return list
}

// GossipAddress returns the address where others can join; "" before Run has begun.
func (n *Node) GossipAddress() string {
	if g := n.driver.gossip(); g != nil {
		return g.Address()
	}
	return ""
}
