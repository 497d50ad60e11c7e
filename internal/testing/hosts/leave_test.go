package hosts

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A host that owns partitions without entries has nothing to hand over, and nothing to
// wait for.
func TestVirtualLeaveOfTheEmpty(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		begun := time.Now()
		w.nodes[1].leave()
		// With entries it would wait for up to 2 B until they are pulled.
		if took := time.Since(begun); took > w.bound {
			t.Errorf("it took %v to leave", took)
		}
	})
}

// TestVirtualLeaveOfAll checks that hosts which are stopped at once do not wait for each other to take over,
// while a host that leaves alone hands over what it has.
func TestVirtualLeaveOfAll(t *testing.T) {
	withNodes(t, 4, nil, Namespace{}, func(w *world) {
		const keys = 200
		for i := range keys {
			w.nodes[0].do(&wire.Request{Op: wire.OpSet, Key: fmt.Append(nil, "key-", i), Value: []byte("x")})
		}
		w.nodes[3].leave()
		for i := range keys {
			if r := w.nodes[0].get(fmt.Sprint("key-", i), 0); r.Status != wire.OK {
				t.Errorf("key %d is not there after one host has left: %v", i, r.Status)
			}
		}
		begun := time.Now()
		var wg sync.WaitGroup
		for i, v := range w.nodes[:3] {
			wg.Go(func() { // ends with the host
				time.Sleep(time.Duration(i) * 20 * time.Millisecond) // as a shell ends one after the other
				v.leave()
			})
		}
		wg.Wait()
		if took := time.Since(begun); took > time.Second {
			t.Errorf("the hosts took %v to leave together", took)
		}
	})
}
