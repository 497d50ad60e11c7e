package hosts

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A host stutters while it flushes. Later than B after the acknowledgement, no read
// through any host returns what was there before.
func TestLengthyVirtualStutterWhileFlushing(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	virtually(t, 3, func(w *world) {
		v, o := w.nodes[0], w.nodes[2]
		ctx := context.Background()
		acknowledged := 0
		for round := range 5 {
			key := func(i int) []byte { return fmt.Appendf(nil, "flushed%d.%d", round, i) }
			for i := range 100 {
				_, _ = w.nodes[i%3].s.Set(ctx, "default", string(key(i)), []byte("before"), cachesidecar.SetOptions{})
			}
			for _, n := range w.nodes { // makes copies
				for i := range 100 {
					_, _ = n.s.Get(ctx, "default", string(key(i)), cachesidecar.GetOptions{})
				}
			}
			var at time.Time
			tries := 0
			w.stuttering(v, o, 4, func() {
				for at.IsZero() && tries < 20 {
					time.Sleep(w.upTo(1000))
					q := &wire.Request{Op: wire.OpFlush, Namespace: []byte("default"), Options: wire.Cluster}
					if _, err := v.s.execute(ctx, q); err == nil {
						at = time.Now()
					}
					tries++
				}
			})
			if at.IsZero() {
				continue
			}
			acknowledged++
			time.Sleep(max(0, time.Until(at.Add(w.bound+time.Millisecond))))
			for _, n := range w.nodes {
				for i := range 100 {
					if got, err := n.s.Get(ctx, "default", string(key(i)), cachesidecar.GetOptions{}); err == nil {
						w.fail("%s is %q through %s, flushed %v before", key(i), got.Value, n.name, time.Since(at))
						return
					}
				}
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.seen["flushes acknowledged"] += int64(acknowledged)
	})
}
