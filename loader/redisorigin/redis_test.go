package redisorigin

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// do sends one command on a connection of the pool, and returns the reply.
func (s *Source) do(ctx context.Context, command string, args ...any) (any, error) {
	c, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	defer s.put(c)
	return redis.DoContext(c, ctx, command, args...)
}

func TestMain(m *testing.M) { testenv.Main(m) }

// source opens an origin with write-through.
func source(t *testing.T, cfg Config, options ...loader.OriginOptions) *Source {
	t.Helper()
	return origintest.Open(t, New, cfg, options...)
}

// greeting is the server's answer to the password of a new client.
const greeting = "+OK\r\n"

func startRedis(t *testing.T) (server *exec.Cmd, socket string) {
	t.Helper()
	program := origintest.Need(t, "redis-server", "apt-get install redis-server")
	dir := origintest.Folder(t)
	socket = filepath.Join(dir, "s")
	server = exec.Command(program, "--port", "0", "--unixsocket", socket, "--save", "", "--dir", dir, "--requirepass", "s3cret")
	origintest.Start(t, server, socket)
	return server, socket
}

func TestRedis(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 700*time.Millisecond)
	server, socket := startRedis(t)
	good := Config{Address: socket, Password: "s3cret", KeyPrefix: "p:"}
	s := source(t, good, loader.OriginOptions{MaxValue: 1000})
	ctx := context.Background()
	for key, value := range map[string]string{"a": "x\x00y", "empty": "", "most": strings.Repeat("x", 1000), "long": strings.Repeat("x", 1001), "huge": strings.Repeat("x", 20<<20)} {
		testenv.Must(t, testenv.ErrorOf(s.do(ctx, "SET", "p:"+key, value)))
	}
	testenv.Must(t, testenv.ErrorOf(s.do(ctx, "LPUSH", "p:list", "x")))
	ok := func(s string) loader.Value { return loader.Value{Bytes: []byte(s)} }
	wrong := good
	wrong.Password = "wr0ng"
	origintest.Run(t, []origintest.Case{
		{Name: "value", Source: s, Key: "a", Want: ok("x\x00y")},
		{Name: "empty", Source: s, Key: "empty", Want: ok("")},
		{Name: "absent", Source: s, Key: "none", Err: loader.ErrAbsent},
		{Name: "as long as may be", Source: s, Key: "most", Want: ok(strings.Repeat("x", 1000))},
		{Name: "too long", Source: s, Key: "long", Err: loader.ErrTooLarge},
		{Name: "much too long", Source: s, Key: "huge", Err: loader.ErrTooLarge},
		{Name: "and then another", Source: s, Key: "a", Want: ok("x\x00y")},
		{Name: "another type", Source: s, Key: "list", Err: loader.ErrPermanent},
		{Name: "a key of any bytes is one key", Source: s, Key: "a\r\nDEL p:a", Err: loader.ErrAbsent},
		{Name: "wrong password", Source: source(t, wrong), Key: "a", Err: origintest.ErrAny, Secret: "wr0ng"},
		{Name: "repeats the password", Source: source(t, Config{Password: "s3cret", Address: origintest.Saying(t, "-ERR unknown command 'AUTH', with args beginning with: 's3cret'\r\n")}), Key: "a", Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "nobody listens", Source: source(t, Config{Address: testenv.Refusing(t), Password: "s3cret"}), Key: "a", Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "garbage", Source: source(t, Config{Address: origintest.Saying(t, "garbage\r\n")}, loader.OriginOptions{Timeout: 200 * time.Millisecond}), Key: "a", Err: origintest.ErrAny},
		{Name: "an error", Source: source(t, Config{Password: "s3cret", Address: origintest.Saying(t, greeting+strings.Repeat("-LOADING the dataset\r\n", 3))}), Key: "a", Err: origintest.ErrAny},
		{Name: "drips", Source: source(t, Config{Address: origintest.Dripping(t, "+", "x")}, loader.OriginOptions{Timeout: 200 * time.Millisecond}), Key: "a", Err: origintest.ErrAny},
		{Name: "drops the connection", Source: source(t, Config{Address: origintest.Cutting(t, "+O")}), Key: "a", Err: origintest.ErrAny},
		{Name: "states more than there is memory", Source: source(t, Config{Password: "s3cret", Address: origintest.Saying(t, greeting+":-1\r\n$200000000000000\r\n")}), Key: "a", Err: origintest.ErrAny},
		{Name: "arrays in arrays", Source: source(t, Config{Password: "s3cret", Address: origintest.Saying(t, greeting+":-1\r\n"+strings.Repeat("*1\r\n", 60_000))}), Key: "a", Err: origintest.ErrAny},
		{Name: "a line without end", Source: source(t, Config{Address: origintest.Saying(t, strings.Repeat("x", 1<<20))}), Key: "a", Err: origintest.ErrAny},
		{Name: "silence", Source: source(t, Config{Address: origintest.Saying(t, "")}, loader.OriginOptions{Timeout: 200 * time.Millisecond}), Key: "a", Err: origintest.ErrAny},
	})

	testenv.Must(t, testenv.ErrorOf(s.do(ctx, "PEXPIRE", "p:a", time.Hour.Milliseconds())))
	if v, err := s.Load(ctx, []byte("a")); err != nil || v.TTL > time.Hour || v.TTL < 50*time.Minute {
		t.Errorf("with a lifetime of 1h: %v, %v", v.TTL, err)
	}

	h := source(t, good, loader.OriginOptions{Timeout: 200 * time.Millisecond})
	proctest.Stop(t, server.Process)
	origintest.Run(t, []origintest.Case{{Name: "hangs", Source: h, Key: "a", Err: origintest.ErrAny}})
	testenv.Must(t, server.Process.Signal(syscall.SIGCONT))
	if v, err := s.Load(ctx, []byte("a")); err != nil || string(v.Bytes) != "x\x00y" {
		t.Errorf("after it has gone on: %q, %v", v.Bytes, err)
	}
}

