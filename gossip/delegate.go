package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

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

// NotifyMsg takes a datagram, and passes on one that is new.
func (d delegate) NotifyMsg(b []byte) {
	g := d.g
	if len(b) < 1 || len(b) > 1+maxDatagram {
		g.garbage.Add(1)
		return
	}
	hops, b := min(b[0], maxHops), b[1:]
	if !g.sent.first(b) {
		return
	}
	if hops > 0 {
		g.sent.add(hops-1, b, 1+int(g.living.Load()))
	}
	g.cfg.Receive(b)
}

// GetBroadcasts gives out datagrams for the room that membership has left.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte { return d.g.sent.take(overhead, limit) }

// LocalState and MergeRemoteState: there is nothing but meta to exchange.
func (d delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState takes nothing.
func (d delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive refuses who tells nothing that can be read: it belongs to
// another program. It also refuses one node too many, and keeps apart a process
// that is unknown.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := decodeMeta(n.Meta)
	if err == nil {
		err = checkWords(n, &m)
	}
	if err == nil && n.Name != d.g.cfg.Node && !d.g.cfg.Known(n.Name, m) {
		d.g.heardOf(n, m)
		return errUnknown
	}
	if err == nil && !d.g.room(n.Name) {
		err = errFull
	}
	if err == nil && d.g.later(n, &m) {
		d.note(n, Alive)
	}
	if err != nil {
		d.g.garbage.Add(1)
	} else if n.Name == d.g.cfg.Node && n.Address() == d.g.Address() {
		d.g.contested.Store(false) // somebody knows this node where it is
	}
	return err
}

var (
	errFull    = errors.New("gossip: there are too many members")
	errUnknown = errors.New("gossip: not met yet")
)

// checkWords says what is wrong with a node's name and addresses, if so: they come
// into lists and logs.
func checkWords(n *memberlist.Node, m *Meta) error {
	if len(n.Addr) != 4 && len(n.Addr) != 16 {
		return fmt.Errorf("gossip: an address of %d bytes", len(n.Addr))
	}
	// An exchange fails as a whole where one node speaks another version.
	if v := uint8(memberlist.ProtocolVersion2Compatible); n.PMin > v || n.PMax < v || n.PCur != v || n.DMin != 0 || n.DMax != 0 || n.DCur != 0 {
		return fmt.Errorf("gossip: versions %d to %d, now %d, and %d to %d", n.PMin, n.PMax, n.PCur, n.DMin, n.DMax)
	}
	if !nameOK(n.Name) {
		return fmt.Errorf("gossip: no node's name: %.40q", n.Name)
	}
	if m.Address == "" { // it is asked for nothing
		return nil
	}
	if _, _, err := hostPort("peer", m.Address); err != nil || !nameOK(m.Address) {
		return fmt.Errorf("gossip: no address: %.40q", m.Address)
	}
	return nil
}

// nameOK says whether a name is one that can be configured: not too long, and of
// characters that can be seen.
func nameOK(s string) bool {
	return s != "" && len(s) <= maxNode && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) })
}

// room says whether a node is known, or there is room for it.
func (g *Gossip) room(node string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.members) < maxMembers || g.members[node] != nil || int(g.living.Load()) < maxMembers
}

// later says whether a process comes after the one that is known at its address. To
// memberlist it is news only while its count is above the earlier one's, and a stranger
// may have told of the highest. While that one counts as alive memberlist looks after
// who answers at the address, so its end is heard of; one that is dead it forgets soon.
func (g *Gossip) later(n *memberlist.Node, m *Meta) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.members[n.Name]
	return old != nil && old.State == Alive && old.Address == n.Address() && m.Epoch > old.Meta.Epoch
}

// AckPayload goes with each answer to a probe: a sum of this node's meta. Who
// knows another one knows an earlier process, of which this one has not heard
// if nobody told it whom to join.
func (d delegate) AckPayload() []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(d.NodeMeta(0)))
}

// NotifyPingComplete compares that with what is known of the node.
func (d delegate) NotifyPingComplete(n *memberlist.Node, _ time.Duration, payload []byte) {
	if len(payload) == 4 && binary.BigEndian.Uint32(payload) != crc32.ChecksumIEEE(n.Meta) {
		select {
		case d.g.another <- n.Address():
		default: // one is about to be tried, and there will be a next probe
		}
	}
}

// NotifyConflict: a name is at two addresses. That is as it should be while a
// process that was killed has come back elsewhere and its old address is not
// yet held for dead; what lasts is another process under the same name.
func (d delegate) NotifyConflict(known, other *memberlist.Node) {
	g := d.g
	if known.Name == g.cfg.Node {
		g.contested.Store(true)
	}
	now := time.Now()
	g.mu.Lock()
	c := g.conflicts[known.Name]
	if c == nil || c.other != other.Address() || now.Sub(c.last) > conflictGap {
		c = &conflict{other: other.Address(), since: now}
		g.conflicts[known.Name] = c
	}
	c.last = now
	lasts := now.Sub(c.since) >= conflictAfter
	if lasts {
		c.since = now // tell it again after as long
	}
	g.mu.Unlock()
	if lasts {
		g.cfg.Conflict(known.Name, known.Address(), other.Address())
	}
}

// conflict is a name at two addresses. There is one at most for each member,
// and for this node.
type conflict struct {
	other       string
	since, last time.Time
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
	m.Meta, _ = decodeMeta(n.Meta) // NotifyAlive has read it
	g.mu.Lock()
	old := g.members[n.Name]
	if s != Alive && old != nil && old.Address == m.Address && old.Meta.Epoch > m.Meta.Epoch {
		m.Meta = old.Meta // see later
	}
	g.members[n.Name] = m
	g.unknown.drop(n.Name)
	switch was := old != nil && old.State == Alive; {
	case s == Alive && !was:
		g.living.Add(1)
		delete(g.conflicts, n.Name)
	case s != Alive && was:
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
		if m.State != Alive && (oldest == nil || m.since.Before(oldest.since)) {
			oldest = m
		}
	}
	if oldest != nil {
		delete(g.members, oldest.Node)
		delete(g.conflicts, oldest.Node)
	}
}
