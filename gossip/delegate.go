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

// delegate has the methods that memberlist calls, some of them under its lock. They
// neither block nor call back.
type delegate struct{ g *Gossip }

// NodeMeta returns what this node tells about itself.
func (d delegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.meta
}

// NotifyMsg takes a datagram, and passes it on if it is new.
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

// GetBroadcasts returns datagrams for the room that membership has left.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte { return d.g.sent.take(overhead, limit) }

// LocalState returns nothing: there is only meta to exchange.
func (d delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState takes nothing.
func (d delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive refuses a node whose meta cannot be read: it belongs to another
// program. It also refuses a node if there are too many, and keeps apart an unknown
// process.
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
		d.g.contested.Store(false) // a member knows this node where it is
	}
	return err
}

var (
	errFull    = errors.New("gossip: there are too many members")
	errUnknown = errors.New("gossip: not met yet")
)

// checkWords returns what is wrong with a node's name and addresses, which appear in
// lists and logs; nil: nothing.
func checkWords(n *memberlist.Node, m *Meta) error {
	if len(n.Addr) != 4 && len(n.Addr) != 16 {
		return fmt.Errorf("gossip: an address of %d bytes", len(n.Addr))
	}
	// If one node has another version, an exchange fails as a whole.
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

// nameOK says whether a name can be configured: not too long, and of visible
// characters.
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

// later says whether a process comes after the known one at the same address. For
// memberlist it is new only if its count is above that of the earlier process, and a
// stranger may have sent the highest count. While the earlier process counts as
// alive, memberlist probes the address, so its end is detected. memberlist soon
// forgets a dead process.
func (g *Gossip) later(n *memberlist.Node, m *Meta) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	old := g.members[n.Name]
	return old != nil && old.State == Alive && old.Address == n.Address() && m.Epoch > old.Meta.Epoch
}

// AckPayload returns a checksum of this node's meta, for each answer to a probe. A
// prober with another checksum knows an earlier process, which this process has not
// heard of if it was told no node to join.
func (d delegate) AckPayload() []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(d.NodeMeta(0)))
}

// NotifyPingComplete compares the payload with what is known of the node.
func (d delegate) NotifyPingComplete(n *memberlist.Node, _ time.Duration, payload []byte) {
	if len(payload) == 4 && binary.BigEndian.Uint32(payload) != crc32.ChecksumIEEE(n.Meta) {
		select {
		case d.g.another <- n.Address():
		default: // one is about to be tried, and there will be a next probe
		}
	}
}

// NotifyConflict reports a name at two addresses. That is normal while a killed
// process has come back elsewhere and its old address is not yet considered dead. If
// it lasts, it is another process under the same name.
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
		c.since = now // report it again after as long
	}
	g.mu.Unlock()
	if lasts {
		g.cfg.Conflict(known.Name, known.Address(), other.Address())
	}
}

// conflict is a name at two addresses. There is at most one for each member, and one
// for this node.
type conflict struct {
	other       string
	since, last time.Time
}

// NotifyJoin reports that a node lives.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.note(n, Alive) }

// NotifyUpdate reports a change of meta.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.note(n, Alive) }

// NotifyLeave reports that a node is dead, or has left.
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
