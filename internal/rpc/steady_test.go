package rpc

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/polled"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestSteadyPeer checks the same for requests to another host, as long as a call waits
// for them. After that they do not use memory for long.
func TestSteadyPeer(t *testing.T) {
	for _, tc := range []struct {
		name string
		wait time.Duration
		all  bool
	}{{"a call waits", time.Hour, true}, {"none waits any more", 5 * time.Second, false}} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				near, far := polled.Pair(t)
				budget := quota.NewBudget(0)
				c := newClient(far, ClientConfig{WriteTimeout: time.Second, Budget: budget, Owner: "node b"})
				value := make([]byte, 3_000_000)
				done := make(chan error, 1)
				go func() {
					_, err := c.Do(context.Background(), tc.wait, &wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: value})
					done <- err
				}()
				began := time.Now()
				err := polled.ReadSlowly(near, len(value), 64<<10, 900*time.Millisecond)
				if took := time.Since(began); (err == nil) != tc.all || !tc.all && took > 10*time.Second {
					t.Errorf("after %v: %v", took, err)
				}
				_ = c.Close()
				if err := <-done; !errors.Is(err, ErrClosed) && !errors.Is(err, ErrNoAnswer) {
					t.Error(err)
				}
				if n := budget.Stats().Total(); n != 0 {
					t.Errorf("%d bytes are held at the end", n)
				}
			})
		})
	}
}
