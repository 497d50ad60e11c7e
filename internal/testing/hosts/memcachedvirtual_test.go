package hosts

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/memcachedtest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// hooked is a host that is told of the requests of its endpoint that cannot be answered in place.
type hooked struct {
	session.Host
	before func(q *wire.Request)
	after  func(q *wire.Request, r *wire.Reply)

	delimiter string // of the endpoint
}

func (h hooked) Serve(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	if h.before != nil {
		h.before(q)
	}
	r := h.Host.Serve(ctx, q, b, deadline)
	if h.after != nil {
		h.after(q, &r)
	}
	return r
}

// text returns a client of a new endpoint for memcached's protocol of a node.
func (v *vnode) text() *textConn { return v.hookedText(hooked{}) }

// hookedText is text with an endpoint whose requests are hooked.
func (v *vnode) hookedText(h hooked) *textConn {
	v.w.t.Helper()
	s := v.s
	h.Host = s.parts.Host
	doors := session.New(session.Config{
		Engine: s.engine, Host: h, Limits: func() server.Limits { return s.server.Limits() },
	})
	door := &memcached.Endpoint{Sessions: doors, Namespace: session.DefaultNamespace, MaxValue: int(s.cfg.MaxValue), Address: "virtual"}
	if h.delimiter != "" {
		door.Delimiter = h.delimiter[0]
	}
	limits := s.server.Limits()
	limits.MaxConns, limits.Framing, limits.MaxFrame = 10, door, door.Longest()
	own := server.New(limits, s.cfg.Log, door.Handler)
	door.Conns = own.Stats
	ln, err := v.host.Listen(0)
	testenv.Must(v.w.t, err)
	go func() { _ = own.Serve(context.Background(), ln) }() // ends with the node's process
	nc, err := v.host.Dial(context.Background(), ln.Addr().String())
	testenv.Must(v.w.t, err)
	return &textConn{memcachedtest.New(v.w.t, nc), v.w.t}
}

// claimed is the answer to an mg with N.
type claimed struct {
	number, value string
	won, taken    bool
	stale         bool
	line          string
}

var claimIn = regexp.MustCompile(`^VA \d+ c(\d+)((?: [WXZ])*)$`)

func (c *textConn) claim(key string) (a claimed) {
	c.t.Helper()
	c.Send("mg " + key + " v c N60\r\n")
	a.line = c.Line()
	m := claimIn.FindStringSubmatch(a.line)
	if m == nil {
		return a
	}
	a.number, a.value = m[1], c.Line()
	a.won, a.taken, a.stale = strings.Contains(m[2], "W"), strings.Contains(m[2], "Z"), strings.Contains(m[2], "X")
	return a
}

// mustClaim claims a key, and holds another client to see the claim.
func (c *textConn) mustClaim(key string, other *textConn) claimed {
	c.t.Helper()
	a, b := c.claim(key), other.claim(key)
	if !a.won || a.taken || b.won || !b.taken || a.number != b.number {
		c.t.Errorf("%s: %q, and another client %q: want a claim and Z", key, a.line, b.line)
	}
	return a
}

// fill stores a value with the number of a claim, and returns the answer.
func (c *textConn) fill(key, number, value string) string {
	c.t.Helper()
	c.Send(fmt.Sprintf("ms %s %d T600 C%s\r\n%s\r\n", key, len(value), number, value))
	return c.Line()
}

// keysOf returns n keys of a node.
func (w *world) keysOf(v *vnode, n int) (keys []string) {
	return keysIn(v.s, DefaultNamespace, "key", true, n)
}

// ends ends the ownerships of a node in some way.
func (v *vnode) ends(how string) {
	switch how {
	case "killed":
		v.kill()
	case "restarted":
		v.kill()
		v.start()
	case "leaves":
		v.leave()
	default:
		v.s.engine.Node.SetWeight(1)
	}
}

var endings = []string{"killed", "restarted", "leaves", "loses the keys"}

