package hosts

import (
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// waiting begins a GET of a key.
func waiting(app *rawConn, id uint64, key string, timeout time.Duration) {
	app.send(&wire.Request{ID: id, Op: wire.OpGet, Key: []byte(key), TimeoutMS: uint32(timeout.Milliseconds())})
}

// TestVirtualGetOutlivesItsCall has two GETs of another host's key share a call. The one that made it
// has little time, and the owner answers later than that: the other one asks again.
func TestVirtualGetOutlivesItsCall(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		owner, v := w.ownerOf("k"), w.other("k")
		is(t, "SET", v.do(&wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte("value")}), wire.OK, "")
		hasty, patient := v.app(w.t), v.app(w.t)
		w.net.Stop(owner.ip)
		waiting(hasty, 1, "k", 200*time.Millisecond)
		time.Sleep(10 * time.Millisecond)
		waiting(patient, 2, "k", 10*time.Second)
		if r := hasty.receive(wire.OpGet); r.Status != wire.Miss || r.Why != wire.Degraded {
			t.Errorf("the first: %s %v", r.Status, r.Why)
		}
		w.net.Run(owner.ip, 1)
		is(t, "the second", patient.receive(wire.OpGet), wire.OK, "value")
	})
}

// TestVirtualGetLoadsWithoutOwner kills the owner of a key while a GET through another host waits for
// its answer: that host loads the key.
func TestVirtualGetLoadsWithoutOwner(t *testing.T) {
	o := newDatabase(always(200 * time.Millisecond))
	withNodes(t, 2, o, Namespace{}, func(w *world) {
		o.set("k", []byte("value"))
		owner, v := w.ownerOf("k"), w.other("k")
		v.drop("k", 0) // it makes the connection
		app := v.app(w.t)
		waiting(app, 1, "k", 10*time.Second)
		time.Sleep(100 * time.Millisecond)
		owner.kill()
		is(t, "the GET", app.receive(wire.OpGet), wire.OK, "value")
	})
}

// TestVirtualTokenIsForOne has LEASEs of another host's key come at once: one gets the token.
func TestVirtualTokenIsForOne(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		v := w.other("k")
		var wg sync.WaitGroup
		tokens := make(chan []byte, 8)
		for range cap(tokens) {
			wg.Go(func() {
				if r := v.lease("k", 0); r.Status == wire.Lease {
					tokens <- r.Token
					time.Sleep(100 * time.Millisecond)
					v.fill("k", r.Token, "value")
				} else {
					is(t, "the others", r, wire.OK, "value")
				}
			})
		}
		wg.Wait()
		if len(tokens) != 1 {
			t.Errorf("%d tokens", len(tokens))
		}
	})
}
