package sidecar

import (
	"context"
	"testing"
)

// TestEndingIsTold checks that Ending is closed when Run returns, however fast the end was.
func TestEndingIsTold(t *testing.T) {
	for range 10_000 {
		e := &ending{begun: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		_, stop := e.starts(ctx)
		cancel()
		stop()
		select {
		case <-e.begun:
		default:
			t.Fatal("it has ended, and has told nothing")
		}
	}
}