// TestVirtualMemcachedClaimsOwnerGoes ends the ownership in which claims were won. Their values are
// not stored by the next owner, whatever is there, and the next owner has a claim to give.
func TestVirtualMemcachedClaimsOwnerGoes(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 700*time.Millisecond)
	for _, how := range endings {
		t.Run(how, func(t *testing.T) {
			withNodes(t, 3, nil, Namespace{}, func(w *world) {
				keys := w.keysOf(w.nodes[0], 12)
				c, other := w.nodes[1].text(), w.nodes[2].text()
				numbers := map[string]string{}
				for i, key := range keys {
					if i%4 == 3 {
						c.Ask("set "+key+" 0 0 5\r\nstale\r\nmd "+key+" I T60", "STORED", "HD")
					}
					a := c.mustClaim(key, other)
					if numbers[key] = a.number; a.stale != (i%4 == 3) {
						t.Errorf("%s: %q", key, a.line)
					}
				}
				w.nodes[0].ends(how)
				time.Sleep(8 * time.Second)
				w.agreed(20 * time.Second)
				moved := 0
				for i, key := range keys {
					if how == "loses the keys" && w.ownerOf(key) == w.nodes[0] {
						continue
					}
					moved++
					refused := func(want string) {
						t.Helper()
						if said := c.fill(key, numbers[key], "late"); said != want {
							t.Errorf("%s: the former claim is answered %q, want %s", key, said, want)
						}
					}
					value := "new"
					switch i % 4 {
					case 0:
						refused("NF")
						other.Ask("get "+key, "END")
						value = ""
					case 1:
						a := other.mustClaim(key, c)
						refused("EX")
						if said := other.fill(key, a.number, "new"); a.number == numbers[key] || said != "HD" {
							t.Errorf("%s: the next claim is %q and answered %q", key, a.line, said)
						}
						refused("EX")
					case 2:
						other.Ask("set "+key+" 0 0 3\r\nnew", "STORED")
						refused("EX")
					case 3: // a stale value is never handed over
						if a := other.mustClaim(key, c); a.stale || a.value != "" {
							t.Errorf("%s: the next claim is %q with %q", key, a.line, a.value)
						}
						refused("EX")
						value = ""
					}
					for _, v := range w.nodes[1:] {
						is(t, key, v.get(key, wire.Fresh), map[bool]wire.Status{true: wire.Miss, false: wire.OK}[value == ""], value)
					}
				}
				if moved < 4 {
					t.Errorf("%d keys have another owner", moved)
				}
			})
		})
	}
}

// TestLengthyVirtualMemcachedClaimsWhileOwnerGoes claims keys through two hosts over and over, while their
// owner goes. A claim may end early meanwhile, but one of all values is stored. Once the hosts have
// settled, a claim lasts.
func TestLengthyVirtualMemcachedClaimsWhileOwnerGoes(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	for _, how := range endings {
		t.Run(how, func(t *testing.T) {
			withNodes(t, 3, nil, Namespace{}, func(w *world) {
				keys, first := w.keysOf(w.nodes[0], 6), map[string]string{}
				c, other := w.nodes[1].text(), w.nodes[2].text()
				winners := map[string]map[string]bool{}
				for _, key := range keys {
					first[key] = c.mustClaim(key, other).number
					winners[key] = map[string]bool{}
				}
				var mu sync.Mutex
				var all sync.WaitGroup
				end := time.Now().Add(15 * time.Second)
				for i := range 6 {
					c := w.nodes[1+i%2].text()
					all.Go(func() {
						for n := i; time.Now().Before(end); n++ {
							key := keys[n%len(keys)]
							a := c.claim(key)
							mu.Lock()
							if a.won && winners[key][a.number] {
								t.Errorf("%s: %s was won twice", key, a.number)
							}
							if a.won {
								winners[key][a.number] = true
							}
							mu.Unlock()
							time.Sleep(5 * time.Millisecond)
						}
					})
				}
				time.Sleep(time.Second)
				w.nodes[0].ends(how)
				all.Wait()
				w.agreed(20 * time.Second)
				time.Sleep(5 * time.Second) // for handoffs
				moved := 0
				for _, key := range keys {
					if a := c.claim(key); a.won {
						winners[key][a.number] = true
					}
					for range 10 {
						if a := other.claim(key); a.won || !a.taken {
							t.Errorf("%s: a claim is out, and another client gets %q", key, a.line)
						}
						time.Sleep(100 * time.Millisecond)
					}
					stored := ""
					for number := range winners[key] {
						if c.fill(key, number, number) == "HD" {
							if stored != "" {
								t.Errorf("%s: two claims were stored", key)
							}
							stored = number
						}
					}
					if stored == "" && w.ownerOf(key) == w.nodes[0] { // it has not moved
						continue
					}
					moved++
					if said := c.fill(key, first[key], "first"); said != "EX" {
						t.Errorf("%s: the first claim is answered %q, want EX", key, said)
					}
					is(t, key, w.nodes[1].get(key, wire.Fresh), wire.OK, stored)
				}
				if moved < 2 {
					t.Errorf("%d keys have another owner and winner", moved)
				}
			})
		})
	}
}

