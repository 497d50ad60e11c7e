package hosts

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func (v *vnode) lease(key string, options wire.Options) wire.Reply {
	return v.do(&wire.Request{Op: wire.OpLease, Key: []byte(key), Options: options})
}

func (v *vnode) fill(key string, token []byte, value string) wire.Reply {
	return v.do(&wire.Request{Op: wire.OpFill, Key: []byte(key), Token: token, Value: []byte(value)})
}

func (v *vnode) mustLease(key string) []byte {
	v.w.t.Helper()
	r := v.lease(key, 0)
	if r.Status != wire.Lease || len(r.Token) == 0 || r.TTLMS != DefaultLeaseTime.Milliseconds() {
		v.w.t.Errorf("LEASE: %s %q, %d ms: want a token", r.Status, r.Message, r.TTLMS)
	}
	return r.Token
}

// TestVirtualLeaseOnce checks that one of all clients that miss a key, on all hosts, gets
// the token. The others get the value that it fills.
func TestVirtualLeaseOnce(t *testing.T) {
	withNodes(t, 4, nil, Namespace{}, func(w *world) {
		var tokens, values atomic.Int64
		var wg sync.WaitGroup
		for i := range 400 {
			v := w.nodes[i%4]
			wg.Go(func() {
				time.Sleep(time.Duration(i%5) * 50 * time.Millisecond) // some come after the fill
				switch r := v.lease("k", 0); r.Status {
				case wire.Lease:
					tokens.Add(1)
					time.Sleep(120 * time.Millisecond)
					if r := v.fill("k", r.Token, "value"); r.Status != wire.OK || r.Version == 0 {
						t.Errorf("FILL: %s %s", r.Status, r.Message)
					}
				case wire.OK:
					is(t, "who waited", r, wire.OK, "value")
					values.Add(1)
				default:
					t.Errorf("LEASE: %s %s", r.Status, r.Message)
				}
			})
		}
		wg.Wait()
		asked := int64(0)
		for _, v := range w.nodes {
			asked += v.s.telemetry.ClusterState().PeerReads
		}
		if asked > 10 { // each host asks for the token and for the fill
			t.Errorf("owners were asked %d times", asked)
		}
		if tokens.Load() != 1 || values.Load() != 399 {
			t.Errorf("%d tokens and %d values, want 1 and 399", tokens.Load(), values.Load())
		}
		for _, v := range w.nodes {
			v.lease("k", 0)
			v.s.engine.L1.Wait()
			hits := v.s.telemetry.L1Stats().Hits
			is(t, "a hit", v.lease("k", 0), wire.OK, "value")
			if v != w.ownerOf("k") && v.s.telemetry.L1Stats().Hits != hits+1 {
				t.Errorf("%s: LEASE leaves no copy", v.name)
			}
		}
	})
}

// TestVirtualLeaseOwnerGoes checks that a token of a former owner fills nothing at the
// next owner, where the key may have been deleted meanwhile.
func TestVirtualLeaseOwnerGoes(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	for _, how := range []string{"killed", "leaves", "loses the key"} {
		t.Run(how, func(t *testing.T) {
			withNodes(t, 3, nil, Namespace{}, func(w *world) {
				o, v := w.ownerOf("k"), w.other("k")
				token := v.mustLease("k")
				switch how {
				case "killed":
					o.kill()
				case "leaves":
					o.leave()
				default:
					o.s.engine.Node.SetWeight(1)
				}
				time.Sleep(8 * time.Second)
				w.agreed(20 * time.Second)
				if w.ownerOf("k") == o {
					t.Skip("the key stayed where it was")
				}
				v.drop("k", 0)
				if r := v.fill("k", token, "old"); r.Status != wire.NotStored {
					t.Errorf("FILL: %s %s, want NOT_STORED", r.Status, r.Message)
				}
				if r := v.get("k", 0); r.Status != wire.Miss {
					t.Errorf("GET: %s %q", r.Status, r.Value)
				}
				is(t, "a new token", v.fill("k", v.mustLease("k"), "new"), wire.OK, "")
				is(t, "then", v.get("k", 0), wire.OK, "new")
			})
		})
	}
}

// TestVirtualLeasesOfOtherHosts checks that the apps of another host may have more
// waiting LEASEs than one connection of an app may have.
func TestVirtualLeasesOfOtherHosts(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		v, o := w.other("k0"), w.ownerOf("k0")
		var keys []string
		for i := 0; len(keys) < session.MaxConnLeases+100; i++ {
			if k := fmt.Sprint("k", i); w.ownerOf(k) == o {
				keys = append(keys, k)
			}
		}
		var wg sync.WaitGroup
		for _, k := range keys {
			token := o.mustLease(k)
			wg.Go(func() { is(t, k, v.lease(k, 0), wire.OK, "value") })
			time.AfterFunc(500*time.Millisecond, func() { o.fill(k, token, "value") })
		}
		wg.Wait()
	})
}
