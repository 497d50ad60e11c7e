package hosts

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// ask makes a request of an app of a host.
func (v *vnode) ask(app quota.App, q wire.Request) wire.Reply {
	e := v.s.engine
	b := namespaces.Pins{Table: e.Namespaces}
	defer b.Release()
	q.Namespace, q.App, q.By = []byte(DefaultNamespace), true, app.Number()
	return e.Serve(context.Background(), &q, &b, e.Clock.Read().Boot+time.Second)
}

// TestVirtualAppIsNamed: whatever an app asks of another host, that host charges it to the app.
func TestVirtualAppIsNamed(t *testing.T) {
	inQuietWorld(t, 2, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		var key []byte
		for i := 0; key == nil; i++ {
			if k := fmt.Sprint("k", i); w.ownerOf(k) == b {
				key = []byte(k)
			}
		}
		app := a.appOf(t, quota.App{User: 7, Process: 8})
		is(t, "LEASE", app.call(&wire.Request{Op: wire.OpLease, Key: key}), wire.Lease, "")
		want := fmt.Sprintf("node %s uid 7", a.name)
		if st := b.s.engine.Budget.Shares()[quota.LeaseTokens]; st.Most != want || st.MostBy != 1 {
			t.Errorf("%+v is charged, want %s", st, want)
		}
	})
}

// TestVirtualTokensOfOneApp: an app that takes all tokens that another host gives it leaves some to the other apps of
// its user, and more to other users of its host.
func TestVirtualTokensOfOneApp(t *testing.T) {
	inQuietWorld(t, 2, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		var keys [][]byte
		for i := 0; len(keys) < 200; i++ {
			if k := fmt.Sprint("k", i); w.ownerOf(k) == b {
				keys = append(keys, []byte(k))
			}
		}
		b.s.engine.Budget.SetTotal(quota.LeaseTokens, 64)
		take := func(app quota.App) (n int) {
			for ; len(keys) > 0; n++ {
				r := a.ask(app, wire.Request{Op: wire.OpLease, Key: keys[0]})
				if r.Status == wire.Busy {
					break
				}
				is(t, "LEASE", r, wire.Lease, "")
				keys = keys[1:]
			}
			return n
		}
		greedy := quota.App{User: 1, Process: 1}
		if n := take(greedy); n != 56 {
			t.Errorf("one app has %d of 64 tokens, want 56", n)
		}
		if st := b.s.engine.Budget.Shares()[quota.LeaseTokens]; st.Most != fmt.Sprintf("node %s uid 1", a.name) || st.MostBy != 56 {
			t.Errorf("the owner charges %+v", st)
		}
		if n := take(quota.App{User: 1, Process: 2}); n == 0 {
			t.Error("another process of the user gets none")
		}
		if n := take(quota.App{User: 2, Process: 3}); n == 0 {
			t.Error("another user gets none")
		}
		if r := a.ask(greedy, wire.Request{Op: wire.OpLease, Key: keys[0]}); r.Status != wire.Busy {
			t.Errorf("the greedy one gets more: %s %s", r.Status, r.Message)
		}
	})
}
