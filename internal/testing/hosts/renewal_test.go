package hosts

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestVirtualTokenThroughRenewal checks a lease token that a host has passed on from a
// key's owner. The token stays valid if a change of keys replaces the connection between
// the two hosts.
func TestVirtualTokenThroughRenewal(t *testing.T) {
	keyedWorld(t, 2, func(t *testing.T, w *world) {
		v, owner := w.nodes[0], w.nodes[1]
		tokens := map[string][]byte{}
		for n := 0; len(tokens) < 5 && n < 1000; n++ {
			key := testKeyOf(n)
			if v.s.engine.Node.View().AssignedOwner(v.s.engine.Namespaces.Hash(session.DefaultNamespace, key).Partition()).Node != owner.s.engine.Node.Self().Node {
				continue
			}
			r, err := v.s.execute(context.Background(), &wire.Request{Op: wire.OpLease, Namespace: session.DefaultNamespace, Key: key, TTLMS: 60_000, TimeoutMS: 1000})
			if r.Status != wire.Lease {
				t.Errorf("%s: %s %s, %v", key, r.Status, r.Message, err)
			}
			tokens[string(key)] = append([]byte(nil), r.Token...)
		}
		before := owner.s.engine.Node.Stats().Links.Handshakes
		for _, n := range w.nodes {
			peertest.Replace(t, n.keyFile, peertest.KeyText(peertest.Seed, "12"))
			testenv.Must(t, n.s.Reload())
		}
		time.Sleep(3 * time.Second)
		if after := owner.s.engine.Node.Stats().Links.Handshakes; after != before+3 { // one is only a greeting
			t.Errorf("%d connections were made anew", after-before)
		}
		for key, token := range tokens {
			r, err := v.s.execute(context.Background(), &wire.Request{Op: wire.OpFill, Namespace: session.DefaultNamespace, Key: []byte(key), Token: token, Value: []byte("v"), TTLMS: 60_000, TimeoutMS: 1000})
			if err != nil || r.Status != wire.OK {
				t.Errorf("%s: %s %s, %v", key, r.Status, r.Message, err)
			}
		}
	})
}
