package gossip

import (
	"cmp"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxMembers bounds the members, living and gone. Beyond it, the members that have
// been gone longest are forgotten, and an additional living one is refused.
const maxMembers = 2048

// Member is another node.
type Member struct {
	Node    string
	Address string // of its gossip
	Meta    Meta
	Alive   bool // false: considered dead, or it said that it leaves
	since   time.Time
	dropped bool // still tried, but not listed: see Drop
}

// Members returns the other nodes by name. It includes nodes that are gone, for as
// long as they are remembered.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]Member, 0, len(g.members))
	for _, m := range g.members {
		if !m.dropped {
			list = append(list, *m)
		}
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return list
}

// Forget drops a node that is missing, and its address. A living node stays. A
// forgotten node comes back as any other does.
func (g *Gossip) Forget(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.members[node]; m != nil && !m.Alive {
		delete(g.members, node)
		g.conflicts.forget(node)
	}
}

// Drop is Forget, but the node's address is still tried, after those of missing
// nodes: a network may be split for longer than any node counts on the other side's
// nodes.
func (g *Gossip) Drop(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.members[node]; m != nil && !m.Alive {
		m.dropped = true
	}
}

// hasRoom says whether a node is known, or there is room for it.
func (g *Gossip) hasRoom(node string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.members) < maxMembers || g.members[node] != nil || int(g.living.Load()) < maxMembers
}

// setState notes that a node lives or is gone.
func (g *Gossip) setState(n *memberlist.Node, alive bool) {
	if n.Name == g.cfg.Node {
		return
	}
	m := &Member{Node: n.Name, Address: n.Address(), Alive: alive, since: time.Now()}
	m.Meta, _ = decodeMeta(n.Meta) // NotifyAlive has read it
	g.mu.Lock()
	old := g.members[n.Name]
	g.members[n.Name] = m
	switch was := old != nil && old.Alive; {
	case alive && !was:
		g.living.Add(1)
		g.conflicts.forget(n.Name)
	case !alive && was:
		g.living.Add(-1)
	}
	if len(g.members) > maxMembers {
		g.forgetLocked()
	}
	g.mu.Unlock()
	wake(g.changed)
}

// forgetLocked drops the node that has been gone for the longest time.
func (g *Gossip) forgetLocked() {
	var oldest *Member
	for _, m := range g.members {
		if !m.Alive && (oldest == nil || m.since.Before(oldest.since)) {
			oldest = m
		}
	}
	if oldest != nil {
		delete(g.members, oldest.Node)
		g.conflicts.forget(oldest.Node)
	}
}
