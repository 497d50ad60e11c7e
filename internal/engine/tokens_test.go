package engine_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func (do asks) lease(key string, o wire.Options) wire.Reply {
	return do(wire.Request{Op: wire.OpLease, Key: []byte(key), Options: o})
}

func (do asks) fill(key string, token []byte, value string) wire.Reply {
	return do(wire.Request{Op: wire.OpFill, Key: []byte(key), Token: token, Value: []byte(value), TTLMS: wire.TTLDefault})
}

// leasing returns a host whose apps load.
func leasing(t *testing.T, change func(*namespaces.Settings)) *onehost.Host {
	return onehost.New(t, onehost.Config{RequestTimeout: time.Second, Namespaces: onehost.One(change)})
}

// mustLease returns a token, for which it must not wait.
func mustLease(t *testing.T, do asks, key string) []byte {
	t.Helper()
	began := time.Now()
	r := do.lease(key, 0)
	if want := onehost.Settings().LeaseTime.Milliseconds(); r.Status != wire.Lease || len(r.Token) == 0 || r.TTLMS != want {
		t.Errorf("LEASE: %s %q, %d ms: want a token for %d ms", r.Status, r.Message, r.TTLMS, want)
	}
	if took := time.Since(began); took > 0 {
		t.Errorf("LEASE of %s: a token after %v", key, took)
	}
	return r.Token
}

func refused(t *testing.T, what string, r wire.Reply) {
	t.Helper()
	if r.Status != wire.NotStored || len(r.Message) == 0 {
		t.Errorf("%s: %s %s, want NOT_STORED", what, r.Status, r.Message)
	}
}

// TestTokens checks that a token is good once, for its key, and until the key changes.
func TestTokens(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		h := onehost.New(t, onehost.Config{})
		do := by(h)
		token := mustLease(t, do, "k")
		refused(t, "another key's", do.fill("other", token, "x"))
		for i := range token {
			forged := bytes.Clone(token)
			forged[i] ^= 1
			refused(t, fmt.Sprint("forged at ", i), do.fill("k", forged, "x"))
		}
		refused(t, "too short", do.fill("k", token[:10], "x"))
		refused(t, "empty", do.fill("k", []byte{}, "x"))
		onehost.Is(t, "the token", do.fill("k", token, "value"), wire.OK, "")
		refused(t, "again", do.fill("k", token, "other"))
		onehost.Is(t, "what was filled", do.get("k", 0), wire.OK, "value")
		for i, change := range []wire.Request{
			{Op: wire.OpDelete, Keys: [][]byte{[]byte("c0")}},
			{Op: wire.OpDelete, Keys: [][]byte{[]byte("c1")}, Options: wire.Soft},
			{Op: wire.OpSet, Key: []byte("c2"), Value: []byte("set")},
			{Op: wire.OpIncr, Key: []byte("c3"), Create: true, Delta: 1},
			{Op: wire.OpFlush},
			{Op: wire.OpFlush, Options: wire.All},
			{Op: wire.OpFlush, Options: wire.Cluster},
		} {
			key := fmt.Sprint("c", i)
			token := mustLease(t, do, key)
			if r := h.Do(change); r.Status != wire.OK {
				t.Errorf("%s: %s %s", change.Op, r.Status, r.Message)
			}
			if change.Op == wire.OpDelete || change.Op == wire.OpFlush {
				mustLease(t, do, key) // the former token is in nobody's way
			}
			refused(t, fmt.Sprint("after ", change.Op), do.fill(key, token, "old"))
			if r := do.get(key, 0); string(r.Value) == "old" {
				t.Errorf("after %s and FILL: %q", change.Op, r.Value)
			}
		}
	})
}

// TestLeaseOnce checks that one of all clients that miss a key gets the token. The others
// get the value that it fills.
func TestLeaseOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := leasing(t, func(*namespaces.Settings) {})
		var mu sync.Mutex
		got := map[wire.Status]int{}
		var wg sync.WaitGroup
		for i := range 100 {
			do := asks(h.Do)
			if i%4 == 0 {
				do = h.DoPeer
			}
			wg.Go(func() {
				time.Sleep(time.Duration(i%5) * 50 * time.Millisecond) // some come after the fill
				r := do.lease("k", 0)
				mu.Lock()
				got[r.Status]++
				mu.Unlock()
				if r.Status == wire.OK {
					onehost.Is(t, "who waited", r, wire.OK, "value")
					return
				}
				time.Sleep(120 * time.Millisecond)
				if r := do.fill("k", r.Token, "value"); r.Status != wire.OK || r.Version == 0 {
					t.Errorf("FILL: %s %s", r.Status, r.Message)
				}
			})
		}
		wg.Wait()
		if got[wire.Lease] != 1 || got[wire.OK] != 99 {
			t.Errorf("%v, want 1 token and 99 values", got)
		}
	})
}

// TestTokenComesBack checks a client that gives its token back, or takes too long: the
// client that has waited longest gets the next token.
func TestTokenComesBack(t *testing.T) {
	for how, want := range map[string]time.Duration{"abandons": 100 * time.Millisecond, "takes too long": 500 * time.Millisecond} {
		t.Run(how, func(t *testing.T) {
			byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
				h := leasing(t, func(s *namespaces.Settings) { s.LeaseTime = 500 * time.Millisecond })
				do := by(h)
				first := do.lease("k", 0).Token
				got := make(chan wire.Reply, 2)
				took := time.Duration(0)
				began := time.Now()
				go func() { r := h.Lease("k", 0); took = time.Since(began); got <- r }()
				time.Sleep(50 * time.Millisecond)
				go func() { got <- h.Lease("k", 0) }()
				time.Sleep(50 * time.Millisecond)
				if how == "abandons" {
					onehost.Is(t, "abandon", h.Abandon("k", first), wire.OK, "")
				}
				r := <-got
				if r.Status != wire.Lease || took != want {
					t.Fatalf("the next got %s after %v, want a token after %v", r.Status, took, want)
				}
				refused(t, "the first one's FILL", do.fill("k", first, "late"))
				refused(t, "the first one gives back", h.Abandon("k", first))
				onehost.Is(t, "the second one's FILL", h.Fill("k", r.Token, "value"), wire.OK, "")
				onehost.Is(t, "who came last", <-got, wire.OK, "value")
			})
		})
	}
}

