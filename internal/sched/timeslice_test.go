package sched

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// TestTurn checks that a turn ends with the part that exceeds its time, not counting the
// first two parts, and that a rest begins another turn.
func TestTurn(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var u TimeSlice
		part := func(d time.Duration) bool { time.Sleep(d); return u.Over() }
		begin := func() (over bool) { return part(time.Hour) || part(2*time.Hour) }
		for range 2 {
			if begin() || part(SliceTime-1) {
				t.Error("a turn is over too soon")
			}
			if !part(1) {
				t.Error("a turn goes on for too long")
			}
		}
		for range 10 {
			if u.Restart(); begin() {
				t.Error("a turn goes on after a rest")
			}
		}
	})
}
