package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// wiretap forwards the traffic of other hosts to one host, and records it: the start of
// each connection, in both directions, and datagrams.
type wiretap struct {
	mu      sync.Mutex
	streams [][]*bytes.Buffer // by connection: what was sent, and what was answered
	packets [][]byte
}

// tapped bounds what is recorded of each direction.
const tapped = 16 << 10

// keep returns a writer that records the beginning of its input.
func (w *wiretap) keep(b *bytes.Buffer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		b.Write(p[:min(len(p), max(0, tapped-b.Len()))])
		return len(p), nil
	})
}

// tcp forwards connections until the test ends.
func (w *wiretap) tcp(t *testing.T, at, to string) {
	ln, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { w.pass(from, to) })
		}
	})
}

// pass ends when either side ends.
func (w *wiretap) pass(from net.Conn, address string) {
	defer from.Close()
	to, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	sent, answered := &bytes.Buffer{}, &bytes.Buffer{}
	w.mu.Lock()
	w.streams = append(w.streams, []*bytes.Buffer{sent, answered})
	w.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(io.MultiWriter(to, w.keep(sent)), from)
		_ = to.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(io.MultiWriter(from, w.keep(answered)), to)
	_ = from.Close()
	wg.Wait()
}

// udp forwards datagrams until the test ends.
func (w *wiretap) udp(t *testing.T, at, to string) {
	pc, err := net.ListenPacket("udp", at)
	if err != nil {
		t.Fatal(err)
	}
	out, err := net.Dial("udp", to)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = pc.Close(); _ = out.Close(); wg.Wait() })
	wg.Go(func() {
		for b := make([]byte, 64<<10); ; {
			n, _, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = out.Write(b[:n])
			w.mu.Lock()
			if len(w.packets) < 200 {
				w.packets = append(w.packets, bytes.Clone(b[:n]))
			}
			w.mu.Unlock()
		}
	})
}

