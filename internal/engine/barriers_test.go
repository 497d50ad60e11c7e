package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

const testLag = 10 * time.Second

// TestReplicaLag checks that a deletion raises a load barrier on its key for as long as
// the request says, at most for the namespace's replica_lag. A load that begins meanwhile
// is not kept. Only a value given to the key ends the barrier before.
func TestReplicaLag(t *testing.T) {
	set := func(key string, mode wire.Mode) wire.Request {
		return wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte("v"), Mode: mode, TTLMS: 1}
	}
	del := func(key string, hold time.Duration, o wire.Options) wire.Request {
		return wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte(key)}, ReplicaLagMS: uint32(hold.Milliseconds()), Options: o}
	}
	for _, tc := range []struct {
		name      string
		namespace string
		ask, want time.Duration
		options   wire.Options
		then      []wire.Request
	}{
		{"its namespace's hold", "lagging", 0, testLag, 0, nil},
		{"less", "lagging", time.Second, time.Second, 0, nil},
		{"more", "lagging", time.Hour, testLag, 0, nil},
		{"soft", "lagging", 0, testLag, wire.Soft, nil},
		{"in a namespace without", "default", time.Second, 0, 0, nil},
		{"then set", "lagging", 0, 0, 0, []wire.Request{set("k", wire.ModeSet)}},
		{"then counted", "lagging", 0, 0, 0, []wire.Request{{Op: wire.OpIncr, Key: []byte("k"), Delta: 1, Create: true, TTLMS: 1}}},
		{"then set where there must be a value", "lagging", 0, testLag, 0, []wire.Request{set("k", wire.ModeReplace)}},
		{"then set and deleted", "lagging", 0, time.Second, 0, []wire.Request{set("k", wire.ModeSet), del("k", time.Second, 0)}},
		{"then deleted with less", "lagging", 0, testLag, 0, []wire.Request{del("k", time.Second, 0)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				h := lagging(t)
				time.Sleep(testLag)
				if tc.options != 0 {
					q := set("k", wire.ModeSet)
					h.Do(q)
				}
				accepted := time.Now()
				for i, q := range append([]wire.Request{del("k", tc.ask, tc.options)}, tc.then...) {
					q.Namespace = []byte(tc.namespace)
					if r := h.Do(q); r.Status.IsError() {
						t.Errorf("step %d: %s %s", i, r.Status, r.Message)
					}
				}
				if tc.want > 0 {
					time.Sleep(tc.want - 1)
					if kept(h, tc.namespace) {
						t.Errorf("a load that begins within %v is kept", tc.want)
					}
					time.Sleep(time.Nanosecond)
				} else {
					time.Sleep(time.Millisecond) // what was set has ended
				}
				if !kept(h, tc.namespace) {
					t.Errorf("a load that begins %v after the deletion is not kept", time.Since(accepted))
				}
			})
		})
	}
}

// lagging returns a host whose namespace "lagging" has a replica_lag. It and the default
// namespace have an origin.
func lagging(t *testing.T) *onehost.Host {
	origin := onehost.NewOrigin(0)
	origin.Put("k", []byte("row"))
	settings := onehost.Settings()
	settings.Origin = origin.ReadOnly()
	without := settings
	settings.ReplicaLag = testLag
	return onehost.New(t, onehost.Config{Namespaces: map[string]namespaces.Settings{
		namespaces.Default: without, "lagging": settings,
	}})
}

// kept reports whether the host keeps the result of a load that begins now.
func kept(h *onehost.Host, namespace string) bool {
	get := func(o wire.Options) wire.Reply {
		return h.Do(wire.Request{Op: wire.OpGet, Namespace: []byte(namespace), Key: []byte("k"), Options: o})
	}
	return get(wire.NoLoad).Status == wire.Miss && string(get(0).Value) == "row" && get(wire.NoLoad).Status == wire.OK
}

// TestReplicaLagAtTheStart checks that a host keeps no load until all barriers of an
// earlier process have ended.
func TestReplicaLagAtTheStart(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := lagging(t)
		time.Sleep(testLag - 1)
		if kept(h, "lagging") || !kept(h, "default") {
			t.Error("at the start, a load is kept, or it is not in a namespace without a lag")
		}
		time.Sleep(time.Nanosecond)
		if !kept(h, "lagging") {
			t.Errorf("%v after the start a load is not kept", testLag)
		}
	})
}

// TestReplicaLagOfFills checks that what an app has loaded within the lag is not kept.
func TestReplicaLagOfFills(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := onehost.New(t, onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) { s.ReplicaLag = testLag })})
		time.Sleep(testLag)
		for i, want := range []wire.Status{wire.NotStored, wire.OK} {
			key := fmt.Sprint("k", i)
			h.Delete(key, 0)
			if want == wire.OK {
				time.Sleep(testLag)
			}
			if r := h.Fill(key, h.Lease(key, 0).Token, "v"); r.Status != want {
				t.Errorf("FILL: %s %s, want %s", r.Status, r.Message, want)
			}
		}
	})
}
