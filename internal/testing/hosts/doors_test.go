package hosts

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// twoSockets runs two sidecars of one cluster, each with a socket.
func twoSockets(t *testing.T) (a, b *host) {
	t.Helper()
	return twoHosts(t, Config{Socket: filepath.Join(t.TempDir(), "s")})
}

// keyOf returns the n-th key, from zero, that a host owns.
func (h *host) keyOf(n int) string { return keysIn(h.Sidecar, DefaultNamespace, "key", true, n+1)[n] }

// asking is a connection that sends requests for one key at a time.
type asking struct{ *rawConn }

// one makes a request for one key, and returns the key's answer.
func (c asking) one(q wire.Request) wire.Reply {
	c.t.Helper()
	q.TTLMS, q.TimeoutMS = wire.TTLDefault, 10_000
	if q.Op == wire.OpMGet || q.Op == wire.OpDelete {
		q.Keys, q.Key = [][]byte{q.Key}, nil
	}
	r := c.call(&q)
	if len(r.Items) == 1 {
		return r.Items[0]
	}
	return r
}

// try makes a request for a key of owner, with or without a value, and gives any lease
// token back.
func (c asking) try(t *testing.T, owner *host, q wire.Request, present bool) wire.Status {
	t.Helper()
	if r := c.one(wire.Request{Op: wire.OpDelete, Key: q.Key}); r.Status.IsError() {
		t.Fatalf("DELETE: %s %s", r.Status, r.Message)
	}
	if present {
		c.one(wire.Request{Op: wire.OpSet, Key: q.Key, Value: q.Value})
	}
	if q.Op == wire.OpFill {
		if q.Token = c.one(wire.Request{Op: wire.OpLease, Key: q.Key}).Token; q.Token == nil {
			q.Token = []byte("none") // there is a value, and so no token
		}
	}
	r := c.one(q)
	if r.Status == wire.OK && q.Has(wire.Attest) { // a lease may have lapsed on a busy machine
		testenv.Eventually(t, fmt.Sprintf("%s with options %#x is attested by %s", q.Op, q.Options, owner.cfg.Node), func() bool {
			r := c.one(q)
			return r.Attested && string(r.Owner) == owner.cfg.Node
		})
	}
	if r.Status == wire.Lease {
		c.one(wire.Request{Op: wire.OpFill, Key: q.Key, Token: r.Token, Options: wire.Abandon})
	}
	return r.Status
}

// TestOptionsReachTheOwner checks that each op takes the same options for a key that
// another host owns as for a key that this host owns, in every combination, and answers
// alike.
func TestOptionsReachTheOwner(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 8*time.Second)
	const options = 9
	here, there := twoSockets(t)
	c := asking{dial(t, here.Sidecar)}
	for n, tc := range []struct {
		op    wire.Op
		takes int // combinations of options that the op takes
	}{
		{wire.OpGet, 16}, {wire.OpMGet, 16}, {wire.OpLease, 8}, {wire.OpSet, 2}, {wire.OpDelete, 4}, {wire.OpTouch, 2},
		{wire.OpIncr, 2}, {wire.OpFill, 2},
	} {
		own, others, taken := here.keyOf(n), there.keyOf(n), 0
		for o := range wire.Options(1 << options) {
			q := wire.Request{Op: tc.op, Value: b("7"), Options: o}
			for _, present := range []bool{false, true} {
				q.Key = b(own)
				first := c.try(t, here, q, present)
				q.Key = b(others)
				if second := c.try(t, there, q, present); first != second {
					t.Errorf("%s with options %#x, a value %v: %s of an own key, %s of another host's", tc.op, o, present, first, second)
				}
				if first == wire.BadRequest && o%8 != 0 {
					break // whether there is a value makes no difference: one of eight shows it
				}
				if first != wire.BadRequest {
					taken++
				}
			}
		}
		if taken != 2*tc.takes {
			t.Errorf("%s took %d requests, want %d", tc.op, taken, 2*tc.takes)
		}
	}
}

// TestNearCacheLoadsElsewhere checks that a client with a near cache can use GetOrLoad
// and Lease for keys that another host owns, and keeps their values.
func TestNearCacheLoadsElsewhere(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a, other := twoSockets(t)
	ctx := t.Context()
	var clients []*client.Client
	for _, h := range []*host{a, other} {
		near := client.NearCache{Bytes: 1 << 20, Bound: time.Minute}
		c, err := client.Dial(ctx, client.Config{
			Socket: h.SocketPath(), NearCache: near, NoSharedMemory: true, DialTimeout: time.Minute, RequestTimeout: time.Minute,
		})
		testenv.Must(t, err)
		t.Cleanup(func() { c.Close() })
		testenv.Eventually(t, "it follows", func() bool { return c.NearStats().Following })
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
				testenv.Eventually(t, "a value from "+source, func() bool {
					it, err := c.GetOrLoad(ctx, key, load, client.LoadOptions{})
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
			_, lease, err := here.Lease(ctx, key, cachesidecar.GetOptions{})
			if err != nil || lease == nil {
				t.Fatal(lease, err)
			}
			if _, err := lease.Fill(ctx, []byte("filled"), client.FillOptions{}); err != nil {
				t.Fatal(err)
			}
			for _, c := range clients {
				testenv.Eventually(t, "a filled value from near", func() bool {
					it, lease, err := c.Lease(ctx, key, cachesidecar.GetOptions{})
					if err != nil || lease != nil || string(it.Value) != "filled" {
						t.Fatalf("%q, %v, %v", it.Value, lease, err)
					}
					return it.Source == "near"
				})
			}
		})
	}
}
