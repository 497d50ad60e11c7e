package gossip

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls, some of it under its lock: nothing here
// blocks or calls back.
type delegate struct{ g *Gossip }

// NodeMeta is what this node tells of itself.
func (d delegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.meta
}

// NotifyMsg takes a datagram.
func (d delegate) NotifyMsg(b []byte) { d.g.cfg.Receive(b) }

// GetBroadcasts gives out datagrams for the room that membership has left.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte { return d.g.sent.take(overhead, limit) }

// LocalState and MergeRemoteState: there is nothing but meta to exchange.
func (d delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState takes nothing.
func (d delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive refuses who tells nothing that can be read: it belongs to
// another program.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	if _, err := decodeMeta(n.Meta); err != nil {
		d.g.garbage.Add(1)
		return err
	}
	return nil
}

// NotifyConflict: two processes have one name.
func (d delegate) NotifyConflict(known, other *memberlist.Node) {
	d.g.cfg.Conflict(known.Name, known.Address(), other.Address())
}

// NotifyJoin and NotifyUpdate: a node lives.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.note(n, Alive) }

// NotifyUpdate is a change of meta.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.note(n, Alive) }

// NotifyLeave: a node is dead, or has left.
func (d delegate) NotifyLeave(n *memberlist.Node) { d.note(n, Missing) }

func (d delegate) note(n *memberlist.Node, s State) {
	g := d.g
	if n.Name == g.cfg.Node {
		return
	}
	m := &Member{Node: n.Name, Address: n.Address(), State: s, since: time.Now()}
	g.mu.Lock()
	if old := g.members[n.Name]; s == Alive || old == nil {
		m.Meta, _ = decodeMeta(n.Meta) // NotifyAlive has read it
	} else {
		m.Meta = old.Meta
	}
	g.members[n.Name] = m
	if len(g.members) > maxRemembered {
		g.forget()
	}
	g.mu.Unlock()
	wake(g.changed)
}

// forget drops the node that has been gone for the longest time.
func (g *Gossip) forget() {
	var oldest *Member
	for _, m := range g.members {
		if m.State != Alive && (oldest == nil || m.since.Before(oldest.since)) {
			oldest = m
		}
	}
	if oldest != nil {
		delete(g.members, oldest.Node)
	}
}