// TestCommands checks that a load needs no more rights than to read, and says what it lacks.
func TestCommands(t *testing.T) {
	_, socket := startRedis(t)
	admin := source(t, Config{Address: socket, Password: "s3cret"})
	ctx := context.Background()
	for _, command := range [][]any{
		{"SET", "a", "x"}, {"ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection"},
		{"ACL", "SETUSER", "getter", "on", ">pw", "~*", "+get", "+@connection"},
		{"ACL", "SETUSER", "some", "on", ">pw", "~user:*", "+get", "+pttl", "+@connection"},
	} {
		testenv.Must(t, testenv.ErrorOf(admin.do(ctx, command[0].(string), command[1:]...)))
	}
	as := func(user string, ignore bool) *Source {
		return source(t, Config{Address: socket, Username: user, Password: "pw", IgnoreTTL: ignore})
	}
	for _, s := range []*Source{as("reader", false), as("reader", true), as("getter", true)} {
		if v, err := s.Load(ctx, []byte("a")); err != nil || string(v.Bytes) != "x" {
			t.Errorf("%s, ignore_ttl %v: %q, %v", s.cfg.Username, s.cfg.IgnoreTTL, v.Bytes, err)
		}
	}
	if _, err := as("getter", false).Load(ctx, []byte("a")); err == nil || !strings.Contains(err.Error(), "ignore_ttl") {
		t.Errorf("without PTTL: %v", err)
	}
	if _, err := as("some", false).Load(ctx, []byte("user:1")); !errors.Is(err, loader.ErrAbsent) {
		t.Errorf("a key that the user may read: %v", err)
	}
	if _, err := as("some", false).Load(ctx, []byte("a")); !errors.Is(err, loader.ErrPermanent) || errors.Is(err, loader.ErrRefused) {
		t.Errorf("a key that the user may not read: %v", err)
	}
}

// TestRefusals checks which answers refuse this host, and which one key alone.
func TestRefusals(t *testing.T) {
	for answer, host := range map[string]bool{
		"NOPERM No permissions to access a key":                                              false,
		"NOPERM this user has no permissions to access one of the keys used as arguments":    false, // Redis 6
		"NOPERM User some has no permissions to run the 'get' command":                       true,
		"NOPERM this user has no permissions to run the 'get' command or its subcommand":     true, // Redis 6
		"NOAUTH Authentication required.":                                                    true,
		"WRONGTYPE Operation against a key holding the wrong kind of value":                  false,
		"WRONGPASS invalid username-password pair or user is disabled, one may access a key": true,
	} {
		s := source(t, Config{Address: origintest.Saying(t, strings.Repeat("-"+answer+"\r\n", 3))})
		_, err := s.Load(t.Context(), []byte("a"))
		if !errors.Is(err, loader.ErrPermanent) || errors.Is(err, loader.ErrRefused) != host {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

// TestPool checks what the pool does with connections that the server has closed, and with
// calls that find no place.
func TestPool(t *testing.T) {
	testenv.ReadsClock(t, 100*time.Millisecond, "a call's time ends while it waits for a place in the pool: none may come")
	server, socket := startRedis(t)
	s := source(t, Config{Address: socket, Password: "s3cret", Connections: 1})
	ctx := context.Background()
	testenv.Must(t, testenv.ErrorOf(s.do(ctx, "SET", "a", "x")))
	other := source(t, Config{Address: socket, Password: "s3cret"})
	if n, err := redis.Int(other.do(ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")); err != nil || n != 1 {
		t.Fatalf("%d connections were closed, %v", n, err)
	}
	if v, err := s.Load(ctx, []byte("a")); err != nil || string(v.Bytes) != "x" {
		t.Errorf("after the server has closed the connection: %q, %v", v.Bytes, err)
	}
	proctest.Stop(t, server.Process)
	held, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { // ends when held is cancelled
		_, err := s.Load(held, []byte("a"))
		ended <- err
	}()
	testenv.Eventually(t, "the load to have the only place", func() bool {
		return s.pool.ActiveCount() != s.pool.IdleCount() || len(ended) > 0
	})
	hasty, cancelHasty := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancelHasty()
	if err := s.Delete(hasty, []byte("a")); !errors.Is(err, loader.ErrNotWritten) {
		t.Errorf("without a place in the pool: %v", err)
	}
	cancel()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	case <-testenv.Expired():
		t.Fatal("the load goes on after it was cancelled")
	}
	testenv.Must(t, server.Process.Signal(syscall.SIGCONT))
	if v, err := s.Load(ctx, []byte("a")); err != nil || string(v.Bytes) != "x" {
		t.Errorf("after it has gone on: %q, %v", v.Bytes, err)
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{{}, {Address: "h:1", DB: -1}} {
		if _, err := New(cfg, loader.OriginOptions{}); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
