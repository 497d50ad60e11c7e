package sidecar

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// gatedWriter is an origin whose writes wait.
type gatedWriter struct {
	stores atomic.Int64
	begun  chan string
	gate   chan struct{}
}

func (w *gatedWriter) Store(ctx context.Context, key []byte, v loader.Value) error {
	w.stores.Add(1)
	w.begun <- string(key)
	<-w.gate
	return nil
}

func (w *gatedWriter) Delete(context.Context, []byte) error { return nil }

// TestReloadKeyPattern: a write that waits while a reload brings another key_pattern does
// not get to the origin if that one refuses its key.
func TestReloadKeyPattern(t *testing.T) {
	w := &gatedWriter{begun: make(chan string, 8), gate: make(chan struct{})}
	pages := func(pattern string) map[string]Namespace {
		return map[string]Namespace{"pages": {
			Origin: &loader.Custom{Source: &source{name: "one"}, Writer: w}, KeyPattern: pattern, WriteThrough: true,
			Limits: Limits{Concurrency: 1, QueueTime: 20 * time.Second},
		}}
	}
	r := newReloaded(t, Config{RequestTimeout: 20 * time.Second, Namespaces: pages("")})
	set := func(key string) chan error {
		done := make(chan error, 1)
		go func() { // ends with the write
			_, err := r.s.Set(context.Background(), "pages", key, []byte("v"), cachesidecar.SetOptions{})
			done <- err
		}()
		return done
	}
	first := set("j")
	<-w.begun
	second := set("k")
	testenv.Eventually(t, "the second waits", func() bool {
		return r.s.engine.Namespaces.All()["pages"].WriteThroughStats().Waiting > 0
	})
	r.apply(func(c *Config) { c.Namespaces = pages("users-.*") })
	close(w.gate)
	if err := <-first; err != nil {
		t.Errorf("the write that was at the origin: %v", err)
	}
	if err := <-second; err == nil || w.stores.Load() != 1 {
		t.Errorf("the write that has waited: %v, and the origin has got %d writes, want 1", err, w.stores.Load())
	}
}
