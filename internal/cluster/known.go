package cluster

import (
	"sync"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Gossip tells where a process may be found, and nothing else that counts: without
// a key anybody can send it. A process counts from when it is known:
//
//	met      the two have greeted each other over the peer port, whichever of them
//	         began, and even where one refused the other
//	named    a process that was met says that it has this one in
//
// A process is a name and an epoch: a later one of the same name is unknown again,
// and the earlier one keeps its place until the later is known.

// maxKnown bounds what is remembered of them: twice the members, each twice.
const maxKnown = 8192

// known are the processes that are. It has a lock of its own: gossip asks under its
// own.
type known struct {
	mu sync.Mutex
	m  map[kv.Process]bool
}

func (k *known) has(id kv.Process) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.m[id]
}

// add says whether that is news. One too many takes the place of another: that one is
// met again.
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

// isKnown is for gossip.
func (n *Node) isKnown(node string, m gossip.Meta) bool {
	return n.known.has(kv.Process{Node: kv.NodeID(node), Epoch: kv.Epoch(m.Epoch)}) || failpoint.Out(failpoint.Acquaintance)
}

// met says that a process is known.
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

// metRefused is met for a process of which only the name is at hand. While another one of
// that name is not held for dead it may be that one which is refused, and the unknown one
// invented.
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

// vouched takes what a process that is known has heard of others: those that are in
// are known too.
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

// reached notes that a process answers at the address that is known of it.
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
