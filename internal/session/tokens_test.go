package session_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// longLeases are tokens that do not end by their time in these tests.
var longLeases = onehost.Config{
	MaxValue: 1000, Namespaces: onehost.One(func(s *namespaces.Settings) { s.LeaseTime = time.Hour }),
}

// handedOver checks that a LEASE that waits is answered at once, with a token.
func handedOver(t *testing.T, c *doors.Conn) {
	t.Helper()
	began := time.Now()
	if r := c.Receive(wire.OpLease); r.Status != wire.Lease || time.Since(began) > time.Second {
		t.Errorf("the next in line: %s %s after %v, want a token at once", r.Status, r.Message, time.Since(began))
	}
}

// settle lets all goroutines run until they wait, and what is on its way arrive.
func settle() { time.Sleep(10 * time.Millisecond); synctest.Wait() }

// TestEndedConnectionGivesBack checks that a connection that ends gives back its tokens
// and its places in line, even while other requests of it wait: an app that has died takes
// no part in the loading.
func TestEndedConnectionGivesBack(t *testing.T) {
	t.Run("the holder", func(t *testing.T) {
		doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
			holder, live := h.App(), h.App()
			if r := holder.Call(doors.LeaseOf("k", time.Minute)); r.Status != wire.Lease {
				t.Fatalf("LEASE: %s", r.Status)
			}
			live.Begin(doors.LeaseOf("k", 10*time.Minute))
			settle()
			holder.Close()
			handedOver(t, live)
			if n := h.LeaseTokens.Stats(); n.Abandoned != 1 || n.Expired != 0 {
				t.Errorf("it came back by its time alone: %+v", n)
			}
		})
	})
	t.Run("the holder, which waits for another key too", func(t *testing.T) {
		doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
			other, holder, live := h.App(), h.App(), h.App()
			other.Call(doors.LeaseOf("j", time.Minute))
			holder.Call(doors.LeaseOf("k", time.Minute))
			holder.Begin(doors.LeaseOf("j", 10*time.Minute))
			live.Begin(doors.LeaseOf("k", 10*time.Minute))
			settle()
			holder.Close()
			handedOver(t, live)
		})
	})
	t.Run("one that waits twice", func(t *testing.T) {
		doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
			holder, dead, live := h.App(), h.App(), h.App()
			holder.Call(doors.LeaseOf("k", time.Minute))
			dead.Begin(doors.LeaseOf("k", 10*time.Minute))
			dead.Begin(doors.LeaseOf("k", 10*time.Minute))
			settle()
			live.Begin(doors.LeaseOf("k", 10*time.Minute))
			settle()
			dead.Close()
			settle()
			holder.Close()
			handedOver(t, live)
		})
	})
}

// TestRefusedFillKeepsToken checks that a FILL that is refused because of its value, or
// that comes after its deadline, does not use the token up: it can be sent again, or the
// end of the connection gives the token back.
func TestRefusedFillKeepsToken(t *testing.T) {
	long := doors.FillOf("k", nil, strings.Repeat("x", 1001))
	late := doors.FillOf("k", nil, "v")
	late.UntilNS = 1
	for status, fill := range map[wire.Status]wire.Request{wire.TooLarge: long, wire.Unavailable: late} {
		for _, again := range []bool{true, false} {
			doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
				holder, live := h.App(), h.App()
				fill.Token = holder.Call(doors.LeaseOf("k", time.Minute)).Token
				if r := holder.Call(fill); r.Status != status {
					t.Fatalf("FILL: %s %s, want %s", r.Status, r.Message, status)
				}
				live.Begin(doors.LeaseOf("k", 10*time.Minute))
				settle()
				if !again {
					holder.Close()
					handedOver(t, live)
					return
				}
				onehost.Is(t, "sent again", holder.Call(doors.FillOf("k", fill.Token, "v")), wire.OK, "")
				onehost.Is(t, "the next in line", live.Receive(wire.OpLease), wire.OK, "v")
			})
		}
	}
}

// TestTokensAreShared checks that the tokens of a connection are counted, and given back
// however they end.
func TestTokensAreShared(t *testing.T) {
	doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
		c, other := h.App(), h.App()
		h.Budget.SetTotal(quota.LeaseTokens, 64) // 56 for the first connection
		lease := func(c *doors.Conn, key string) wire.Reply { return c.Call(doors.LeaseOf(key, 10*time.Second)) }
		var held []wire.Reply
		for i := range 64 {
			r := lease(c, fmt.Sprint("hog", i))
			if r.Status == wire.Busy {
				if !strings.Contains(string(r.Message), "of 64 places uid 0 holds 56") {
					t.Errorf("%s", r.Message)
				}
				break
			}
			held = append(held, r)
		}
		if len(held) != 56 {
			t.Fatalf("one connection has %d tokens of 64", len(held))
		}
		if r := lease(other, "mine"); r.Status != wire.Lease {
			t.Errorf("another connection: %s %s", r.Status, r.Message)
		}
		used := func() int64 { return h.Budget.Taken(quota.LeaseTokens) }
		if n := used(); n != int64(len(held))+1 {
			t.Errorf("%d tokens are counted", n)
		}
		for i := range 2 {
			onehost.Is(t, "FILL", c.Call(doors.FillOf(fmt.Sprint("hog", i), held[i].Token, "v")), wire.OK, "")
		}
		if r := lease(c, "next"); r.Status != wire.Lease {
			t.Errorf("after a FILL: %s %s", r.Status, r.Message)
		}
		other.Begin(doors.LeaseOf("hog2", 10*time.Second)) // gets it when c ends
		settle()
		c.Close()
		handedOver(t, other)
		if settle(); used() != 2 {
			t.Errorf("%d tokens are counted, want 2", used())
		}
		other.Close()
		if settle(); used() != 0 || h.Budget.Taken(quota.Waiting) != 0 || h.Budget.Stats().Total() != 0 ||
			h.Budget.Taken(quota.Connections) != 0 {
			t.Errorf("%d tokens, %d places, %d bytes and %d connections are counted",
				used(), h.Budget.Taken(quota.Waiting), h.Budget.Stats().Total(), h.Budget.Taken(quota.Connections))
		}
	})
}

