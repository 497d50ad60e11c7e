package ownership

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// judgeMembers decides which members are considered dead, and which are in the ring.
// A large ring grows once in a while, and not with each new member: if a hundred
// nodes begin together, each would compute a hundred rings, for as long as a lease
// lives.
func (m *Machine) judgeMembers() {
	grows := len(m.entered) < growAtOnce || m.now-m.grownAt >= m.cfg.Bound/growEvery
	for _, o := range m.members {
		o.wasIn = o.wasIn || o.in
		if !o.dead && o.missing && m.now-o.heardAt >= m.cfg.Detection {
			o.dead = true
			m.died(o, false)
			o.leasedAt, o.leasesUs = 0, false
		}
		switch {
		case o.dead || !o.in:
			o.inRing = false
		case !o.inRing && grows && m.leased(o):
			o.inRing = true
			m.grownAt = m.now
		}
	}
}

const (
	growAtOnce = 8  // members; rings up to this size cost little
	growEvery  = 16 // the part of the bound between two growths: a tick
)

// judgeSelf decides whether the node has joined, and whether it is in.
func (m *Machine) judgeSelf() {
	if !m.joined {
		for _, o := range m.members {
			m.joined = m.joined || o.live() && o.joined
		}
		m.joined = m.joined || m.now-max(m.joiningSince, m.rumourAt) >= m.cfg.Detection
	}
	anyIn, allLeased, first := false, true, true
	for _, o := range m.members {
		if o.live() && o.in {
			anyIn = true
			allLeased = allLeased && o.leasesUs && m.leased(o)
		}
		if o.live() && !m.leased(o) {
			// The member lives, and this node cannot ask whether it
			// begins as well: one of the two must wait. A refused host that is
			// restarted again and again is waited for once.
			first = first && m.now-cmp.Or(o.strange, o.polledAt) >= m.judgeAfter()
		}
	}
	if anyIn {
		m.noOtherInSince = m.now
	}
	switch {
	case m.in:
		if why := m.shouldGo(); why != "" {
			m.stop(why)
		}
	case !m.joined || m.leaving:
	case anyIn && !allLeased, !anyIn && !first, m.shouldGo() != "":
	case anyIn, m.cfg.Bootstrap || m.now-m.noOtherInSince >= m.cfg.Detection:
		m.in = true
		m.inSince = m.State()
		m.do(StateChanged{true, "joined"})
	}
}

// judgeAfter returns how long a member's polls must go unanswered until this node
// acts on it: by then all other members have told whether their polls go unanswered.
func (m *Machine) judgeAfter() time.Duration { return m.cfg.Detection + m.cfg.Bound*3/4 }

// unpolledFor lists the live members whose polls have not been answered for some time,
// although gossip does not report them missing.
func (m *Machine) unpolledFor(d time.Duration) (list []kv.NodeID) {
	for _, o := range m.members {
		if o.live() && !o.missing && m.now-o.polledAt >= d {
			list = append(list, o.id.Node)
		}
	}
	slices.Sort(list)
	return list
}

// badPairs returns the pairs of live members of which one cannot poll the other: as
// other members tell, and as this node knows after some time.
func (m *Machine) badPairs(after time.Duration) map[[2]kv.NodeID]bool {
	pairs := map[[2]kv.NodeID]bool{}
	pair := func(a, b kv.NodeID) {
		if m.lives(a) && m.lives(b) {
			pairs[[2]kv.NodeID{min(a, b), max(a, b)}] = true
		}
	}
	for _, n := range m.unpolledFor(after) {
		pair(m.cfg.Self.Node, n)
	}
	for _, o := range m.members {
		if m.now-o.unpolledAt < m.cfg.Detection {
			for _, n := range o.unpolled {
				pair(o.id.Node, n)
			}
		}
	}
	return pairs
}

// shouldGo says why the node must be out; empty: it may be in. Of each pair in which
// a poll fails, one member goes: the one in more such pairs, else the one that is out
// already, else the one with the greater name. No two members that stay are such a
// pair.
func (m *Machine) shouldGo() string {
	pairs := m.badPairs(m.judgeAfter())
	if len(pairs) == 0 {
		return ""
	}
	degree := map[kv.NodeID]int{}
	for p := range pairs {
		degree[p[0]]++
		degree[p[1]]++
	}
	self := m.cfg.Self.Node
	for p := range pairs {
		other := p[0]
		if p[0] == self {
			other = p[1]
		} else if p[1] != self {
			continue
		}
		goes := self > other
		switch {
		case degree[self] != degree[other]:
			goes = degree[self] > degree[other]
		case m.mayBeIn(self) != m.mayBeIn(other):
			goes = m.mayBeIn(other)
		}
		if goes {
			return "it cannot poll, or be polled by, " + string(other)
		}
	}
	return ""
}

// mayBeIn says whether a node is in as far as this one knows: also if both may have come
// in at the same time, and the other has not been told.
func (m *Machine) mayBeIn(n kv.NodeID) bool {
	o := m.members[n]
	return m.isIn(n) || n != m.cfg.Self.Node && m.in && o.askedAt > 0 && m.untold(o)
}

// Trouble says why a node, this one or another, is not in although it lives. It is
// empty if nothing is known to be wrong with the node.
func (m *Machine) Trouble(node kv.NodeID) string {
	if !m.lives(node) || m.isIn(node) {
		return ""
	}
	var others []string
	for p := range m.badPairs(m.cfg.Detection) {
		switch node {
		case p[0]:
			others = append(others, string(p[1]))
		case p[1]:
			others = append(others, string(p[0]))
		}
	}
	if len(others) == 0 {
		return ""
	}
	slices.Sort(others)
	return "it cannot poll, or be polled by, " + strings.Join(others, ", ")
}
