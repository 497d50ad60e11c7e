package sidecar

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestReloadBeforeRun: HTTP listens with what a reload has brought before that.
func TestReloadBeforeRun(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "token")
	testenv.Must(t, os.WriteFile(secret, []byte(webSecret), 0o600))
	cfg := Config{Node: "a", NoSocket: true, L2Size: 8 << 20, HTTP: "127.0.0.1:0"}
	s, err := New(cfg)
	testenv.Must(t, err)
	cfg.HTTPTokenFile = secret
	if _, err := s.Apply(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with the test
	<-s.Ready()
	a, err := http.Get("http://" + s.http.Load().Addr().String() + "/metrics")
	testenv.Must(t, err)
	a.Body.Close()
	if a.StatusCode != http.StatusUnauthorized {
		t.Errorf("metrics without the token: %s", a.Status)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
