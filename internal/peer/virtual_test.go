package peer

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// bubbleClock is the virtual clock of the test's bubble.
type bubbleClock struct{ begun time.Time }

func (c bubbleClock) Read() kv.Moment {
	return kv.Moment{Wall: time.Now().UnixMilli(), Boot: time.Hour + time.Since(c.begun)}
}

// lab is a server of node b on an in-memory network, in virtual time.
type lab struct {
	*testing.T
	net     *simnet.Net
	one     *peertest.Authority
	two     *peertest.Authority
	keys    *keys // the server's
	server  *secureServer
	handler func(kv.Process, Purpose) server.Handler
}

func inLab(t *testing.T, f func(*lab), edits ...func(*lab)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		l := &lab{T: t, net: simnet.New(1), one: peertest.NewAuthority(t, "one"), two: peertest.NewAuthority(t, "two")}
		l.keys = newKeys(t, "b", l.one)
		for _, edit := range edits {
			edit(l)
		}
		ln, err := l.net.Host("10.0.0.2").Listen(7000)
		testenv.Must(t, err)
		creds := l.keys.get
		if l.keys.get() == nil {
			creds = nil
		}
		l.server = serveKeys(t, l.identity("b", 2), creds, ln, l.handler)
		f(l)
	})
}

// inPlain takes the server's keys away.
func inPlain(l *lab) { l.keys = &keys{} }

func (l *lab) identity(node string, epoch int) *Identity {
	id := identity(node, epoch)
	id.Clock = bubbleClock{time.Now()}
	return id
}

// pool returns a pool of node a at an address.
func (l *lab) pool(ip string, k *keys) *Pool {
	h := l.net.Host(ip)
	cfg := PoolConfig{Identity: l.identity("a", 1), Dial: h.Dial, Greeted: func(kv.NodeID, kv.Process, error) {}}
	if k != nil {
		cfg.Credentials = k.get
	}
	p := NewPool(cfg)
	l.Cleanup(p.Close)
	p.Set(kv.Process{Node: "b", Epoch: 2}, l.server.address)
	return p
}

var nodeB = kv.Process{Node: "b", Epoch: 2}

// dial connects and sends nothing.
func (l *lab) dial(ip string) net.Conn {
	nc, err := l.net.Host(ip).Dial(l.Context(), l.server.address)
	testenv.Must(l, err)
	return nc
}

// TestVirtualUngreeted checks that a connection without a greeting ends after 5 s,
// whatever it sends and however slowly.
func TestVirtualUngreeted(t *testing.T) {
	for name, edit := range map[string]func(*lab){"TLS": func(*lab) {}, "plain": inPlain} {
		t.Run(name, func(t *testing.T) {
			inLab(t, func(l *lab) {
				begun := time.Now()
				var wg sync.WaitGroup
				for name, say := range map[string]func(net.Conn, int) []byte{
					"nothing":            func(net.Conn, int) []byte { return nil },
					"a frame by bytes":   func(_ net.Conn, i int) []byte { return [...][]byte{{0}, {0}, {1}, {0}}[i%4] },
					"a handshake's type": func(_ net.Conn, i int) []byte { return []byte{[...]byte{0x16, 3, 1, 2, 0, 1}[i%6]} },
				} {
					wg.Go(func() {
						nc := l.dial("10.0.0.9")
						defer nc.Close()
						wg.Go(func() {
							for i := 0; ; i++ {
								b := say(nc, i)
								if _, err := nc.Write(b); err != nil || b == nil {
									return
								}
								time.Sleep(400 * time.Millisecond)
							}
						})
						_ = nc.SetReadDeadline(time.Now().Add(time.Minute))
						for b := make([]byte, 1<<10); ; {
							if _, err := nc.Read(b); err != nil {
								if d := time.Since(begun); isTimeout(err) || d > greetWithin+time.Second {
									l.Errorf("%s: it ends after %v: %v", name, d, err)
								}
								return
							}
						}
					})
				}
				wg.Wait()
				if st := l.server.Stats(); st.Late == 0 || st.Ungreeted != 0 {
					l.Errorf("%+v", st)
				}
			}, edit)
		})
	}
}

// TestVirtualCrowd checks the limits on strangers, at once and per second. Many
// strangers must not keep out a node that connects from another address.
func TestVirtualCrowd(t *testing.T) {
	inLab(t, func(l *lab) {
		var open []net.Conn
		most := int64(0)
		p := l.pool("10.0.0.1", newKeys(l.T, "a", l.one))
		for i := range 2000 {
			open = append(open, l.dial("10.0.0.9"))
			most = max(most, l.server.Stats().Ungreeted)
			if i == 1500 {
				time.Sleep(20 * time.Millisecond) // time for one more arrival
				if _, err := get(l.T, p, nodeB, Call); err != nil {
					l.Errorf("a node among strangers: %v", err)
				}
			}
		}
		synctest.Wait()
		st := l.server.Stats()
		if most > maxUngreeted || most < maxUngreeted-1 {
			l.Errorf("up to %d were not greeted, %d are let", most, maxUngreeted)
		}
		if st.Shed == 0 {
			l.Error("none was shed")
		}
		for _, nc := range open {
			_ = nc.Close()
		}
		time.Sleep(2 * greetWithin)
		if n := l.server.Stats().Ungreeted; n != 0 {
			l.Errorf("%d are not greeted after all have gone", n)
		}
	})
}

