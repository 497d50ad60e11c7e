package cluster

import (
	"cmp"
	"slices"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// What a node shows of itself and of the members.

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
