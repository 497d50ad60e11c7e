package sidecar

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// twoSockets runs two sidecars of one cluster, each with a socket.
func twoSockets(t *testing.T) (a, b *host) {
	t.Helper()
	at := func(name string) Config { return Config{Socket: filepath.Join(t.TempDir(), name)} }
	a = startHostWith(t, at("a"), "a")
	b = startHostWith(t, at("b"), "b", a.node.GossipAddress())
	settled(t, a, b)
	return a, b
}

// keyOf returns the n-th key that a host owns.
func (h *host) keyOf(n int) string {
	for i := 0; ; i++ {
		key := fmt.Sprint("key", i)
		if h.node.Holds(h.hash(defaultNamespace, b(key)).Partition()) == 0 {
			continue
		}
		if n--; n < 0 {
			return key
		}
	}
}

// TestOptionsReachTheOwner: each op takes the same options for a key that another
// host owns as for one of this host's, in every combination, and answers alike.
func TestOptionsReachTheOwner(t *testing.T) {
	here, there := twoSockets(t)
	c := dial(t, here.Sidecar)
	call := func(q wire.Request) wire.Reply {
		t.Helper()
		if q.TTLMS, q.TimeoutMS = wire.TTLDefault, 10_000; q.Op == wire.OpMGet || q.Op == wire.OpDelete {
			q.Keys, q.Key = [][]byte{q.Key}, nil
		}
		r := c.call(&q)
		if len(r.Items) == 1 {
			return r.Items[0]
		}
		return r
	}
	const options = 9
	n, taken := 0, map[wire.Op]int{}
	for _, op := range []wire.Op{wire.OpGet, wire.OpMGet, wire.OpLease, wire.OpSet, wire.OpDelete, wire.OpTouch, wire.OpIncr, wire.OpFill} {
		for o := range wire.Options(1 << options) {
			for _, present := range []bool{false, true} {
				var status [2]wire.Status
				for i, owner := range []*host{here, there} {
					q := wire.Request{Op: op, Key: b(owner.keyOf(n)), Value: b("7"), Options: o}
					if r := call(wire.Request{Op: wire.OpDelete, Key: q.Key}); r.Status.IsError() {
						t.Fatalf("DELETE: %s %s", r.Status, r.Message)
					}
					if present {
						call(wire.Request{Op: wire.OpSet, Key: q.Key, Value: b("7")})
					}
					if op == wire.OpFill {
						if q.Token = call(wire.Request{Op: wire.OpLease, Key: q.Key}).Token; q.Token == nil {
							q.Token = []byte("none") // there is a value
						}
					}
					r := call(q)
					status[i] = r.Status
					if r.Status == wire.OK && o&wire.Vouch != 0 { // a lease may have lapsed on a busy machine
						await(t, fmt.Sprintf("%s with options %#x is vouched for by %s", op, o, owner.cfg.Node), func() bool {
							r := call(q)
							return r.Vouched && string(r.Owner) == owner.cfg.Node
						})
					}
					if r.Status == wire.Lease {
						call(wire.Request{Op: wire.OpFill, Key: q.Key, Token: r.Token, Options: wire.Abandon})
					}
				}
				if status[0] != status[1] {
					t.Errorf("%s with options %#x, a value %v: %s of an own key, %s of another host's", op, o, present, status[0], status[1])
				}
				if status[0] == wire.BadRequest {
					break // it has no such option
				}
				taken[op]++
			}
		}
		n++
	}
	for op, want := range map[wire.Op]int{wire.OpGet: 32, wire.OpMGet: 32, wire.OpLease: 16, wire.OpSet: 4, wire.OpDelete: 8, wire.OpTouch: 4, wire.OpIncr: 4, wire.OpFill: 4} {
		if taken[op] != want {
			t.Errorf("%s took its options %d times, want %d", op, taken[op], want)
		}
	}
}

// TestNearCacheLoadsElsewhere: a client with a near cache has GetOrLoad and Lease
// of keys that another host owns, and keeps what they bring.
func TestNearCacheLoadsElsewhere(t *testing.T) {
	a, other := twoSockets(t)
	ctx := t.Context()
	var clients []*client.Client
	for _, h := range []*host{a, other} {
		c, err := client.Dial(ctx, client.Config{Socket: h.SocketPath(), NearCache: client.NearCache{Bytes: 1 << 20, Bound: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		await(t, "it follows", func() bool { return c.NearStats().Following })
		clients = append(clients, c)
	}
	for i, owner := range []*host{a, other, other, a} {
		here, there := clients[i%2], clients[1-i%2]
		t.Run(fmt.Sprintf("through %s, owned by %s", []string{"a", "b"}[i%2], owner.cfg.Node), func(t *testing.T) {
			key, loads := owner.keyOf(2*i), 0
			load := func(context.Context, string) ([]byte, error) {
				loads++
				return []byte("loaded"), nil
			}
			from := func(c *client.Client, source string) {
				t.Helper()
				await(t, "a value from "+source, func() bool {
					it, err := c.GetOrLoad(ctx, key, load)
					if err != nil || string(it.Value) != "loaded" {
						t.Fatalf("%q, %v", it.Value, err)
					}
					return it.Source == source
				})
			}
			from(here, "load")
			from(here, "near")
			from(there, "near")
			if loads != 1 {
				t.Errorf("%d loads", loads)
			}

			key = owner.keyOf(2*i + 1)
			_, lease, err := here.Lease(ctx, key)
			if err != nil || lease == nil {
				t.Fatal(lease, err)
			}
			if _, err := lease.Fill(ctx, []byte("filled")); err != nil {
				t.Fatal(err)
			}
			for _, c := range clients {
				await(t, "a filled value from near", func() bool {
					it, lease, err := c.Lease(ctx, key)
					if err != nil || lease != nil || string(it.Value) != "filled" {
						t.Fatalf("%q, %v, %v", it.Value, lease, err)
					}
					return it.Source == "near"
				})
			}
		})
	}
}

// await waits for what other hosts or goroutines do.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for began := time.Now(); !f(); time.Sleep(time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("never: %s", what)
		}
	}
}
