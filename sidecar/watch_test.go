package sidecar

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/session"
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
	if err := wire.UnmarshalBody(r.Body, &a); err != nil {
		w.t.Fatal(err)
	}
	if !a.Reset && (a.After != w.Seq || a.Epoch != w.Epoch) || a.Seq > a.Head {
		w.t.Fatalf("after %d of %d: %+v", w.Seq, w.Epoch, a)
	}
	w.Epoch, w.Seq = a.Epoch, a.Seq
	return a
}

// A host that is alone reports every change, in order, with the version that the writer
// was told.
func TestWatchAlone(t *testing.T) {
	s := start(t, Config{})
	writer, reader := dial(t, s), dial(t, s)
	w := watching(t, reader.call)
	hash := func(key string) kv.Hash { return s.engine.Names.Hash(session.DefaultNamespace, b(key)) }
	var want []seen
	change := func(key string, q wire.Request) {
		t.Helper()
		r := writer.call(&q)
		v := r.Version
		if q.Op == wire.OpDelete {
			v = r.Items[0].Version
		}
		if r.Event != 0 {
			v = r.Event
		}
		if v == 0 {
			t.Fatalf("%s: %s %s", q.Op, r.Status, r.Message)
		}
		want = append(want, seen{wire.EventChanged, hash(key), v, ""})
	}
	change("a", wire.Request{Op: wire.OpSet, Key: b("a"), Value: b("1"), TTLMS: wire.TTLDefault})
	change("a", wire.Request{Op: wire.OpIncr, Key: b("a"), Delta: 1, TTLMS: wire.TTLDefault})
	change("a", wire.Request{Op: wire.OpTouch, Key: b("a"), TTLMS: 1000})
	change("none", wire.Request{Op: wire.OpDelete, Keys: keysOf("none")})
	r := writer.call(&wire.Request{Op: wire.OpFlush, Namespace: b("other")})
	other := seen{kind: wire.EventFlushed, version: r.Version, detail: "other"}
	r = writer.call(&wire.Request{Op: wire.OpFlush})
	want = append(want, seen{kind: wire.EventFlushed, version: r.Version, detail: "default"})
	r = writer.call(&wire.Request{Op: wire.OpFlush, Options: wire.All})
	want = append(want, seen{kind: wire.EventFlushed, version: r.Version})
	all := *w
	a := w.next()
	if got := eventsOf(t, &a); !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	all.Options = wire.All
	a = all.next()
	if got := eventsOf(t, &a); !slices.Equal(got, slices.Insert(want, 4, other)) {
		t.Errorf("all namespaces: %v", got)
	}

	// Without events there is a heartbeat, at once or after the wait.
	began := time.Now()
	if a := w.next(); a.Reset || a.Events.Len() > 0 || time.Since(began) > 30*time.Second {
		t.Errorf("got %+v after %v, want a heartbeat at once", a, time.Since(began))
	}
	w.WaitMS = 50
	began = time.Now()
	if a := w.next(); a.Reset || a.Events.Len() > 0 || time.Since(began) < 50*time.Millisecond {
		t.Errorf("got %+v after %v, want a heartbeat after 50ms", a, time.Since(began))
	}
	// An event ends the wait.
	w.WaitMS = 60_000
	reader.send(&w.Request)
	change("b", wire.Request{Op: wire.OpSet, Key: b("b"), TTLMS: wire.TTLDefault})
	began = time.Now()
	if r := reader.receive(wire.OpWatch); r.Status != wire.OK || time.Since(began) > 30*time.Second {
		t.Errorf("%v after %v", r.Err(), time.Since(began))
	}
	if r := reader.call(&wire.Request{Op: wire.OpWatch, Namespace: b("Bad")}); r.Status != wire.BadRequest {
		t.Errorf("a bad namespace: %s", r.Status)
	}
}

// The number of waiting requests is bounded, for a connection and for a host. They end
// with the sidecar.
func TestWatchesAreBounded(t *testing.T) {
	s, err := New(Config{Socket: filepath.Join(t.TempDir(), "s"), L2Size: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with stop, below
	<-s.Ready()
	c := dial(t, s)
	w := watching(t, c.call)
	w.WaitMS = 60_000
	for range engine.MaxConnWatch + 1 {
		c.send(&w.Request)
	}
	if r := c.receive(wire.OpWatch); r.Status != wire.Busy {
		t.Errorf("one more than %d: %s, want BUSY", engine.MaxConnWatch, r.Status)
	}
	s.engine.Shares.Join("others").Force(places.Watches, engine.MaxWatches)
	other := dial(t, s)
	if r := other.call(&wire.Request{Op: wire.OpWatch}); r.Status != wire.Busy {
		t.Errorf("one more than %d on a host: %s, want BUSY", engine.MaxWatches, r.Status)
	}
	s.engine.Shares.Join("others").Force(places.Watches, -engine.MaxWatches)
	if r := other.call(&wire.Request{Op: wire.OpWatch}); r.Status != wire.OK {
		t.Errorf("with room again: %s %s", r.Status, r.Message)
	}
	began := time.Now()
	stop()
	for range engine.MaxConnWatch {
		if r := c.receive(wire.OpWatch); r.Status != wire.OK {
			t.Errorf("at the end: %s %s", r.Status, r.Message)
		}
	}
	if err := <-done; err != nil || time.Since(began) > 30*time.Second {
		t.Errorf("Run: %v, %v after the stop", err, time.Since(began))
	}
	if n := s.engine.Shares.Used(places.Watches); n != 0 {
		t.Errorf("%d requests wait", n)
	}
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
		if o := v.s.engine.Node.View().Owner(p); o != nil && string(o.Node) == by.name {
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
		if _, err := b.s.Set(context.Background(), "default", string(key), []byte("v"), cachesidecar.SetOptions{}); err != nil {
			t.Fatal(err)
		}
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
		if _, err := b.s.Set(ctx, "default", string(key), []byte("v"), cachesidecar.SetOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		get := func(app bool) wire.Reply {
			q := &wire.Request{Op: wire.OpGet, Namespace: session.DefaultNamespace, Key: key, Options: wire.Attest, App: app}
			bo := namespaces.Pins{Table: a.s.engine.Names}
			defer bo.Release()
			now := a.s.engine.Clock.Read()
			r := a.s.engine.Execute(q, &bo, now, 0)
			if r.Status == wire.Moved {
				bo.Release()
				if !app {
					return a.s.engine.ServePeer(ctx, q, &bo, a.s.engine.Deadlines.Of(q, now))
				}
				r = a.s.serve(ctx, q, &bo, a.s.engine.Deadlines.Of(q, now))
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
		if _, err := a.s.Set(ctx, "default", string(key), []byte("v"), cachesidecar.SetOptions{}); err != nil {
			t.Fatal(err)
		}
		if r := get(true); r.Source != wire.SourceL2 || !r.Attested || string(r.Owner) != a.name {
			t.Errorf("from here: %+v", r)
		}
	})
}
