package cluster

import (
	"sync"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Gossip tells where a process may be found. Nothing else in it counts, because without
// a key anyone can send gossip. A process counts once it is known:
//
//	met      the two processes have greeted each other over the peer port, whichever of
//	         them began, and even if one refused the other
//	named    a process that was met says that this one is in
//
// A process is a name and an epoch. A later process of the same name is unknown again,
// and the earlier one keeps its place until the later one is known.

// maxKnown limits how many processes are remembered: twice the members, two each.
const maxKnown = 8192

// known is the set of known processes. It has its own lock, because gossip calls has
// under gossip's lock. It is safe for concurrent use.
type known struct {
	mu sync.Mutex
	m  map[kv.Process]bool
}

func (k *known) has(id kv.Process) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m[id]
}

// add reports whether the process was unknown before. If the set is full, another
// process is dropped and must be met again.
func (k *known) add(id kv.Process) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.m[id] {
		return false
	}
	if len(k.m) >= maxKnown {
		for o := range k.m {
			delete(k.m, o)
			break
		}
	}
	if k.m == nil {
		k.m = map[kv.Process]bool{}
	}
	k.m[id] = true
	return true
}

func (k *known) drop(id kv.Process) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.m, id)
}

// isKnown is the Known function for gossip.
func (n *Node) isKnown(node string, m gossip.Meta) bool {
	return n.known.has(kv.Process{Node: kv.NodeID(node), Epoch: kv.Epoch(m.Epoch)}) || failpoint.Out(failpoint.Acquaintance)
}

// met makes a process known.
func (n *Node) met(id kv.Process) {
	if !n.known.add(id) {
		return
	}
	n.mu.Lock()
	g := n.gossip
	n.mu.Unlock()
	if g != nil {
		g.Met(string(id.Node))
	}
}

// metRefused is met for a refused process of which only the name is at hand. It does
// nothing while a member of that name is not considered dead: that member may be the
// refused process, and the unknown one may be invented.
func (n *Node) metRefused(node kv.NodeID) {
	n.mu.Lock()
	g := n.gossip
	_, dead := n.machine.Silence(n.cfg.Clock.Read().Boot, node)
	n.mu.Unlock()
	if g == nil || !dead && !failpoint.Out(failpoint.RefusedName) {
		return
	}
	if u, ok := g.UnknownOf(string(node)); ok {
		n.met(process(&u))
	}
}

// vouched takes what a known process says about other processes. A process that it says
// is in becomes known too.
func (n *Node) vouched(list []wire.Standing) {
	for _, s := range list[:min(len(list), maxKnown/4)] {
		id := fromProcess(s.Process)
		if id.Node == n.cfg.Self.Node {
			continue
		}
		if s.In {
			n.met(id)
		}
		n.mu.Lock()
		n.tells(id, s.State, s.Weight, s.In)
		n.mu.Unlock()
	}
}

// reached notes that a process answers at its known address.
func (n *Node) reached(id kv.Process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m := n.members[id.Node]; m != nil && m.id == id {
		m.reached = true
	}
}

func process(u *gossip.Unknown) kv.Process {
	return kv.Process{Node: kv.NodeID(u.Node), Epoch: kv.Epoch(u.Meta.Epoch)}
}