// TestVirtualRate checks the limits of arrivals: first a burst, then a rate per second.
func TestVirtualRate(t *testing.T) {
	inLab(t, func(l *lab) {
		begun := time.Now()
		crowd := func(n int) {
			var wg sync.WaitGroup
			for range n {
				wg.Go(func() { _ = l.dial("10.0.0.9").Close() })
			}
			wg.Wait()
		}
		for range 20 {
			crowd(100)
		}
		time.Sleep(10 * time.Millisecond)
		took := time.Since(begun)
		if came, bound := l.server.Stats().Accepted, int64(arrivalsBurst+arrivalsPerSecond*took.Seconds()+1); came > bound || came < arrivalsBurst {
			l.Errorf("%d of 2000 came in %v, %d may", came, took, bound)
		}
	}, inPlain)
}

// TestVirtualWords checks that a greeting that is too long is not read. Long text in a
// greeting is not repeated, neither to its sender nor in the log.
func TestVirtualWords(t *testing.T) {
	long := strings.Repeat("\x01", 200<<10)
	inLab(t, func(l *lab) {
		for name, edit := range map[string]func(*wire.PeerHello){
			"node":      func(h *wire.PeerHello) { h.From.Node = kv.NodeID(long) },
			"huge node": func(h *wire.PeerHello) { h.From.Node = kv.NodeID(strings.Repeat(long, 40)) },
			"cluster":   func(h *wire.PeerHello) { h.Cluster = long },
			"purpose":   func(h *wire.PeerHello) { h.Purpose = long },
			"setting":   func(h *wire.PeerHello) { h.Settings = map[string]string{long[:100<<10]: long[:100<<10]} },
			"escape":    func(h *wire.PeerHello) { h.From.Node, h.Cluster = "\x1b[2J", "\x1b[2J" },
		} {
			h := l.identity("a", 1).hello(Call)
			edit(&h)
			body := wire.MarshalBody(&h)
			nc := l.dial("10.0.0.9")
			frame := wire.AppendRequest(nil, &wire.Request{ID: 7, Op: wire.OpPeerHello, Body: body})
			go func() { _, _ = nc.Write(frame) }() // ends with the connection
			answer := make([]byte, 64<<10)
			n, total := 0, 0
			for err := error(nil); err == nil; {
				n, err = nc.Read(answer[total:])
				total += n
			}
			_ = nc.Close()
			if total > 8<<10 || bytes.Contains(answer[:total], []byte{1, 1}) || bytes.Contains(answer[:total], []byte{0x1b}) {
				l.Errorf("%s: %d bytes are answered: %.100q", name, total, answer[:total])
			}
		}
		if log := l.server.reasons(); len(log) > 16<<10 || strings.ContainsAny(log, "\x01\x1b") {
			l.Errorf("%d bytes in the log: %.200q", len(log), log)
		}
		if used := l.server.rpc.Stats().BytesIn; used > 5*MaxGreeting {
			l.Errorf("%d bytes were read", used)
		}
	}, inPlain)
}

// slow answers each request after a while, and passes on what it keeps to its
// successor.
type slow struct {
	echo
	wait   time.Duration
	served *atomic.Int64
	kept   *atomic.Int64 // handlers that still keep something
	has    bool
}

func (s *slow) Serve(c *server.Conn, frames [][]byte) error {
	for _, f := range frames {
		var q wire.Request
		if err := wire.DecodeRequest(f, &q); err != nil {
			return err
		}
		if q.Op == wire.OpPing {
			c.Out = wire.AppendReply(c.Out, q.Op, &wire.Reply{ID: q.ID})
			continue
		}
		id := q.ID
		if string(q.Key) == "quick" {
			c.Out = wire.AppendReply(c.Out, q.Op, &wire.Reply{ID: id, Value: []byte("slow")})
			continue
		}
		s.served.Add(1)
		c.Go(func() []byte {
			time.Sleep(s.wait)
			return wire.AppendReply(nil, wire.OpGet, &wire.Reply{ID: id, Value: []byte("slow")})
		})
	}
	return nil
}

func (s *slow) Succeeded(next server.Handler) { s.has, next.(*slow).has = false, true }

func (s *slow) Close(err error) {
	if s.has {
		s.kept.Add(-1)
	}
	s.echo.Close(err)
}

