package kv

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// TestEvery checks that each tick comes once, that a caller who is late misses some, and that it ends.
func TestEvery(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		begun, ticks := time.Now(), 0
		for now := range Every(ctx, time.Second) {
			ticks++
			switch at := now.Sub(begun); {
			case ticks <= 2 && at != time.Duration(ticks)*time.Second:
				t.Errorf("tick %d after %v", ticks, at)
			case ticks == 2:
				time.Sleep(5*time.Second + time.Millisecond)
			case ticks == 4 && at < 7*time.Second:
				t.Errorf("tick %d after %v", ticks, at)
			case ticks == 4:
				cancel()
			}
		}
		if ticks != 4 {
			t.Errorf("%d ticks", ticks)
		}
		for range Every(t.Context(), time.Second) {
			break // and no ticker is left
		}
	})
}