// recorded returns both directions of all connections, and the datagrams.
func (w *wiretap) recorded() (streams, packets [][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.streams {
		for _, b := range s {
			if b.Len() > 0 {
				streams = append(streams, bytes.Clone(b.Bytes()))
			}
		}
	}
	return streams, append([][]byte(nil), w.packets...)
}

// handshakes returns the first host's counts of successful and failed handshakes.
func (c *keyedPair) handshakes() (done, failed int64) {
	c.t.Helper()
	var st cachesidecar.Stats
	c.hosts[0].document(&st, "stats")
	return st.Cluster.Links.Handshakes, st.Cluster.Links.Failed
}

// slowly is the pause between connections, so that none is shed.
const slowly = time.Second / 150

// TestLengthyKeyedReplays records the traffic between two hosts with a key and sends it again:
// whole, cut anywhere, or marked as another version of gossip's encryption. It has no
// effect on any port. The same holds for handshakes with the key that are cut before
// their end.
func TestLengthyKeyedReplays(t *testing.T) {
	testenv.Takes(t, 20*time.Second)
	testenv.ReadsClock(t, time.Second, "connections come at a pace at which none is shed; what is sent again has no effect later")
	t.Parallel()
	text := peer.NewKeyFile()
	gossip, link := &wiretap{}, &wiretap{}
	c := newTappedPair(t, text, gossip, link)
	a := c.hosts[0]
	holder := newOutsider(t, "stranger", text)
	o := newOutsider(t, "stranger", peer.NewKeyFile())

	links, _ := link.recorded()
	streams, packets := gossip.recorded()
	if len(links) < 4 || len(streams) < 2 || len(packets) < 5 {
		t.Fatalf("%d directions of connections, %d of streams and %d datagrams are recorded: this test proves nothing",
			len(links), len(streams), len(packets))
	}
	c.unchanged("connections, sent again", func() {
		done, failed := c.handshakes()
		stood, sent := pauses(c.hosts...), int64(0)
		for _, b := range links {
			cuts := []int{len(b)}
			for i := 0; i < len(b); i += 1 + len(b)/60 {
				cuts = append(cuts, i)
			}
			// Cut where a record begins, too.
			for i := 0; i+5 <= len(b); i += 5 + int(b[i+3])<<8 + int(b[i+4]) {
				cuts = append(cuts, i, i+1, i+4, i+5)
			}
			for _, n := range cuts {
				time.Sleep(slowly)
				o.says(c.peer[0], b[:n])
				sent++
			}
		}
		t.Logf("%d parts of %d directions", sent, len(links))
		testenv.Succeeds(t, "all to fail", func() error {
			if d, f := c.handshakes(); f < failed+sent || (f > failed+sent || d != done) && pauses(c.hosts...) == stood {
				return fmt.Errorf("%d of %d have failed, %d were done", f-failed, sent, d-done)
			}
			return nil
		})
	})
	c.unchanged("handshakes cut short", func() {
		done, failed := c.handshakes()
		whole := holder.cutShake(c.peer[0], 1<<20)
		stood, sent := pauses(c.hosts...), int64(0)
		for n := 0; n < whole; n += 1 + whole/150 {
			time.Sleep(slowly)
			holder.cutShake(c.peer[0], n)
			sent++
		}
		holder.cutShake(c.peer[0], whole-1)
		testenv.Succeeds(t, "all but one to fail", func() error {
			if d, f := c.handshakes(); d < done+1 || f < failed+sent+1 || (d > done+1 || f > failed+sent+1) && pauses(c.hosts...) == stood {
				return fmt.Errorf("%d of %d have failed, %d were done", f-failed, sent+1, d-done)
			}
			return nil
		})
	})
	c.unchanged("gossip, sent again", func() {
		for _, b := range streams {
			for _, n := range []int{0, 1, 14, 15, 19, 20, len(b) / 2, len(b) - 1, len(b)} {
				o.says(c.gossip[0], b[:min(n, len(b))])
			}
			changed := bytes.Clone(b)
			if head := len(labelled(nil)); len(b) > head+5 && b[head] == gt.EncryptType {
				changed[head+5] = 0
			}
			o.says(c.gossip[0], changed)
			if b[0] == gt.EncryptType { // an answer
				o.says(c.gossip[0], labelled(b))
				changed[5] = 0
				o.says(c.gossip[0], labelled(changed))
			}
		}
		for _, b := range packets {
			changed := bytes.Clone(b)
			changed[len(labelled(nil))] = 0
			o.packets(c.gossip[0], time.Millisecond, b, changed, b[:len(b)-1])
		}
		time.Sleep(time.Second)
	})
	o.learnt("all that was sent again")
	if log := a.log.String(); len(log) > 64<<10 {
		t.Errorf("%d bytes of log", len(log))
	}
}

// newTappedPair returns a pair whose second host reaches the first through wiretaps.
func newTappedPair(t *testing.T, text string, gossip, peer *wiretap) *keyedPair {
	t.Helper()
	const host, tap = "127.0.0.2", "127.0.0.3"
	ports, err := freePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	at := func(host string, i int) string { return net.JoinHostPort(host, fmt.Sprint(ports[i])) }
	gossip.tcp(t, at(tap, 0), at(host, 0))
	gossip.udp(t, at(tap, 0), at(host, 0))
	peer.tcp(t, at(tap, 1), at(host, 1))
	join := []string{"--join", at(tap, 0)}
	c := newKeyedPair(t, text, append([]string{"--bind", at(host, 0), "--peer-bind", at(host, 1), "--advertise", tap}, join...), join)
	c.gossip[0], c.peer[0] = at(host, 0), at(host, 1)
	return c
}

// cutShake does a handshake with the outsider's certificate of which the other side gets
// only n bytes, and returns how many bytes it would have sent.
func (o *outsider) cutShake(address string, n int) (would int) {
	o.t.Helper()
	nc, err := net.DialTimeout("tcp", address, testenv.Patience)
	if err != nil {
		o.t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(testenv.Deadline())
	k := &knife{TCPConn: nc.(*net.TCPConn), left: n}
	c := tls.Client(k, &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, NextProtos: []string{"cachesidecar-peer/1"},
		Certificates: []tls.Certificate{o.set.Certificate},
	})
	_ = c.Handshake()
	if k.left > 0 {
		_ = k.CloseWrite()
	}
	answer, err := io.ReadAll(k)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		o.t.Errorf("cut after %d bytes: the connection stays", n)
	}
	o.heard = append(o.heard, answer...)
	return k.wrote
}

// knife cuts a connection's output after a number of bytes.
type knife struct {
	*net.TCPConn
	left, wrote int
}

func (k *knife) Write(b []byte) (int, error) {
	k.wrote += len(b)
	part := b[:min(len(b), k.left)]
	k.left -= len(part)
	if _, err := k.TCPConn.Write(part); err != nil {
		return 0, err
	}
	if k.left == 0 {
		_ = k.CloseWrite()
	}
	return len(b), nil
}
