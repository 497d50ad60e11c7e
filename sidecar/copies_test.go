package sidecar

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
)

// TestCopyEndsWithItsValue checks that a copy ends with its value, even if it was made in
// the value's last millisecond. The owner's clock decides where that whole millisecond
// ends.
func TestCopyEndsWithItsValue(t *testing.T) {
	inQuietWorld(t, 3, func(t *testing.T, w *world) {
		owner, reader := w.nodes[0], w.nodes[1]
		ctx := context.Background()
		w.net.SetDelay(100*time.Microsecond, 100*time.Microsecond)
		key, _ := keyOwnedBy(owner, "short")
		_, _ = reader.s.Get(ctx, "default", string(key), cachesidecar.GetOptions{}) // makes a connection
		time.Sleep(time.Millisecond - time.Duration(owner.clock.Read().Boot)%time.Millisecond)
		const ttl = 100 * time.Millisecond
		if _, err := owner.s.Set(ctx, "default", string(key), []byte("v"), cachesidecar.SetOptions{TTL: ttl}); err != nil {
			t.Error(err)
		}
		end := time.Now().Add(ttl)
		time.Sleep(ttl - 500*time.Microsecond)
		if _, err := reader.s.Get(ctx, "default", string(key), cachesidecar.GetOptions{}); err != nil {
			t.Errorf("before its end: %v", err)
		}
		for ; time.Since(end) < 3*time.Millisecond; time.Sleep(100 * time.Microsecond) {
			if v, err := reader.s.Get(ctx, "default", string(key), cachesidecar.GetOptions{}); err == nil && !time.Now().Before(end) {
				t.Errorf("%v after its end it is %q", time.Since(end), v.Value)
			}
		}
	})
}
