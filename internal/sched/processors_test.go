package sched

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// TestProcessors checks that there are more processors from the moment when a reader is busy until
// none has been for a while, and only if they are to vary.
func TestProcessors(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		var n atomic.Int64
		var p processors
		var meanwhile atomic.Bool // a reader is busy while the processors go
		p.add = func() { n.Add(1) }
		p.remove = func() {
			n.Add(-1)
			if meanwhile.Swap(false) {
				p.noteBusy()
			}
		}
		want := func(when string, want int64) {
			t.Helper()
			synctest.Wait()
			if n := n.Load(); n != want {
				t.Errorf("%s: %d more, want %d", when, n, want)
			}
		}
		p.noteBusy()
		want("not to vary", 0)
		p.vary.Store(true)
		for range 2 {
			p.noteBusy()
			want("busy", 1)
			time.Sleep(calm / 2)
			p.noteBusy()
			time.Sleep(calm - time.Nanosecond)
			want("busy not long ago", 1)
			time.Sleep(time.Nanosecond)
			want("calm", 0)
		}
		meanwhile.Store(true)
		p.noteBusy()
		time.Sleep(calm)
		want("busy while they go", 1)
		time.Sleep(calm)
		want("calm again", 0)
	})
}
