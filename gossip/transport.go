package gossip

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// transport is memberlist's network behind the filter. What the filter drops costs
// one look, and no line in the log.
//
// Goroutines: one for packets and one for streams, until Shutdown.
type transport struct {
	memberlist.NodeAwareTransport
	f       *filter
	packets chan *memberlist.Packet
	streams chan net.Conn
	done    chan struct{}
	wg      sync.WaitGroup
	close   sync.Once
}

// newTransport returns the network of a configuration: c.Transport, or if that is
// nil, the machine's own.
func newTransport(c *memberlist.Config, f *filter) (*transport, error) {
	inner := c.Transport
	if inner == nil {
		var err error
		if inner, err = netTransport(c); err != nil {
			return nil, err
		}
	}
	aware, ok := inner.(memberlist.NodeAwareTransport)
	if !ok {
		aware = unaware{inner}
	}
	t := &transport{
		NodeAwareTransport: aware, f: f,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn), done: make(chan struct{}),
	}
	t.wg.Go(t.pass)
	t.wg.Go(t.accept)
	return t, nil
}

// freePortTries is how often to look for a port that is free for both UDP and TCP, if
// any port will do.
const freePortTries = 10

// netTransport returns UDP and TCP, as memberlist.Create would make them.
func netTransport(c *memberlist.Config) (memberlist.Transport, error) {
	tries := 1
	if c.BindPort == 0 {
		tries = freePortTries
	}
	for {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: c.Logger, MetricLabels: c.MetricLabels,
		})
		if err == nil {
			if c.BindPort == 0 {
				c.BindPort = t.GetAutoBindPort()
				c.AdvertisePort = c.BindPort
			}
			return t, nil
		}
		if tries--; tries == 0 || !strings.Contains(err.Error(), "address already in use") {
			return nil, fmt.Errorf("could not set up network transport: %w", err)
		}
	}
}

// unaware is a network that knows addresses only.
type unaware struct{ memberlist.Transport }

func (un unaware) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return un.WriteTo(b, a.Addr)
}

func (un unaware) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return un.DialTimeout(a.Addr, timeout)
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streams }

// pass passes packets on. A packet is in a buffer of 64 KiB, and memberlist keeps
// what it queues, so each packet is copied.
func (t *transport) pass() {
	for {
		select {
		case <-t.done:
			return
		case p := <-t.NodeAwareTransport.PacketCh():
			if !t.f.packet(p.Buf) {
				continue
			}
			select {
			case <-t.done:
				return
			case t.packets <- &memberlist.Packet{Buf: bytes.Clone(p.Buf), From: p.From, Timestamp: p.Timestamp}:
			}
		}
	}
}

// accept passes streams on, as many as may be open at once.
func (t *transport) accept() {
	for {
		select {
		case <-t.done:
			return
		case nc := <-t.NodeAwareTransport.StreamCh():
			s := &stream{Conn: nc, f: t.f}
			s.ip, _, _ = net.SplitHostPort(nc.RemoteAddr().String())
			if !t.f.admit(s) {
				_ = nc.Close()
				continue
			}
			select {
			case <-t.done:
				_ = s.Close()
				return
			case t.streams <- s:
			}
		}
	}
}

// DialTimeout opens a stream whose answer is bounded: it comes from others too.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout is DialTimeout to a node that has a name.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	nc, err := t.NodeAwareTransport.DialAddressTimeout(a, timeout)
	if err != nil {
		return nil, err
	}
	return &stream{Conn: nc, f: t.f, answer: true}, nil
}

// Shutdown ends the inner network first: memberlist continues to take what comes
// until that has ended.
func (t *transport) Shutdown() error {
	err := t.NodeAwareTransport.Shutdown()
	t.close.Do(func() { close(t.done) })
	t.wg.Wait()
	return err
}

// stream is a connection of which memberlist reads maxStream bytes at most. The first Read
// looks at its head: memberlist has set a deadline before.
type stream struct {
	net.Conn
	f      *filter
	ip     string // the remote IP address, unless it is an answer
	answer bool

	in  *bufio.Reader
	err error
}

func (s *stream) Read(p []byte) (int, error) {
	if s.in == nil {
		s.in = bufio.NewReader(io.LimitReader(s.Conn, maxStream))
		s.err = s.f.stream(s.in, s.answer)
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.in.Read(p)
}

// Close gives the stream's place to another.
func (s *stream) Close() error {
	if !s.answer {
		s.f.leave(s)
	}
	return s.Conn.Close()
}
