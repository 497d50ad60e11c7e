package client_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// TestToken checks that the client sends a token with HELLO, from the configuration or
// from a file. A wrong token or file is ErrUnauthorized, and the client does not load
// instead of returning it.
func TestToken(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	const secret = "0123456789abcdef"
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		testenv.Must(t, errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)))
		return path
	}
	socket, file := filepath.Join(dir, "s"), write("web", secret+"\n", 0o600)
	cfg := sidecar.Config{Socket: socket, L2Size: 64 << 20, Tokens: map[string]sidecar.Token{"web": {File: file}}}
	stop := serveWith(t, cfg)

	for name, cfg := range map[string]client.Config{"a token": {Token: secret}, "a file": {TokenFile: file}, "none": {}} {
		cfg.Socket = socket
		if _, err := dial(t, cfg).Set(ctx, "k", []byte("v"), cachesidecar.SetOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, tc := range map[string]struct {
		cfg  client.Config
		is   error
		want string
	}{
		"a wrong token":          {client.Config{Token: secret + "x"}, cachesidecar.ErrUnauthorized, "the token is none of those in this sidecar's configuration"},
		"a wrong token, at ease": {client.Config{Token: secret + "x", Lazy: true}, cachesidecar.ErrUnauthorized, "the token is none of those"},
		"no file":                {client.Config{TokenFile: file + "-none"}, cachesidecar.ErrUnauthorized, "-none: no such file"},
		"an empty file":          {client.Config{TokenFile: write("empty", "\n", 0o600)}, cachesidecar.ErrUnauthorized, "is empty: write the token into it"},
		"a file for all":         {client.Config{TokenFile: write("open", secret, 0o644)}, cachesidecar.ErrUnauthorized, "chmod 0640 it, or 0600"},
		"two tokens":             {client.Config{Token: secret, TokenFile: file}, cachesidecar.ErrBadRequest, "leave out one of them"},
	} {
		tc.cfg.Socket, tc.cfg.DialTimeout = socket, time.Minute
		cl, err := client.Dial(ctx, tc.cfg)
		if err == nil {
			cl.Close()
		}
		if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v, want %v and %q", name, err, tc.is, tc.want)
		}
	}

	// The client finds a new token in the file when it connects again.
	cl := dial(t, client.Config{Socket: socket, TokenFile: file, FailClosed: true})
	testenv.Must(t, testenv.ErrorOf(cl.Get(ctx, "k", cachesidecar.GetOptions{})))
	stop()
	write("web", "another-"+secret, 0o600)
	serveWith(t, cfg)
	testenv.Eventually(t, "an answer with the new token", func() bool {
		_, err := cl.Get(ctx, "k", cachesidecar.GetOptions{})
		if errors.Is(err, cachesidecar.ErrUnauthorized) {
			t.Fatal(err)
		}
		return errors.Is(err, cachesidecar.ErrNotFound)
	})
}
