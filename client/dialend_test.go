package client_test

import (
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestDialMeetsAnEnd connects to a socket that systemd keeps while the sidecar ends: the
// first connection is closed before the answer to HELLO, and the next one waits for the next
// sidecar.
func TestDialMeetsAnEnd(t *testing.T) {
	behind := filepath.Join(t.TempDir(), "behind")
	serve(t, behind)
	path := filepath.Join(filepath.Dir(behind), "s")
	ln, err := net.Listen("unix", path)
	testenv.Must(t, err)
	defer ln.Close()
	go func() { // ends with the listener
		for i := 0; ; i++ {
			app, err := ln.Accept()
			if err != nil {
				return
			}
			if i == 0 {
				_, _ = app.Read(make([]byte, 4))
				_ = app.Close()
				continue
			}
			to, err := net.Dial("unix", behind)
			if err != nil {
				_ = app.Close()
				continue
			}
			go func() { _, _ = io.Copy(to, app); _ = to.Close() }()
			go func() { _, _ = io.Copy(app, to); _ = app.Close() }()
		}
	}()
	c, err := client.Dial(t.Context(), client.Config{Socket: path, Conns: 1, DialTimeout: time.Minute, RequestTimeout: time.Minute})
	testenv.Must(t, err)
	defer c.Close()
	testenv.Should(t, c.Ping(t.Context()))
}
