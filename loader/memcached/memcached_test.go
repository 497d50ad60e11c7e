package memcached

import (
	"context"
	"errors"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// source opens an origin with write-through.
func source(t *testing.T, cfg Config, options ...loader.OriginOptions) *Source {
	t.Helper()
	return origintest.Open(t, New, cfg, options...)
}

func startMemcached(t *testing.T) (server *exec.Cmd, socket string) {
	t.Helper()
	program := origintest.Need(t, "memcached", "apt-get install memcached")
	socket = filepath.Join(origintest.Folder(t), "s")
	// As root, memcached requires a user name. Otherwise -u has no effect.
	server = exec.Command(program, "-s", socket, "-u", "root", "-I", "2m")
	origintest.Start(t, server, socket)
	return server, socket
}

func TestMemcached(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	server, socket := startMemcached(t)
	s := source(t, Config{Servers: []string{socket}, KeyPrefix: "p:"}, loader.OriginOptions{MaxValue: 1000})
	for key, value := range map[string]string{"a": "x\r\ny", "empty": "", "most": strings.Repeat("x", 1000), "long": strings.Repeat("x", 1001), "huge": strings.Repeat("x", 1<<20)} {
		testenv.Must(t, s.client.Set(&memcache.Item{Key: "p:" + key, Value: []byte(value), Flags: 7}))
	}
	ok := func(s string) loader.Value { return loader.Value{Bytes: []byte(s), Flags: 7} }
	hasty := func(address string) *Source {
		return source(t, Config{Servers: []string{address}}, loader.OriginOptions{Timeout: 200 * time.Millisecond})
	}
	patient := func(address string) *Source {
		return source(t, Config{Servers: []string{address}}, loader.OriginOptions{Timeout: origintest.Never})
	}
	origintest.Run(t, []origintest.Case{
		{Name: "value", Source: s, Key: "a", Want: ok("x\r\ny")},
		{Name: "empty", Source: s, Key: "empty", Want: ok("")},
		{Name: "absent", Source: s, Key: "none", Err: loader.ErrAbsent},
		{Name: "as long as may be", Source: s, Key: "most", Want: ok(strings.Repeat("x", 1000))},
		{Name: "too long", Source: s, Key: "long", Err: loader.ErrTooLarge},
		{Name: "much too long", Source: s, Key: "huge", Err: loader.ErrTooLarge},
		{Name: "and then another", Source: s, Key: "a", Want: ok("x\r\ny")},
		{Name: "bad key", Source: s, Key: "a b", Err: loader.ErrBadKey},
		{Name: "a command in a key", Source: s, Key: "a\r\nflush_all", Err: loader.ErrBadKey},
		{Name: "key too long", Source: s, Key: strings.Repeat("k", 249), Err: loader.ErrBadKey},
		{Name: "nobody listens", Source: hasty(testenv.Refusing(t)), Key: "a", Err: origintest.ErrAny},
		{Name: "garbage", Source: hasty(origintest.Saying(t, "garbage\r\n")), Key: "a", Err: origintest.ErrAny},
		{Name: "cut in the middle", Source: hasty(origintest.Saying(t, "VALUE a 0 10\r\nxx")), Key: "a", Err: origintest.ErrAny},
		{Name: "an error", Source: hasty(origintest.Saying(t, "SERVER_ERROR out of memory\r\n")), Key: "a", Err: origintest.ErrAny},
		{Name: "drips", Source: hasty(origintest.Dripping(t, "VALUE a 0 1000000\r\n", "x")), Key: "a", Err: origintest.ErrAny},
		{Name: "item after item", Source: hasty(origintest.Dripping(t, "", "VALUE a 0 1\r\nx\r\n")), Key: "a", Err: origintest.ErrAny},
		{Name: "states far too much", Source: patient(origintest.Saying(t, "VALUE a 0 4294967295\r\n")), Key: "a", Err: loader.ErrTooLarge},
		{Name: "drops the connection", Source: hasty(origintest.Cutting(t, "")), Key: "a", Err: origintest.ErrAny},
		{Name: "silence", Source: hasty(origintest.Saying(t, "")), Key: "a", Err: origintest.ErrAny},
	})

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Load(ctx, []byte("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled load: %v", err)
	}

	h := hasty(socket)
	proctest.Stop(t, server.Process)
	origintest.Run(t, []origintest.Case{{Name: "hangs", Source: h, Key: "a", Err: origintest.ErrAny}})
	testenv.Must(t, server.Process.Signal(syscall.SIGCONT))
	if v, err := s.Load(context.Background(), []byte("a")); err != nil || string(v.Bytes) != "x\r\ny" {
		t.Errorf("after it has gone on: %q, %v", v.Bytes, err)
	}
}

// TestIdleEnds restarts the server while connections are idle: no load and no write fails.
func TestIdleEnds(t *testing.T) {
	const idle = 8
	server, socket := startMemcached(t)
	s := source(t, Config{Servers: []string{socket}})
	dialed := make(chan struct{}, idle)
	dial := s.client.DialContext
	s.client.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		defer func() { dialed <- struct{}{} }()
		return dial(ctx, network, address)
	}
	load := func() {
		if _, err := s.Load(t.Context(), []byte("a")); !errors.Is(err, loader.ErrAbsent) {
			t.Error(err)
		}
	}
	proctest.Stop(t, server.Process)
	var wg sync.WaitGroup
	for range idle {
		wg.Go(load)
		<-dialed
	}
	testenv.Must(t, server.Process.Signal(syscall.SIGCONT))
	wg.Wait()
	_ = server.Process.Kill()
	_ = server.Wait()
	again := exec.Command(server.Path, server.Args[1:]...)
	origintest.Start(t, again, socket)
	load()
	if err := s.Store(t.Context(), []byte("a"), loader.Value{Bytes: make([]byte, 100_000)}); err != nil {
		t.Error("stored:", err)
	}
}

// TestConnectionAge checks that a connection is used for its term, and that no call fails when that is over.
func TestConnectionAge(t *testing.T) {
	_, socket := startMemcached(t)
	s := source(t, Config{Servers: []string{socket}})
	dialed := 0
	dial := s.client.DialContext
	s.client.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialed++
		return dial(ctx, network, address)
	}
	for i, tc := range []struct {
		age  time.Duration // of connections that are made from now on
		want int           // connections that were made
	}{{time.Hour, 1}, {time.Hour, 1}, {1, 1}} {
		s.terms.MaxAge = tc.age
		if err := s.Store(t.Context(), []byte("a"), loader.Value{Bytes: make([]byte, 100_000)}); err != nil || dialed != tc.want {
			t.Errorf("%d: %d connections, want %d, %v", i, dialed, tc.want, err)
		}
	}
	_ = s.client.Close() // the old one
	for want := 2; want < 5; want++ {
		if _, err := s.Load(t.Context(), []byte("a")); err != nil || dialed != want {
			t.Errorf("%d connections, want %d, %v", dialed, want, err)
		}
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{{}, {Servers: []string{"no port"}}} {
		if _, err := New(cfg, loader.OriginOptions{}); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