// TestGrantsDoNotWait checks that a LEASE whose token is free does not wait, and that a
// LEASE which is refused does not wait either. Both are answered even if all places of
// waiting requests are taken.
func TestGrantsDoNotWait(t *testing.T) {
	h := doors.Serve(t, onehost.Config{})
	c, other := h.App(), h.App()
	c.Set("there", []byte("v")) // the namespace gets a slot
	others := h.Budget.Open("others", "")
	take := func(r quota.Resource, n int64) {
		others.AcquireAnyway(r, n)
		t.Cleanup(func() { others.AcquireAnyway(r, -n) })
	}
	take(quota.Waiting, h.Budget.Total(quota.Waiting))
	lease := func(c *doors.Conn, key string) wire.Reply {
		return c.Call(wire.Request{Op: wire.OpLease, Key: []byte(key)})
	}
	r := lease(c, "k")
	if r.Status != wire.Lease || len(r.Token) == 0 || r.TTLMS == 0 {
		t.Fatalf("%s %s", r.Status, r.Message)
	}
	if r := lease(other, "k"); r.Status != wire.Busy {
		t.Errorf("one whose token is out, without a place to wait: %s %s", r.Status, r.Message)
	}
	onehost.Is(t, "FILL", c.Call(doors.FillOf("k", r.Token, "filled")), wire.OK, "")
	onehost.Is(t, "after the FILL", lease(other, "k"), wire.OK, "filled")
	take(quota.LeaseTokens, engine.MaxLeases)
	if r := lease(c, "another"); r.Status != wire.Busy || !bytes.Contains(r.Message, []byte("lease tokens")) {
		t.Errorf("without a token: %s %s", r.Status, r.Message)
	}
	if n := h.LeaseTokens.Stats(); n.Issued != 1 || n.Shed != 1 {
		t.Errorf("%+v", n)
	}
}

// TestLeaseLeavesRoom checks that the FILL that ends the wait of a connection's LEASEs gets
// through, however many LEASEs the connection sends.
func TestLeaseLeavesRoom(t *testing.T) {
	const n = session.MaxConnLeases + 1000
	doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
		c := h.App()
		token := c.Call(doors.LeaseOf("k", time.Minute)).Token
		for i := range n {
			if c.Begin(doors.LeaseOf("k", time.Minute)); i < session.MaxConnLeases {
				continue
			}
			if r := c.Receive(wire.OpLease); r.Status != wire.Busy {
				t.Fatalf("one LEASE more than %d waits: %s %s", session.MaxConnLeases, r.Status, r.Message)
			}
		}
		fill, values := c.Begin(doors.FillOf("k", token, "v")), 0
		for range session.MaxConnLeases + 1 {
			frame := c.Frame()
			if id, _ := wire.PeekID(frame); id == fill {
				onehost.Is(t, "the FILL", c.Decode(wire.OpFill, frame), wire.OK, "")
				continue
			}
			onehost.Is(t, "who waited", c.Decode(wire.OpLease, frame), wire.OK, "v")
			values++
		}
		if values != session.MaxConnLeases {
			t.Errorf("%d got the value, want %d", values, session.MaxConnLeases)
		}
		c.Call(wire.Request{Op: wire.OpDelete, Keys: doors.Keys("k")})
		if r := c.Call(doors.LeaseOf("k", time.Minute)); r.Status != wire.Lease {
			t.Errorf("afterwards: %s %s, want a token", r.Status, r.Message)
		}
	})
}

// TestEmptyNamesOfAnOwner checks that a connection leaves some of the names that are not
// configured to others, and gets new ones in the place of those that are empty.
func TestEmptyNamesOfAnOwner(t *testing.T) {
	doors.Virtually(t, onehost.Config{MaxNamespaces: 9}, func(t *testing.T, h *doors.Host) {
		c := h.App()
		set := func(c *doors.Conn, name string) wire.Reply {
			return c.Call(wire.Request{
				Op: wire.OpSet, Namespace: []byte(name), Key: []byte("k"), Value: []byte("v"), TTLMS: wire.TTLDefault,
			})
		}
		n := 0
		for ; ; n++ {
			if r := set(c, fmt.Sprint("n", n)); r.Status != wire.OK {
				if r.Status != wire.Busy || !strings.Contains(string(r.Message), "of 8 places uid 0 holds 6, this connection 6: names that max_namespaces leaves") {
					t.Errorf("%s %s", r.Status, r.Message)
				}
				break
			}
		}
		if n != 6 {
			t.Errorf("one connection has %d of 8 names, want 6", n)
		}
		c.Call(wire.Request{Op: wire.OpDelete, Namespace: []byte("n0"), Keys: doors.Keys("k")})
		time.Sleep(2 * namespaces.SearchEvery)
		onehost.Is(t, "in the empty one's place", set(c, "new"), wire.OK, "")
		onehost.Is(t, "another connection", set(h.App(), "other"), wire.OK, "")
	})
}
