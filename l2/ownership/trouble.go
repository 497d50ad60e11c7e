package ownership

import (
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

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
