package hosts

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
)

// TestVirtualFlushBesideIncr checks that a counter does not carry an old total over a
// flush. An INCR that is executed while a flush is under way, under a version above the
// flush's, must not keep the total from before the flush.
func TestVirtualFlushBesideIncr(t *testing.T) {
	inQuietWorld(t, 3, func(t *testing.T, w *world) {
		owner, other := w.nodes[0], w.nodes[1]
		key, _ := keyOwnedBy(owner, "counter")
		ctx := context.Background()
		for range 10 {
			if _, err := owner.s.Incr(ctx, "default", string(key), 1, cachesidecar.IncrOptions{Create: true, Initial: 1}); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		w.net.SetDelay(20*time.Millisecond, 20*time.Millisecond)
		flushed := make(chan bool, 1)
		go func() { flushed <- w.flush(other.s, "other", false) }()
		begun := int64(0)
		for over := false; !over; {
			time.Sleep(time.Millisecond)
			begun++
			if _, err := owner.s.Incr(ctx, "default", string(key), 1, cachesidecar.IncrOptions{Create: true, Initial: 1}); err != nil {
				t.Error(err)
			}
			select {
			case ok := <-flushed:
				if over = true; !ok {
					t.Error("the flush is refused")
				}
			default:
			}
		}
		n, err := owner.s.Incr(ctx, "default", string(key), 1, cachesidecar.IncrOptions{Create: true, Initial: 1})
		t.Logf("%d INCRs since the flush began; the total is %d", begun+1, n)
		if err != nil || n > begun+1 {
			t.Errorf("after a flush the total is %d, %v, of %d INCRs since it began", n, err, begun+1)
		}
		w.net.SetDelay(100*time.Microsecond, 500*time.Microsecond)
	})
}