// TestVirtualRenew changes keys in three steps while calls go on, quick ones and ones
// that last longer than a step. No call fails, what the handler keeps for the process
// outlives its connections, and at the end the old key is worth nothing.
func TestVirtualRenew(t *testing.T) {
	var ended, served, kept atomic.Int64
	var first atomic.Bool
	inLab(t, func(l *lab) {
		k := newKeys(l.T, "a", l.one)
		p := l.pool("10.0.0.1", k)
		ctx, stop := context.WithCancel(l.Context())
		var wg sync.WaitGroup
		calls := atomic.Int64{}
		for i := range 16 {
			wg.Go(func() {
				key := []byte([]string{"quick", "slow"}[i/8])
				for purpose := []Purpose{Call, Poll}[i%2]; ctx.Err() == nil; calls.Add(1) {
					var a Answer
					if err := p.Do(context.Background(), nodeB, purpose, time.Minute, &wire.Request{Op: wire.OpGet, Key: key}, &a); err != nil || string(a.Value) != "slow" {
						l.Errorf("after %d calls: %q, %v", calls.Load(), a.Value, err)
					}
					a.Release()
				}
			})
		}
		time.Sleep(10 * time.Second)
		for _, accepted := range [][]*peertest.Authority{{l.one, l.two}, {l.two, l.one}, {l.two}} {
			k.set(l.T, "a", accepted...)
			p.Renew()
			time.Sleep(time.Second)
			l.keys.set(l.T, "b", accepted...)
			l.server.Renew()
			time.Sleep(20 * time.Second)
		}
		if st := l.server.Stats(); st.Open != 2 || st.Handshakes != 11 || ended.Load() != 9 {
			l.Errorf("%d connections, after %d handshakes, of which %d have ended", st.Open, st.Handshakes, ended.Load())
		}
		if kept.Load() != 1 {
			l.Error("what was kept for the process ended with a connection")
		}
		stop()
		wg.Wait()
		if calls.Load() < 100 {
			l.Errorf("%d calls", calls.Load())
		}
		old := l.pool("10.0.0.8", newKeys(l.T, "a", l.one, l.two))
		if _, err := get(l.T, old, nodeB, Call); err == nil || !strings.Contains(err.Error(), "do not match") {
			l.Errorf("under the key that was removed: %v", err)
		}
	}, func(l *lab) {
		// Requests may be on their way for long.
		l.net.SetDelay(time.Millisecond, 40*time.Millisecond)
		l.handler = func(from kv.Process, p Purpose) server.Handler {
			h := &slow{echo: echo{from, p, &ended}, wait: 3 * time.Second, served: &served, kept: &kept}
			if p == Call && first.CompareAndSwap(false, true) {
				h.has = true
				kept.Add(1)
			}
			return h
		}
	})
}

// TestVirtualWithdrawn checks that a connection whose key is not accepted any more ends
// soon if its other side does not replace it.
func TestVirtualWithdrawn(t *testing.T) {
	inLab(t, func(l *lab) {
		p := l.pool("10.0.0.1", newKeys(l.T, "a", l.one, l.two))
		if _, err := get(l.T, p, nodeB, Call); err != nil {
			l.Fatal(err)
		}
		c := p.Live(nodeB, Call)
		l.keys.set(l.T, "b", l.two, l.one)
		l.server.Renew()
		time.Sleep(2 * renewWithin)
		if c.Err() != nil {
			l.Errorf("a key that is accepted: %v", c.Err())
		}
		l.keys.set(l.T, "b", l.two)
		l.server.Renew()
		time.Sleep(renewWithin - time.Second)
		if c.Err() != nil {
			l.Errorf("before its time: %v", c.Err())
		}
		time.Sleep(2 * time.Second)
		if c.Err() == nil {
			l.Error("the connection goes on under a key that was removed")
		}
		if _, err := get(l.T, p, nodeB, Call); err == nil {
			l.Error("another is made")
		}
	})
}

// TestVirtualOlder checks that once a newer connection of the same process was greeted,
// later requests on the older one are not served. Requests that came before are
// answered.
func TestVirtualOlder(t *testing.T) {
	var ended, served, kept atomic.Int64
	inLab(t, func(l *lab) {
		k := newKeys(l.T, "a", l.one)
		older, newer := l.pool("10.0.0.1", k), l.pool("10.0.0.1", k)
		got := make(chan error, 1)
		go func() { // ends with its call
			_, err := get(l.T, older, nodeB, Poll)
			got <- err
		}()
		time.Sleep(500 * time.Millisecond)
		c := older.Live(nodeB, Poll)
		go func() { _, _ = get(l.T, newer, nodeB, Poll) }() // ends with its call
		time.Sleep(500 * time.Millisecond)
		if served.Load() != 2 {
			l.Errorf("%d calls are served", served.Load())
		}
		call, err := c.Do(l.Context(), 30*time.Second, &wire.Request{Op: wire.OpGet, Key: []byte("k")})
		c.Release(call)
		if !errors.Is(err, rpc.ErrClosed) || served.Load() != 2 {
			l.Errorf("one that comes late: %v, and %d are served", err, served.Load())
		}
		if err := <-got; err != nil {
			l.Errorf("one that was served before: %v", err)
		}
	}, func(l *lab) {
		l.handler = func(from kv.Process, p Purpose) server.Handler {
			return &slow{echo: echo{from, p, &ended}, wait: 2 * time.Second, served: &served, kept: &kept}
		}
	})
}
