package simnet

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's network: datagrams and streams on one port.
type transport struct {
	host    *Host
	port    int
	err     error // why the port could not be taken
	streams *listener
	packets chan *memberlist.Packet
	closed  bool // guarded by the network's lock
}

// Transport takes a port for memberlist. If the port is in use, FinalAdvertiseAddr
// returns the error. The channels of a transport are never closed, because memberlist
// does not check for that.
func (h *Host) Transport(port int) memberlist.Transport {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &transport{host: h, packets: make(chan *memberlist.Packet, packets)}
	if t.streams, t.err = h.listen(port); t.err != nil {
		t.streams, t.closed = &listener{}, true
		return t
	}
	t.port = t.streams.addr.Port
	n.udp[address(h.ip, t.port)] = t
	h.transports = append(h.transports, t)
	return t
}

// FinalAdvertiseAddr returns the given address, or the host's address if ip is empty.
func (t *transport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	if t.err != nil {
		return nil, 0, t.err
	}
	if ip == "" {
		ip, port = t.host.ip, t.port
	}
	parsed := net.ParseIP(ip)
	if parsed == nil {
		return nil, 0, fmt.Errorf("%q is no IP address", ip)
	}
	return parsed, port, nil
}

// WriteTo sends a datagram, which may get lost or overtake others.
func (t *transport) WriteTo(b []byte, to string) (time.Time, error) {
	now := time.Now()
	remote, err := parse(to)
	if err != nil {
		return now, err
	}
	n := t.host.net
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.closed {
		return now, net.ErrClosed
	}
	if n.lost() || n.isCut(t.host.ip, remote.IP.String()) {
		return now, nil
	}
	from := &net.UDPAddr{IP: net.ParseIP(t.host.ip), Port: t.port}
	p := &memberlist.Packet{Buf: append([]byte(nil), b...), From: from}
	n.deliver(datagram{t.host.ip, remote.IP.String(), remote.String(), p})
	return now, nil
}

// arrive puts a datagram into its receiver's buffer. The caller holds the lock.
func (n *Net) arrive(d datagram) {
	t := n.udp[d.address]
	switch {
	case t == nil:
		return
	case n.still(d.from, d.to):
		if len(n.waiting) < packets {
			n.waiting = append(n.waiting, d)
		}
		return
	}
	d.packet.Timestamp = time.Now()
	select {
	case t.packets <- d.packet:
	default: // drop it, as a socket with a full buffer does
	}
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streams.queue }

func (t *transport) DialTimeout(to string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return t.host.Dial(ctx, to)
}

// Shutdown frees the port.
func (t *transport) Shutdown() error {
	t.host.net.mu.Lock()
	defer t.host.net.mu.Unlock()
	t.close()
	return nil
}

func (t *transport) close() {
	if t.closed {
		return
	}
	t.closed = true
	n := t.host.net
	delete(n.udp, address(t.host.ip, t.port))
	t.host.transports = remove(t.host.transports, t)
	t.streams.close()
}