// TestVirtualMemcachedValueInHand fails the METAGET of an mg after its GET has brought a value: the
// value is the answer, as over the socket, and nobody has a claim.
func TestVirtualMemcachedValueInHand(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		key := w.keysOf(w.nodes[0], 1)[0]
		cut := false
		c := w.nodes[1].hookedText(hooked{before: func(q *wire.Request) {
			if q.Op == wire.OpMetaGet && q.UntilNS == 0 {
				t.Error("a METAGET without an end: its claim may be made when nobody waits for it")
			}
			if cut && q.Op == wire.OpMetaGet {
				w.net.Cut(w.nodes[0].ip, w.nodes[1].ip)
			}
		}})
		rejoin := func() {
			w.net.Heal()
			time.Sleep(20 * time.Second)
			w.agreed(20 * time.Second)
		}
		for _, tc := range []struct{ name, change, ask, want string }{
			{"a stale value", "md " + key + " I T60", "mg " + key + " v f N30", "VA 5 f7 X"},
			{"a value that ends soon", "touch " + key + " 20", "mg " + key + " v f R30", "VA 5 f7"},
		} {
			for _, copied := range []bool{false, true} {
				w.nodes[0].text().Ask("set "+key+" 7 0 5\r\nvalue\r\n"+tc.change, "STORED")
				time.Sleep(100 * time.Millisecond)
				if copied {
					w.nodes[1].get(key, 0)
					w.nodes[1].s.engine.L1.Wait()
				}
				cut = true
				if c.Send(tc.ask + "\r\n"); true {
					if line, value := c.Line(), c.Line(); line != tc.want || value != "value" {
						t.Errorf("%s, copied %v: %q %q, want %q", tc.name, copied, line, value, tc.want)
					}
				}
				cut = false
				rejoin()
			}
		}
		c.Ask("mn", "MN")
	})
}

// TestVirtualMemcachedStaleIfError reads a value after its end while the origin is down: mg
// has what a GET with stale_ok has.
func TestVirtualMemcachedStaleIfError(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	ttl, limit, jitter, early := 10*time.Second, time.Hour, 0.0, 0.0
	o := newDatabase(always(time.Millisecond))
	ns := Namespace{
		DefaultTTL: &ttl, StaleLimit: &limit, TTLJitter: &jitter, RefreshEarly: &early,
		StaleWhileRevalidate: 20 * time.Second, StaleIfError: 100 * time.Second,
	}
	withNodes(t, 2, o, ns, func(w *world) {
		key := w.keysOf(w.nodes[0], 1)[0]
		o.set(key, []byte("row"))
		for _, within := range []time.Duration{5 * time.Second, 50 * time.Second} { // of both settings; of the second
			for _, v := range w.nodes {
				c := v.text()
				o.fail(nil)
				v.drop(key, 0)
				time.Sleep(10 * time.Second) // until the breaker lets a call through
				c.Ask("mg "+key+" v", "VA 3", "row")
				o.fail(errors.New("down"))
				time.Sleep(ttl + within)
				c.Ask("mg "+key+" v", "VA 3 X", "row")
				c.Ask("mg "+key+" v N30", "VA 3 X", "row")
				is(t, "over the socket", v.get(key, wire.StaleOK), wire.Stale, "row")
				if c.Send("get " + key + "\r\n"); !strings.HasPrefix(c.Line(), "SERVER_ERROR ") {
					t.Error("get shows a stale value")
				}
				time.Sleep(100 * time.Second)
				if c.Send("mg " + key + " v\r\n"); !strings.HasPrefix(c.Line(), "SERVER_ERROR ") {
					t.Error("mg shows a value that is stale for too long")
				}
			}
		}
	})
}

// TestVirtualMemcachedErrorsAreOurs writes keys whose owner has died. What clients get to read has
// neither addresses nor the words of the network: those are in the log.
func TestVirtualMemcachedErrorsAreOurs(t *testing.T) {
	t.Parallel()
	foreign := regexp.MustCompile(`\d+\.\d+\.\d+\.\d+|dial|tcp|EOF|context|deadline|connect|closed|refused|simnet`)
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		keys := w.keysOf(w.nodes[0], 6)
		c := w.nodes[1].text()
		c.Ask("set "+keys[0]+" 0 0 1\r\n5", "STORED") // there is a connection that can break
		w.nodes[0].kill()
		errors := 0
		for range 8 {
			for i, key := range keys {
				c.Send([]string{
					"set " + key + " 0 0 1\r\nx\r\n", "incr " + key + " 1\r\n", "delete " + key + "\r\n", "touch " + key + " 9\r\n",
					"append " + key + " 0 0 1\r\nx\r\n", "md " + key + "\r\n",
				}[i])
				line := c.Line()
				if !strings.HasPrefix(line, "SERVER_ERROR ") {
					continue
				}
				if errors++; foreign.MatchString(line) {
					t.Errorf("%q", line)
				}
			}
			time.Sleep(250 * time.Millisecond)
		}
		if errors < 6 {
			t.Errorf("%d errors", errors)
		}
	})
}
