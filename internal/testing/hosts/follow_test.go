package hosts

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestVirtualAckAllIsPrompt checks that ack=all takes as long as the messages do, and
// does not wait for the next heartbeat: after many events, after none, and just after
// many have stopped.
func TestVirtualAckAllIsPrompt(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		w.startAll()
		w.agreed(15 * time.Second)
		time.Sleep(2 * w.bound)
		v := w.nodes[0]
		key, _ := keyOwnedBy(v, "key")
		for i := range 40 {
			for range 100 { // events in quick succession
				mustSet(t, v.s, string(key), []byte("v"))
				time.Sleep(500 * time.Microsecond)
			}
			// The pauses cover the whole time between two heartbeats.
			pause := time.Duration(i) * 25 * time.Millisecond
			time.Sleep(pause)
			begun := time.Now()
			if _, err := v.s.Set(t.Context(), "default", string(key), fmt.Append(nil, i), cachesidecar.SetOptions{AckAll: true}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begun); took > 10*time.Millisecond {
				t.Errorf("%v after the last of many writes ack=all takes %v", pause, took)
			}
		}
		if f, a := v.s.engine.Node.Stats(), w.nodes[1].s.engine.Node.Stats(); f.Invalidations.Gaps+a.Invalidations.Gaps > 0 {
			t.Errorf("%d gaps", f.Invalidations.Gaps+a.Invalidations.Gaps)
		}
		w.leaveAll()
	})
}
