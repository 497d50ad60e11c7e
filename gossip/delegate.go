package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"
)

// delegate has the methods that memberlist calls, some of them under its lock. They neither block nor call back.
type delegate struct{ g *Gossip }

// NodeMeta returns what this node tells about itself.
func (d delegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.meta
}

// NotifyMsg takes a payload, and passes it on if it is new.
func (d delegate) NotifyMsg(b []byte) {
	g := d.g
	if len(b) < 1 || len(b) > 1+maxPayload {
		g.garbage.Add(1)
		return
	}
	hops, b := min(b[0], maxHops), b[1:]
	if !g.payloads.isNew(b) {
		return
	}
	if hops > 0 {
		g.payloads.add(hops-1, b, 1+int(g.living.Load()))
	}
	g.cfg.Receive(b)
}

// GetBroadcasts returns payloads for the room that membership has left.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.g.payloads.takePayloads(overhead, limit)
}

// LocalState returns nothing: there is only meta to exchange.
func (d delegate) LocalState(bool) []byte { return nil }

// MergeRemoteState takes nothing.
func (d delegate) MergeRemoteState([]byte, bool) {}

// NotifyAlive refuses a node whose meta cannot be read: it belongs to another
// program. It also refuses a node if there are too many, and a process that does not count.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return d.refuse(err)
	}
	if err := checkNode(n, &m); err != nil {
		return d.refuse(err)
	}
	self := n.Name == d.g.cfg.Node
	if !self && !d.g.cfg.Known(Member{Node: n.Name, Address: n.Address(), Meta: m}) {
		return errUnknown // no garbage: it may be met later
	}
	if !d.g.hasRoom(n.Name) {
		return d.refuse(errFull)
	}
	if self && n.Address() == d.g.Address() {
		d.g.conflicts.settle() // a member knows this node where it is
	}
	return nil
}

// refuse counts garbage, and returns what is wrong with it.
func (d delegate) refuse(why error) error {
	d.g.garbage.Add(1)
	return why
}

var (
	errFull    = errors.New("gossip: there are too many members")
	errUnknown = errors.New("gossip: not met yet")
)

// checkNode returns what is wrong with a node's name and addresses, which appear in lists and logs; nil: nothing.
func checkNode(n *memberlist.Node, m *Meta) error {
	if len(n.Addr) != 4 && len(n.Addr) != 16 {
		return fmt.Errorf("gossip: an address of %d bytes", len(n.Addr))
	}
	if !nameOK(n.Name) {
		return fmt.Errorf("gossip: no node's name: %.40q", n.Name)
	}
	if m.Address == "" { // it is asked for nothing
		return nil
	}
	host, port, err := net.SplitHostPort(m.Address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || host == "" || !nameOK(m.Address) {
		return fmt.Errorf("gossip: no address: %.40q", m.Address)
	}
	return nil
}

const maxNode = 256 // bytes

// nameOK says whether a name can be configured: not too long, and of visible characters.
func nameOK(s string) bool {
	return s != "" && len(s) <= maxNode && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) })
}

// AckPayload returns a checksum of this node's meta, for each answer to a probe. A prober with another checksum knows
// an earlier process, which this process has not heard of if it was told no node to join.
func (d delegate) AckPayload() []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(d.NodeMeta(0)))
}

// NotifyPingComplete compares the payload with what is known of the node.
func (d delegate) NotifyPingComplete(n *memberlist.Node, _ time.Duration, payload []byte) {
	if len(payload) == 4 && binary.BigEndian.Uint32(payload) != crc32.ChecksumIEEE(n.Meta) {
		select {
		case d.g.restarted <- n.Address():
		default: // one is about to be tried, and there will be a next probe
		}
	}
}

// NotifyJoin reports that a node lives.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.g.setState(n, true) }

// NotifyUpdate reports a change of meta.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.g.setState(n, true) }

// NotifyLeave reports that a node is dead, or has left.
func (d delegate) NotifyLeave(n *memberlist.Node) { d.g.setState(n, false) }