// TestLeaseStale checks that a reader that accepts a stale value does not wait while
// another client loads.
func TestLeaseStale(t *testing.T) {
	const ttl = 2 * time.Second
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		h := leasing(t, func(s *namespaces.Settings) { s.TTL, s.Policy.StaleWhileRevalidate = ttl, 30*time.Second })
		do := by(h)
		for round := range 2 {
			old := fmt.Sprint("value", round)
			onehost.Is(t, "fill", do.fill("k", mustLease(t, do, "k"), old), wire.OK, "")
			if round == 0 {
				time.Sleep(ttl + ttl/5) // with the jitter
			} else {
				h.Delete("k", wire.Soft)
			}
			token := do.lease("k", wire.StaleOK)
			if token.Status != wire.Lease {
				t.Fatalf("the first to ask: %s, want a token", token.Status)
			}
			onehost.Is(t, "the next to ask", do.lease("k", wire.StaleOK), wire.Stale, old)
			got := make(chan wire.Reply, 1)
			go func() { got <- h.Lease("k", 0) }()
			time.Sleep(50 * time.Millisecond)
			onehost.Is(t, "fill", do.fill("k", token.Token, "new"), wire.OK, "")
			onehost.Is(t, "who takes nothing stale", <-got, wire.OK, "new")
			h.Delete("k", 0)
		}
	})
}

// TestLeaseWaits checks that a client that waits for a fill gives up in time. A waiting
// client gets the value of a load even if an invalidation keeps that value out of the
// cache.
func TestLeaseWaits(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		h := leasing(t, func(*namespaces.Settings) {})
		do := by(h)
		token := mustLease(t, do, "k")
		began := time.Now()
		r := do.lease("k", 0)
		if took := time.Since(began); r.Status != wire.Timeout || took > time.Second || took < 900*time.Millisecond {
			t.Errorf("%s after %v, want TIMEOUT within a second", r.Status, took)
		}
		got := make(chan wire.Reply, 1)
		go func() { got <- do.lease("k", 0) }()
		time.Sleep(100 * time.Millisecond)
		h.Delete("k", 0)
		second := do.lease("k", 0) // a client that comes after the deletion
		if second.Status != wire.Lease {
			t.Errorf("after the deletion: %s, want a token", second.Status)
		}
		refused(t, "the fill of before", do.fill("k", token, "old"))
		onehost.Is(t, "who has waited since before", <-got, wire.OK, "old")
		onehost.Is(t, "the fill of after", do.fill("k", second.Token, "new"), wire.OK, "")
		onehost.Is(t, "then", do.get("k", 0), wire.OK, "new")
	})
}

// TestTokenKeepsItsSlot checks that a namespace keeps its slot while one of its lease
// tokens is in use: there is one token of a key at a time, and a flush finds it. Calls to
// owners are detached when a slot is freed.
func TestTokenKeepsItsSlot(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := onehost.New(t, onehost.Config{MaxNamespaces: 2})
		a, k := []byte("a"), []byte("k")
		lease := wire.Request{Op: wire.OpLease, Namespace: a, Key: k, TimeoutMS: 1}
		r := h.Do(lease)
		if r.Status != wire.Lease {
			t.Fatalf("LEASE: %s %s", r.Status, r.Message)
		}
		first := h.Namespaces.Lookup(a).ID
		var detached []kv.NamespaceID
		h.Namespaces.Detach = func(id kv.NamespaceID) { detached = append(detached, id) }
		other := func() wire.Reply {
			return h.Do(wire.Request{Op: wire.OpSet, Namespace: []byte("b"), Key: k, Value: []byte("v"), TTLMS: wire.TTLDefault})
		}
		if r := other(); r.Status == wire.OK || !bytes.Contains(r.Message, []byte("max_namespaces")) {
			t.Errorf("another name in its slot: %s %s", r.Status, r.Message)
		}
		if r := h.Do(lease); r.Status != wire.Timeout {
			t.Errorf("a second LEASE: %s %s", r.Status, r.Message)
		}
		if r := h.Do(wire.Request{Op: wire.OpFlush, Namespace: a}); r.Status != wire.OK {
			t.Errorf("FLUSH: %s %s", r.Status, r.Message)
		}
		fill := wire.Request{Op: wire.OpFill, Namespace: a, Key: k, Token: r.Token, Value: []byte("old"), TTLMS: wire.TTLDefault}
		refused(t, "FILL after a flush", h.Do(fill))
		onehost.Is(t, "a GET after a flush", h.Do(wire.Request{Op: wire.OpGet, Namespace: a, Key: k}), wire.Miss, "")
		time.Sleep(2 * namespaces.SearchEvery) // a full table is searched only so often
		if r := other(); r.Status != wire.OK {
			t.Errorf("the slot is not freed: %s %s", r.Status, r.Message)
		}
		if second := h.Namespaces.Lookup([]byte("b")).ID; second != first || !slices.Equal(detached, []kv.NamespaceID{first}) {
			t.Errorf("the other name has slot %d, and the calls of %v are detached; want %d", second, detached, first)
		}
	})
}
