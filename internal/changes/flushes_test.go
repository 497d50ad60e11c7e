package changes

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// TestFlushesArePaced checks that a flush is made at once, that those which follow closely go together, and that
// keys behind them wait no longer than the next round.
func TestFlushesArePaced(t *testing.T) {
	follows(t, func(w *world) {
		w.lead()
		sleep(time.Second)
		flush := func() *loader.Transaction {
			f := &loader.Transaction{}
			f.Flush("users", "a table was truncated")
			return w.server.send(f)
		}
		before := len(w.host.flushed)
		flush()
		synctest.Wait()
		if n := len(w.host.flushed) - before; n != 1 {
			w.Errorf("%d flushes at once, want 1", n)
		}
		for range 1000 {
			flush()
			sleep(100 * time.Microsecond)
		}
		last := w.server.send(changed("1"))
		sleep(flushEvery)
		w.has("behind flushes", last, "1")
		if n := len(w.host.flushed) - before; n < 5 || n > 7 {
			w.Errorf("%d flushes in 100 ms, want 6", n)
		}
		sleep(flushEvery)
		last = w.server.send(changed("2"))
		synctest.Wait()
		w.has("after a rest", last, "1", "2")
	})
}
