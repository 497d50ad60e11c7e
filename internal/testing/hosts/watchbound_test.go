package hosts

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A near cache's bound rests on the smallest bound of any namespace, even for values of
// other namespaces: what a sidecar attests ends with the lease that the stream reports.
// Here an app asks every 50 ms what has changed, and reads its key again if it is
// outdated. The key's owner cannot be reached.
func TestVirtualNearBoundIsTheSmallest(t *testing.T) {
	const least, own = 200 * time.Millisecond, 100 * time.Millisecond
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		w.namespaces = map[string]Namespace{"fast": {MaxStaleness: least}}
		w.startAll()
		w.agreed(15 * time.Second)
		ctx := context.Background()
		a, b := w.nodes[0], w.nodes[1]
		key, _ := keyOwnedBy(b, "key")
		if _, err := b.s.Set(ctx, "default", string(key), []byte("old"), cachesidecar.SetOptions{}); err != nil {
			t.Error(err)
		}
		f := watching(t, askOf(a.s))
		get := func() wire.Reply {
			q := &wire.Request{Op: wire.OpGet, Namespace: session.DefaultNamespace, Key: key, Options: wire.Attest, App: true}
			bo := namespaces.Pins{Table: a.s.engine.Namespaces}
			defer bo.Release()
			now := a.s.engine.Clock.Read()
			if r := a.s.engine.Execute(q, &bo, now, 0); r.Status != wire.Moved {
				return r
			}
			bo.Release()
			return a.s.engine.Serve(ctx, q, &bo, a.s.engine.Deadlines.Of(q, now))
		}
		time.Sleep(time.Second)
		get()
		a.s.engine.L1.Wait()
		f.next()
		if r := get(); !r.Attested || r.Source != wire.SourceL1 {
			t.Errorf("before the cut: %+v, want a copy that is attested", r)
		}
		w.net.Cut(a.ip, b.ip)
		if _, err := b.s.Set(ctx, "default", string(key), []byte("new"), cachesidecar.SetOptions{}); err != nil {
			t.Error(err)
		}
		overwritten := time.Now()
		kept, served, worst := false, 0, time.Duration(0)
		for time.Since(overwritten) < 2*w.bound {
			sent := time.Now()
			answer := f.next()
			if over(t, &answer).Contains(ownedBy(a, b)) {
				kept = false
			}
			time.Sleep(time.Millisecond)
			r := get()
			if string(r.Value) == "old" {
				served++
				kept = kept || r.Attested
			}
			if kept {
				worst = time.Since(overwritten) + own - time.Since(sent)
			}
			time.Sleep(49 * time.Millisecond)
		}
		t.Logf("what was overwritten can be served by the near cache until %v after, and was served by the sidecar %d times", worst, served)
		if worst > least+own {
			t.Errorf("too long: the smallest bound and the near cache's own together are %v", least+own)
		}
		if time.Duration(served)*50*time.Millisecond < w.bound/2 {
			t.Errorf("the sidecar itself does not serve its copies for as long as it may")
		}
		w.leaveAll()
	})
}

// An answer that the owner gave while this host had no lease on it is not attested: no
// floor would follow it.
func TestVirtualNoAttestWithoutLease(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		w.startAll()
		w.agreed(15 * time.Second)
		a, b := w.nodes[0], w.nodes[1]
		key, h := keyOwnedBy(b, "key")
		mustSet(t, b.s, string(key), []byte("v"))
		if _, err := a.s.Get(context.Background(), "default", string(key), cachesidecar.GetOptions{}); err != nil {
			t.Fatal(err)
		}
		a.s.engine.L1.Wait()
		ns := a.s.engine.Namespaces.Lookup(session.DefaultNamespace)
		cp, ok := a.s.engine.L1.Get(ns.Key(key))
		if !ok {
			t.Fatal("there is no copy")
		}
		now := a.s.engine.Clock.Read()
		var r wire.Reply
		if !a.s.engine.Watches.Attest(cp, now, &r) {
			t.Errorf("a copy that may be served is not attested")
		}
		late := now
		late.Boot += w.bound
		if a.s.engine.Watches.Attest(cp, late, &wire.Reply{}) {
			t.Errorf("a copy is attested without a lease")
		}
		other := *cp
		other.Owner = &kv.Process{Node: "b", Epoch: 1}
		if a.s.engine.Watches.Attest(&other, now, &wire.Reply{}) {
			t.Errorf("a copy of another process is attested")
		}
		stream := a.s.engine.Watches.Open()
		another := *a.s.engine.Node.View()
		stream.View.Store(&another)
		if a.s.engine.Watches.Attest(cp, now, &wire.Reply{}) {
			t.Errorf("a copy is attested in a ring that the stream has not told of")
		}
		a.s.engine.Watches.TellLost(stream)
		if !a.s.engine.Watches.Attest(cp, now, &wire.Reply{}) {
			t.Errorf("a copy is not attested in the ring that the stream has told of")
		}
		a.s.engine.Ledger.RaisePartition(h.Partition(), cp.AsOf+1)
		if a.s.engine.Watches.Attest(cp, now, &wire.Reply{}) {
			t.Errorf("a copy that is outdated is attested")
		}
		w.leaveAll()
	})
}
