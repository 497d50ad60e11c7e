package sidecar

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestKeptAnswersGoOn checks that heirs refuse no counter after a host has left, which does not wait until they have
// fetched all.
func TestKeptAnswersGoOn(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			w := newWorld(t, 1, 3)
			w.keeps = keeps
			for _, v := range w.nodes {
				v.start()
			}
			w.agreed(20 * time.Second)
			time.Sleep(w.bound)
			v, heir := w.nodes[0], w.nodes[1]
			var owned []string
			for i := 0; len(owned) < 120; i++ {
				key := fmt.Sprint("big", i)
				if v.s.engine.Node.OwnershipEpoch(
					v.s.engine.Names.Hash([]byte(DefaultNamespace), []byte(key)).Partition()) == 0 {
					continue
				}
				owned = append(owned, key)
				w.set(v.s, key, strings.Repeat("x", 40_000))
				for range 3 {
					_, _ = v.s.Get(context.Background(), DefaultNamespace, key, cachesidecar.GetOptions{})
				}
			}
			w.net.SetDelay(80*time.Millisecond, 90*time.Millisecond)
			left := make(chan struct{})
			go func() { v.leave(); close(left) }()
			began, refused, longest, since := time.Now(), 0, time.Duration(0), time.Time{}
			for i := 0; time.Since(began) < 12*time.Second; i++ {
				r := heir.raw(wire.Request{
					Op: wire.OpIncr, Key: []byte(owned[i%len(owned)] + "n"), Delta: 1, Create: true, Initial: 1,
					TTLMS: wire.TTLDefault, TimeoutMS: 1000,
				})
				switch {
				case r.Status != wire.Unavailable:
					since = time.Time{}
				case since.IsZero():
					since = time.Now()
					fallthrough
				default:
					refused++
					longest = max(longest, time.Since(since))
				}
				time.Sleep(20 * time.Millisecond)
			}
			<-left
			st := heir.s.engine.Handoff.Stats()
			t.Logf("keep_memory %v: %d refused, for %v at a time; %+v", keeps, refused, longest, st)
			if keeps && refused > 0 {
				t.Errorf("%d counters were refused at a restart in order", refused)
			}
			v.start()
			w.killAll()
		})
	}
}
