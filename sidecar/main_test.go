package sidecar

import (
	"cmp"
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { origintest.Main(m) }

// start runs a sidecar until the test ends. The default timeouts are long enough for a
// machine that stalls.
func start(t testing.TB, cfg Config) *Sidecar {
	t.Helper()
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(t.TempDir(), "s")
	}
	cfg.L2Size = cmp.Or(cfg.L2Size, 8<<20)
	cfg.RequestTimeout = cmp.Or(cfg.RequestTimeout, time.Minute)
	s, err := New(cfg)
	testenv.Must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with stop, which the cleanup calls
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", s.cfg.Node, err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return s
}

func b(s string) []byte { return []byte(s) }
