package hosts

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// seen is an event of a stream, in a form that tests compare.
type seen struct {
	kind    uint8
	hash    kv.Hash
	version uint64
	detail  string // a flush's namespace, or the number of partitions
}

func eventsOf(t *testing.T, a *wire.Watched) (list []seen) {
	t.Helper()
	if err := a.Events.Each(func(kind uint8, hash, version uint64, d *wire.EventDetail) {
		e := seen{kind: kind, hash: kv.Hash(hash), version: version}
		if d != nil {
			e.detail = d.Namespace
			if kind == wire.EventRaised {
				e.detail = fmt.Sprint(kv.PartitionsOf(d.Partitions).Len())
			}
		}
		list = append(list, e)
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// watcher follows a sidecar as an app does.
type watcher struct {
	t   *testing.T
	ask func(*wire.Request) wire.Reply
	wire.Request
}

func watching(t *testing.T, ask func(*wire.Request) wire.Reply) *watcher {
	w := &watcher{t: t, ask: ask, Request: wire.Request{Op: wire.OpWatch, Namespace: []byte("default"), TimeoutMS: 60_000}}
	if a := w.next(); !a.Reset {
		t.Fatalf("the first answer is %+v, want a reset", a)
	}
	return w
}

func (w *watcher) next() (a wire.Watched) {
	w.t.Helper()
	q := w.Request
	r := w.ask(&q)
	if r.Status != wire.OK {
		w.t.Fatalf("%s %s", r.Status, r.Message)
	}
	testenv.Must(w.t, wire.UnmarshalBody(r.Body, &a))
	if !a.Reset && (a.After != w.Seq || a.Epoch != w.Epoch) || a.Seq > a.Head {
		w.t.Fatalf("after %d of %d: %+v", w.Seq, w.Epoch, a)
	}
	w.Epoch, w.Seq = a.Epoch, a.Seq
	return a
}

// askOf asks a process of a world as an app on its host does.
func askOf(s *Sidecar) func(*wire.Request) wire.Reply {
	return func(q *wire.Request) wire.Reply {
		return s.engine.Watches.Watched(q, time.Duration(q.WaitMS)*time.Millisecond, func(string) bool { return true })
	}
}

// over returns the partitions of all floors in an answer.
func over(t *testing.T, a *wire.Watched) kv.PartitionSet {
	t.Helper()
	set := kv.NewPartitionSet(kv.Partitions)
	if err := a.Events.Each(func(kind uint8, _, _ uint64, d *wire.EventDetail) {
		if kind == wire.EventRaised {
			for p := range kv.PartitionsOf(d.Partitions).All() {
				set.Add(p)
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return set
}

// ownedBy returns the partitions whose assigned owner is by, in the view of v.
func ownedBy(v, by *vnode) kv.PartitionSet {
	set := kv.NewPartitionSet(kv.Partitions)
	for p := range uint16(kv.Partitions) {
		if o := v.s.engine.Node.View().AssignedOwner(p); o != nil && string(o.Node) == by.name {
			set.Add(p)
		}
	}
	return set
}

// Changes on other hosts are reported too. What this host can no longer know is reported
// before the answer that would attest it: an owner that does not answer, a new ring, a
// new process of a name, a pause.
func TestVirtualWatchTellsWhatIsLost(t *testing.T) {
	inQuietWorld(t, 3, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		f := watching(t, askOf(a.s))
		key, h := keyOwnedBy(b, "key")
		mustSet(t, b.s, string(key), []byte("v"))
		f.WaitMS = 1000
		answer := f.next()
		if got := eventsOf(t, &answer); len(got) == 0 || got[0].hash != h {
			t.Errorf("another's change: got %v, want one of %x", got, h)
		}
		f.next() // the event comes by gossip, too
		time.Sleep(time.Second)
		f.WaitMS = 0
		f.next()
		if answer = f.next(); answer.Events.Len() != 0 || answer.BehindMS == 0 || time.Duration(answer.BehindMS)*time.Millisecond > w.bound {
			t.Errorf("nothing is lost: %+v", answer)
		}

		of := ownedBy(a, b)
		w.net.Cut(a.ip, b.ip)
		time.Sleep(w.bound + w.bound/4)
		a.s.engine.Changes.Note(h, 1) // another event in the stream
		if answer = f.next(); !over(t, &answer).Contains(of) || answer.Seq != answer.Head {
			t.Errorf("the owner of %d partitions does not answer, and floors are over %d", of.Len(), over(t, &answer).Len())
		}
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) { // reported once
			if answer = f.next(); answer.Events.Len() == 0 {
				break
			}
			if time.Since(began) > 200*time.Millisecond {
				t.Fatal("each answer has events")
			}
		}
		w.net.Heal()
		time.Sleep(15 * time.Second)
		w.agreed(15 * time.Second)
		f.next()
		if answer = f.next(); answer.Events.Len() != 0 {
			t.Errorf("all is well again: %+v", eventsOf(t, &answer))
		}

		// A ring without one of its members.
		c := w.nodes[2]
		of = ownedBy(a, c)
		old := a.s.engine.Node.View()
		c.leave()
		time.Sleep(time.Second)
		if answer = f.next(); !over(t, &answer).Contains(of) {
			t.Errorf("%d partitions have another owner, and floors are over %d", of.Len(), over(t, &answer).Len())
		}
		// The same without an announcement that the owner gave the partitions up.
		f.next()
		a.s.engine.Watches.Stream.Load().View.Store(old)
		if answer = f.next(); !over(t, &answer).Contains(of) {
			t.Errorf("%d partitions have another owner by the ring, and floors are over %d", of.Len(), over(t, &answer).Len())
		}

		// A pause of this host: it knows nothing any more.
		f.next()
		of = ownedBy(a, a)
		of2 := ownedBy(a, b)
		a.pause(w.bound + 10*time.Millisecond)
		answer = f.next()
		if got := over(t, &answer); !got.Contains(of) || !got.Contains(of2) {
			t.Errorf("after a pause floors are over %d partitions, want %d and %d", got.Len(), of.Len(), of2.Len())
		}
	})
}

// An app's GET with the option Attest is answered from a copy, with the owner's
// attestation as it was given. Another sidecar's GET is not answered from a copy. Without
// a lease nothing is attested.
func TestVirtualAttest(t *testing.T) {
	inQuietWorld(t, 2, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		key, _ := keyOwnedBy(b, "key")
		ctx := context.Background()
		mustSet(t, b.s, string(key), []byte("v"))
		time.Sleep(time.Second)
		get := func(app bool) wire.Reply {
			q := &wire.Request{Op: wire.OpGet, Namespace: session.DefaultNamespace, Key: key, Options: wire.Attest, App: app}
			bo := namespaces.Pins{Table: a.s.engine.Namespaces}
			defer bo.Release()
			now := a.s.engine.Clock.Read()
			r := a.s.engine.Execute(q, &bo, now, 0)
			if r.Status == wire.Moved {
				bo.Release()
				if !app {
					return a.s.engine.ServePeer(ctx, q, &bo, a.s.engine.Deadlines.Of(q, now))
				}
				r = a.s.engine.Serve(ctx, q, &bo, a.s.engine.Deadlines.Of(q, now))
			}
			return r
		}
		first := get(true)
		if first.Source != wire.SourcePeer || !first.Attested || string(first.Owner) != b.name || first.Epoch != uint64(b.s.engine.Node.Self().Epoch) {
			t.Errorf("from the owner: %+v", first)
		}
		a.s.engine.L1.Wait()
		second := get(true)
		if second.Source != wire.SourceL1 || !second.Attested || second.AsOf != first.AsOf || string(second.Owner) != b.name {
			t.Errorf("from a copy: %+v, want the owner's word as of %d", second, first.AsOf)
		}
		if r := get(false); r.Status != wire.Moved {
			t.Errorf("another sidecar is answered from a copy: %+v", r)
		}
		own, _ := keyOwnedBy(a, "key")
		key = own
		mustSet(t, a.s, string(key), []byte("v"))
		if r := get(true); r.Source != wire.SourceL2 || !r.Attested || string(r.Owner) != a.name {
			t.Errorf("from here: %+v", r)
		}
	})
}
