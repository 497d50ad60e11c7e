package client_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestSilentSidecarIsDeadlineExceeded checks that a sidecar that accepts the connection
// but sends nothing is ErrUnavailable and context.DeadlineExceeded, whichever timer ended
// the wait. An absent sidecar is ErrUnavailable alone.
func TestSilentSidecarIsDeadlineExceeded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	testenv.Must(t, err)
	defer ln.Close()
	for range 50 {
		_, err := client.Dial(t.Context(), client.Config{Socket: path, DialTimeout: 2 * time.Millisecond})
		if !errors.Is(err, cachesidecar.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Dial: %v, want ErrUnavailable and context.DeadlineExceeded", err)
		}
	}
	_, err = client.Dial(t.Context(), client.Config{Socket: path + "-absent", DialTimeout: time.Minute})
	if !errors.Is(err, cachesidecar.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Dial of an absent sidecar: %v, want ErrUnavailable alone", err)
	}
}
