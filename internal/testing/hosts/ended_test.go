package hosts

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestNoReadHasWhatEndedBefore checks that a read does not get a value that ended before
// the read began, even if the value is on its way by then. The read asks the owner
// itself.
func TestNoReadHasWhatEndedBefore(t *testing.T) { noReadHasWhatEndedBefore(t, t.Errorf) }

// noReadHasWhatEndedBefore reports each kind of read that gets a value which ended
// before.
func noReadHasWhatEndedBefore(t *testing.T, bad func(format string, args ...any)) {
	const tries = 10 // a lease may lapse for a moment, and then no call is joined
	a, _, app, keys := startPair(t, 5*tries)
	for i, door := range []struct {
		name string
		asks wire.Request
		read func(key []byte) wire.Reply
	}{
		{"GET", wire.Request{Op: wire.OpGet}, func(key []byte) wire.Reply { return app.call(&wire.Request{Op: wire.OpGet, Key: key}) }},
		{"GET that may be stale", wire.Request{Op: wire.OpGet, Options: wire.StaleOK}, func(key []byte) wire.Reply {
			return app.call(&wire.Request{Op: wire.OpGet, Key: key, Options: wire.StaleOK})
		}},
		{"MGET", wire.Request{Op: wire.OpGet}, func(key []byte) wire.Reply {
			return app.call(&wire.Request{Op: wire.OpMGet, Keys: [][]byte{key}}).Items[0]
		}},
		{"LEASE", wire.Request{Op: wire.OpLease}, func(key []byte) wire.Reply { return app.call(&wire.Request{Op: wire.OpLease, Key: key}) }},
		{"an embedding program's GET", wire.Request{Op: wire.OpGet}, func(key []byte) wire.Reply {
			r, _ := a.execute(context.Background(), &wire.Request{Op: wire.OpGet, Namespace: session.DefaultNamespace, Key: key})
			return r
		}},
	} {
		joined := false
		for try := 0; try < tries && !joined; try++ {
			key := keys[i*tries+try]
			var r wire.Reply
			switch r, joined = joinEnded(t, a, key, door.asks, door.read); {
			case string(r.Value) == "ended":
				bad("%s: what ended before the read began is its answer", door.name)
			case joined && (r.Status != wire.OK || string(r.Value) != string(key)):
				t.Errorf("%s: %s %q, want the present value", door.name, r.Status, r.Value)
			}
		}
		if !joined {
			t.Errorf("%s: it joins no call in %d tries", door.name, tries)
		}
	}
}

// joinEnded reads a key while a call for the key is under way, and that call's value has
// ended. It reports whether the read has joined the call.
func joinEnded(t *testing.T, a *host, name []byte, asks wire.Request, read func(key []byte) wire.Reply) (r wire.Reply, joined bool) {
	k := a.engine.Namespaces.Lookup(session.DefaultNamespace).Key(name)
	owner := a.engine.Node.View().AssignedOwner(k.Hash.Partition())
	now := a.engine.Clock.Read()
	cl, _ := a.engine.Remote.Join(owner, k, &asks, now, now.Boot+time.Minute, now.Boot+time.Minute, nil)
	testenv.Eventually(t, "the end of the value", func() bool {
		return a.engine.Clock.Read().Boot > now.Boot+2*time.Millisecond
	})
	before := a.engine.Counts.Joined.Load()
	answer := make(chan wire.Reply, 1)
	go func() { answer <- read(name) }() // ends with its answer, below
	testenv.Eventually(t, "it joins the call or is answered", func() bool {
		return a.engine.Counts.Joined.Load() > before || len(answer) > 0
	})
	joined = a.engine.Counts.Joined.Load() > before
	came := wire.Reply{
		Value: []byte("ended"), TTLMS: 1, Attested: true, AsOf: uint64(a.engine.HLC.Next(now.Wall)), Owner: []byte(owner.Node), Epoch: uint64(owner.Epoch),
	}
	if asks.Options == wire.StaleOK {
		came = wire.Reply{Status: wire.Stale, Value: came.Value, TTLMS: 1}
	}
	var answers transport.Answers
	a.engine.Remote.Finish(&answers, cl, &came, nil)
	answers.Write()
	return <-answer, joined
}

// TestVirtualCopyEndsWithItsEntry checks that a copy ends with its entry, however long
// the owner's answer was on its way.
func TestVirtualCopyEndsWithItsEntry(t *testing.T) { copyEndsWithItsEntry(t, t.Errorf) }

// copyEndsWithItsEntry reports a copy that is served after the end of its entry.
func copyEndsWithItsEntry(t *testing.T, bad func(format string, args ...any)) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		a, b := w.nodes[0], w.nodes[1]
		var g gates
		a.dials = g.dial(a)
		w.startAll()
		w.agreed(15 * time.Second)
		time.Sleep(time.Second)
		key, _ := keyOwnedBy(b, "key")
		a.get(string(key), 0) // makes the connection
		const ttl = 800 * time.Millisecond
		if _, err := b.s.Set(context.Background(), "default", string(key), []byte("v"), cachesidecar.SetOptions{TTL: ttl}); err != nil {
			t.Error(err)
		}
		end := time.Now().Add(ttl)
		time.Sleep(50 * time.Millisecond)
		release := g.hold(b.ip)
		go func() {
			time.Sleep(500 * time.Millisecond)
			release()
		}()
		is(t, "the read whose answer is late", a.get(string(key), 0), wire.OK, "v")
		a.s.engine.L1.Wait()
		if r := a.get(string(key), 0); r.Status != wire.OK || r.Source != wire.SourceL1 {
			t.Errorf("before its end: %s from %s, want the copy", r.Status, r.Source)
		}
		time.Sleep(time.Until(end) + 2*time.Millisecond)
		if r := a.get(string(key), 0); r.Status == wire.OK {
			bad("a copy is served after the end of its entry: %+v", r)
		}
		w.leaveAll()
	})
}
