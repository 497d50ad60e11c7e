package hosts

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// startPair runs two hosts and serves their apps. It returns an app's connection to the
// first host, and n keys that the other host owns. The value of each key is the key
// itself.
func startPair(t *testing.T, n int) (a, other *host, app *rawConn, keys [][]byte) {
	t.Helper()
	a = &host{Sidecar: start(t, Config{Node: "a", Bind: "127.0.0.1:0", L1Size: 1 << 20})}
	other = &host{Sidecar: start(t, Config{Node: "b", Bind: "127.0.0.1:0", L1Size: 1 << 20, Join: []string{a.engine.Node.GossipAddress()}})}
	settled(t, a, other)
	app = dial(t, a.Sidecar)
	for _, name := range keysIn(other.Sidecar, DefaultNamespace, "key", true, n) {
		key := b(name)
		keys = append(keys, key)
		if r := app.call(&wire.Request{Op: wire.OpSet, Key: key, Value: key}); r.Status != wire.OK {
			t.Fatalf("%s %s", r.Status, r.Message)
		}
	}
	return a, other, app, keys
}

// TestRemoteGets sends a batch of GETs of another host's keys. The answers come in any
// order.
func TestRemoteGets(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a, _, app, keys := startPair(t, 100)
	for _, options := range []wire.Options{0, wire.Fresh} {
		asked := a.engine.Counts.PeerReads.Load()
		var batch []byte
		for i, key := range keys {
			batch = wire.AppendRequest(batch, &wire.Request{ID: uint64(i), Op: wire.OpGet, Key: key, Options: options})
		}
		if _, err := app.nc.Write(batch); err != nil {
			t.Fatal(err)
		}
		seen := map[uint64]bool{}
		for range keys {
			r := app.receive(wire.OpGet)
			if seen[r.ID] || r.Status != wire.OK || string(r.Value) != string(keys[r.ID]) || r.Source != wire.SourcePeer {
				t.Fatalf("GET %d: %s %q from %d, seen before: %v", r.ID, r.Status, r.Value, r.Source, seen[r.ID])
			}
			seen[r.ID] = true
		}
		if n := a.engine.Counts.PeerReads.Load() - asked; n != int64(len(keys)) {
			t.Errorf("the owner was asked %d times for %d keys", n, len(keys))
		}
	}
	// The last answer may be read before its writer has counted it.
	testenv.Eventually(t, "none in flight, none waiting", func() bool {
		return a.server.Stats().InFlight == 0 && a.engine.Waiting.Load() == 0
	})
}

// TestRemoteOrder checks that requests of one connection for one key take effect in their
// order, whether the app waits for the answers or not.
func TestRemoteOrder(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	_, _, app, keys := startPair(t, 1)
	const n = 50
	var batch []byte
	for i := range uint64(n) {
		batch = wire.AppendRequest(batch, &wire.Request{ID: 3 * i, Op: wire.OpSet, Key: keys[0], Value: fmt.Appendf(nil, "%d", i)})
		batch = wire.AppendRequest(batch, &wire.Request{ID: 3*i + 1, Op: wire.OpGet, Key: keys[0]})
		batch = wire.AppendRequest(batch, &wire.Request{ID: 3*i + 2, Op: wire.OpGet, Key: keys[0], Options: wire.Fresh})
	}
	if _, err := app.nc.Write(batch); err != nil {
		t.Fatal(err)
	}
	for range 3 * n { // in any order
		frame := app.frame()
		id, _ := wire.PeekID(frame)
		op := wire.OpGet
		if id%3 == 0 {
			op = wire.OpSet
		}
		if r := app.decode(op, frame); r.Status != wire.OK || op == wire.OpGet && string(r.Value) != fmt.Sprint(id/3) {
			t.Fatalf("answer to %d: %s %q", id, r.Status, r.Value)
		}
	}
}

// TestFreshGets checks that a fresh GET makes no copy, and that it replaces an existing
// copy.
func TestFreshGets(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a, other, app, keys := startPair(t, 1)
	get := func(o wire.Options) wire.Reply {
		t.Helper()
		r := app.call(&wire.Request{Op: wire.OpGet, Key: keys[0], Options: o})
		if r.Status != wire.OK {
			t.Fatalf("%s %s", r.Status, r.Message)
		}
		a.engine.L1.Wait()
		return r
	}
	get(wire.Fresh)
	if n := a.engine.L1.Stats().Entries; n != 0 {
		t.Errorf("%d copies after a fresh GET", n)
	}
	testenv.Eventually(t, "a copy", func() bool { return get(0).Source == wire.SourceL1 })
	for i := range 100 {
		want := fmt.Sprint("new", i)
		mustSet(t, other, string(keys[0]), []byte(want))
		if r := get(wire.Fresh); string(r.Value) != want {
			t.Fatalf("a fresh GET: %q, want %q", r.Value, want)
		}
		if r := get(0); string(r.Value) != want {
			t.Fatalf("a GET after a fresh one: %q from %d, want %q", r.Value, r.Source, want)
		}
	}
}
