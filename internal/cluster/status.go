package cluster

import (
	"cmp"
	"slices"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Stats returns what this node counts of the cluster's statistics.
func (n *Node) Stats() cachesidecar.ClusterState {
	s := n.counts.stats()
	s.Settings = n.Agreement.Differing()
	s.Alone, s.Owned, s.Links = n.SingleNode(), int(n.driver.serves.Load()), n.server.Stats()
	n.driver.withState(func(st *state) { st.addTo(&s) })
	n.acquaintances.addTo(&s.Gossip)
	return s
}

// addTo adds what the state has to statistics.
func (s *state) addTo(to *cachesidecar.ClusterState) {
	now := s.cfg.Clock.Read().Boot
	to.Members = 1 + len(s.members.alive())
	if s.running.gossip != nil {
		to.Gossip = s.running.gossip.Stats()
	}
	to.In, to.Drained, to.Isolated = s.machine.In(), s.machine.Leaving(), s.isolation.why
	leases := &to.Invalidations.Leases
	for id, o := range s.hosts {
		m, listed := s.members[id.Node]
		gone := listed && (m.left == m.id || !m.alive)
		if id != s.cfg.Self && !gone {
			*leases = append(*leases, leaseStats(id.Node, now, o.LeasedAt(), s.cfg.Bound))
		}
	}
	slices.SortFunc(*leases, func(a, b cachesidecar.LeaseStats) int { return cmp.Compare(a.Node, b.Node) })
}

// Members lists this node and the others, sorted by name.
func (n *Node) Members() (list []Member) {
	v := n.View()
	share := map[kv.NodeID]int{}
	for i, c := range v.Table.Counts() {
		share[v.Table.Members()[i].Node] = c
	}
	n.driver.withState(func(s *state) { list = append(s.list(share), n.acquaintances.list(s.members)...) })
	slices.SortFunc(list, func(a, b Member) int { return a.ID.Compare(b.ID) })
	return list
}

// list lists this node and its members, with the share of the keys of each.
func (s *state) list(share map[kv.NodeID]int) []Member {
	self, now := s.cfg.Self, s.cfg.Clock.Read().Boot
	list := []Member{{
		ID: self, Address: s.running.address, Weight: s.machine.Weight(),
		State: liveState(s.machine.In(), s.machine.Weight()),
		Owned: share[self.Node], MayOwn: true,
		Why: cmp.Or(s.namesakes.why(self.Node, now), s.outcast(), s.machine.Trouble(self.Node)),
	}}
	for name, m := range s.members {
		_, dead := s.machine.Silence(now, name)
		told, _ := s.machine.Standing(name)
		o := Member{
			ID: m.id, Address: m.address, Weight: told.Weight, Owned: share[name],
			State: s.status(m), Stranger: s.stranger(m),
			Why: cmp.Or(m.trouble, s.namesakes.why(name, now), s.machine.Trouble(name)),
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
	return list
}

// GossipAddress returns the address where others can join; "" before Run has begun.
func (n *Node) GossipAddress() string {
	if g := n.driver.gossip(); g != nil {
		return g.Address()
	}
	return ""
}
