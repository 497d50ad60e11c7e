package hosts

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// listOf lists its own keys, whatever the origin has.
type listOf []string

func (k listOf) Keys(_ context.Context, each func(key []byte) error) error {
	for _, key := range k {
		if err := each([]byte(key)); err != nil {
			return err
		}
	}
	return nil
}

// TestVirtualWarm checks that each host loads the listed keys that it owns when it has begun, at
// its rate. A host that starts later gets the existing entries from the other hosts.
func TestVirtualWarm(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	const n = 600
	o := newDatabase(always(5 * time.Millisecond))
	var list listOf
	for i := range n {
		list = append(list, fmt.Sprint("key", i))
		if i > 0 { // one key does not exist
			o.set(list[i], []byte("value"))
		}
	}
	withNodes(t, 3, o, Namespace{WarmOnStart: &Warm{Rate: 20, List: loader.List{Lister: list}}}, func(w *world) {
		stats := func() (sum cachesidecar.WarmStats) {
			for _, v := range w.nodes {
				s := v.s.engine.Namespaces.Lookup(session.DefaultNamespace).WarmStats()
				sum.Loaded += s.Loaded
				sum.Absent += s.Absent
				sum.Failed += s.Failed
				if sum.State == "" || s.State != namespaces.WarmDone {
					sum.State = s.State
				}
			}
			return sum
		}
		if s := stats(); s.State != namespaces.WarmRunning || s.Loaded == 0 || s.Loaded > int64(3*20*time.Since(w.begun).Seconds()) {
			t.Errorf("after %v: %+v", time.Since(w.begun), s)
		}
		time.Sleep(n / 20 * time.Second)
		if s := stats(); s != (cachesidecar.WarmStats{State: namespaces.WarmDone, Loaded: n - 1, Absent: 1}) {
			t.Errorf("at the end: %+v", s)
		}
		for i, key := range list {
			if got := o.asked(key); got != 1 {
				t.Errorf("%s was loaded %d times", key, got)
			}
			if i > 0 {
				is(t, key, w.nodes[i%3].get(key, wire.NoLoad), wire.OK, "value")
			}
		}
		w.nodes[1].leave()
		time.Sleep(10 * time.Second)
		w.nodes[1].start()
		time.Sleep(40 * time.Second)
		again := 0
		for _, key := range list[1:] {
			again += o.asked(key) - 1
		}
		if s := w.nodes[1].s.engine.Namespaces.Lookup(session.DefaultNamespace).WarmStats(); s.State != namespaces.WarmDone || again > n/20 {
			t.Errorf("after a restart in order: %+v, and %d keys were loaded again", s, again)
		}
	})
}
