package top

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/pty"
)

// TestTopPanics checks that a panic gives the terminal back.
func TestTopPanics(t *testing.T) {
	tt := pty.Open(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("nothing has panicked")
			}
		}()
		top := &livePage{view: &view{interval: time.Hour}, screen: screen{in: tt.Its, out: tt.Its}} // without an order
		_ = showLive(t.Context(), top, &sampler{})
	}()
	tt.WaitFor(t, "the terminal as it was", func(s string) bool { return strings.HasSuffix(s, leaveScreen) })
	if tt.Settings(t).Lflag&unix.ICANON == 0 {
		t.Error("the terminal is left in raw mode")
	}
}
