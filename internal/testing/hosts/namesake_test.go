package hosts

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// A process is killed and started again at once. The clock was ahead when the killed
// process started, and has been set right since. So the new process is the earlier one by
// its epoch. It joins all the same.
func TestVirtualStartedByClockSetRight(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		ahead := w.nodes[2]
		ahead.clock.offset.Store(time.Hour.Milliseconds())
		w.startAll()
		time.Sleep(5 * time.Second)
		w.wants(0, "n2", cluster.StateRefused, w.nodes[:2]...)
		ahead.clock.offset.Store(0)
		time.Sleep(5 * time.Second)
		ahead.kill()
		ahead.start()
		time.Sleep(20 * time.Second)
		w.rings(t, "started anew")
		w.endAll()
	})
}

// Another process with a host's name is started elsewhere by mistake, takes the host's
// place, and ends. The host joins again.
func TestVirtualNamesakeGone(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	for how, end := range map[string]func(*vnode){"killed": (*vnode).kill, "left": (*vnode).leave} {
		t.Run(how, func(t *testing.T) {
			inQuietWorld(t, 3, func(t *testing.T, w *world) {
				twin := &vnode{w: w, i: 3, name: "n2", ip: "10.0.9.9", clock: &virtualClock{origin: w.begun}}
				time.Sleep(2 * time.Second)
				twin.start()
				time.Sleep(20 * time.Second)
				end(twin)
				time.Sleep(20 * time.Second)
				w.rings(t, "after")
			})
		})
	}
}
