package peers

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestSidecar runs the real sidecar, and compares the echo server's frames with its
// requests and answers.
func TestSidecar(t *testing.T) {
	ctx := t.Context()
	o := Options{Dir: t.TempDir(), Bytes: 64 << 20, KeySize: 16, ValueSize: 100}
	if err := Build(ctx, o.Dir); err != nil {
		t.Fatal(err)
	}
	s, err := Start(ctx, record.Sidecar, o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	wantSet, wantGet := longer(t, s, s.Set), longer(t, s, s.Get)
	get, set := EchoOf(o)
	if get.Frame != wantGet || set.Frame != wantSet {
		t.Errorf("got echo frames of %d bytes for GET, %d for SET; the sidecar's are %d and %d", get.Frame, set.Frame, wantGet, wantSet)
	}
	if entries, evicted, err := s.Count(ctx); err != nil || entries != 1 || evicted != 0 {
		t.Errorf("got %d entries, %d evicted, error %v, want 1 and 0", entries, evicted, err)
	}
	if n, err := s.Settled(ctx); err != nil || n < 1<<20 || n > 1<<30 {
		t.Errorf("got %d bytes resident, error %v", n, err)
	}
	s.Stop()
	if _, err := s.Resident(); err == nil {
		t.Error("a process that has ended still has memory")
	}

	e, err := Start(ctx, record.Echo, o)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Stop()
	r, err := load.Run(ctx, load.Config{Dial: e.Dial, Protocol: e.Set, Conns: 2, Pipeline: 8, Batches: 4, Once: true, Key: func(int, int) uint64 { return 1 }})
	if err != nil || r.Hits != 64 {
		t.Errorf("echo: got %d hits, error %v, want 64", r.Hits, err)
	}
	if _, _, err := e.Count(ctx); err == nil {
		t.Error("the echo server's entries were counted")
	}
}

// longer sends a request and returns the length of the request or of its answer,
// whichever is longer.
func longer(t *testing.T, s *Server, p load.Protocol) int {
	t.Helper()
	nc, err := s.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(testenv.Deadline())
	if err := p.Greet(nc); err != nil {
		t.Fatal(err)
	}
	request := p.Append(nil, 7, 42)
	if _, err := nc.Write(request); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, wire.LengthSize)
	if _, err := io.ReadFull(nc, answer); err != nil {
		t.Fatal(err)
	}
	answer = append(answer, make([]byte, wire.FrameLength(answer))...)
	if _, err := io.ReadFull(nc, answer[wire.LengthSize:]); err != nil {
		t.Fatal(err)
	}
	if _, hits, _, err := p.Count(answer, 1); err != nil || hits != 1 {
		t.Fatalf("got %d hits, error %v, want one", hits, err)
	}
	return max(len(request), len(answer))
}

func TestStartErrors(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "echo")
	if err := os.WriteFile(dead, []byte("#!/bin/sh\necho the port is taken >&2\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	for _, c := range []struct{ name, server, want string }{
		{"unknown", "varnish", `there is no server "varnish": give sidecar, redis, memcached, fanout, echo or echo-tcp`},
		{"not installed", record.Redis, "redis-server is not installed: apt-get install redis-server"},
		{"not installed either", record.Memcached, "memcached is not installed: apt-get install memcached"},
		{"not built", record.Sidecar, "sidecar does not start"},
		{"ends at once", record.Echo, "echo ended at once (exit status 3): the port is taken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Start(t.Context(), c.server, Options{Dir: dir, KeySize: 16}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
	if _, err := Installed("redis-server"); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("got error %v, want ErrNotInstalled", err)
	}
}

func TestSocketLeftBehindIsReplaced(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "echo")
	if err := os.WriteFile(src, []byte("#!/bin/sh\ntest -e \"$1\" && echo it is still there >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "echo.sock"), bytes.Repeat([]byte("x"), 3), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), record.Echo, Options{Dir: dir, KeySize: 16}); err == nil || strings.Contains(err.Error(), "still there") {
		t.Errorf("got error %v, want the one of a server that ended, on a socket that was removed", err)
	}
}
