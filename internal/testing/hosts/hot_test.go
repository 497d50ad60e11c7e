package hosts

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// hot asks for the most read keys, and returns the answer with the estimate of each key.
func (c *rawConn) hot(q *wire.Request) (a wire.Hot, reads map[string]uint64) {
	c.t.Helper()
	q.Op = wire.OpHot
	r := c.call(q)
	if r.Status != wire.OK {
		c.t.Fatalf("%s %s", r.Status, r.Message)
	}
	testenv.Must(c.t, wire.UnmarshalBody(r.Body, &a))
	reads = map[string]uint64{}
	for _, k := range a.Keys {
		reads[k.Namespace+"/"+string(k.Key)] = k.Reads
	}
	return a, reads
}

// near reports whether an estimate is within six standard errors of the reads.
func near(estimate, reads uint64) bool {
	off := float64(estimate) - float64(reads)
	return off*off <= 36*inspect.SampleRate*float64(reads)
}

// TestHot reads keys of two hosts through one of them. Each read counts where it was
// answered: from this host's own share, from a copy, or by the owner for another host.
func TestHot(t *testing.T) {
	testenv.Takes(t, time.Second)
	a, other, app, keys := startPair(t, 1)
	own := b(a.keyOf(0))
	app.call(&wire.Request{Op: wire.OpSet, Key: own, Value: b("v")})
	const rounds, fresh = 100, 200
	get := func(key []byte, n int, o wire.Options) {
		for range n {
			q := &wire.Request{Op: wire.OpMGet, Options: o}
			for range 100 {
				q.Keys = append(q.Keys, key)
			}
			if r := app.call(q); r.Status != wire.OK || r.Items[99].Status != wire.OK {
				t.Fatalf("%s %s", r.Status, r.Message)
			}
		}
	}
	get(own, 4*rounds, 0)
	get(keys[0], rounds, 0) // copies, but for the first
	get(keys[0], fresh, wire.Fresh)
	for range 2000 {
		app.call(&wire.Request{Op: wire.OpGet, Key: b("none")})
	}
	here, reads := app.hot(&wire.Request{Options: wire.All})
	if string(here.Keys[0].Key) != string(own) || !near(reads["default/"+string(own)], 400*rounds) ||
		!near(reads["default/"+string(keys[0])], 100*rounds) || !near(here.Reads, 500*rounds) ||
		here.WindowMS == 0 || here.WindowMS > uint64(time.Minute.Milliseconds()) {
		t.Errorf("%+v, of %d and %d reads", here, 400*rounds, 100*rounds)
	}
	if share := here.Keys[0].Share; share != float64(here.Keys[0].Reads)/float64(here.Reads) {
		t.Errorf("a share of %v", share)
	}
	if len(here.Keys) > 2 {
		t.Errorf("keys that nothing was found for: %v", here.Keys)
	}
	_, there := dial(t, other.Sidecar).hot(&wire.Request{Namespace: b("default")})
	if !near(there["default/"+string(keys[0])], 100*fresh) || len(there) != 1 {
		t.Errorf("the owner has %v, of %d reads", there, 100*fresh)
	}
}
