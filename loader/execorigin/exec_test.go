//go:build unix

package execorigin

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func source(t *testing.T, cfg Config, o loader.OriginOptions, command ...string) *Source {
	t.Helper()
	cfg.Command = command
	o.Timeout = cmp.Or(o.Timeout, origintest.Never)
	s, err := New(cfg, o)
	testenv.Must(t, err)
	return s
}

func TestExec(t *testing.T) {
	t.Setenv("SECRET", "s3cret")
	sh := func(script string) *Source {
		return source(t, Config{}, loader.OriginOptions{MaxValue: 1000}, "sh", "-c", script, "script")
	}
	ok := func(s string) loader.Value { return loader.Value{Bytes: []byte(s)} }
	origintest.Run(t, []origintest.Case{
		{Name: "value", Source: sh(`printf 'the %s' "$1"`), Key: "a", Want: ok("the a")},
		{Name: "one argument, whatever is in it", Source: sh(`printf '%s %d' "$1" $#`), Key: "$(id); a 'b' \n", Want: ok("$(id); a 'b' \n 1")},
		{Name: "empty", Source: sh(`:`), Key: "a", Want: ok("")},
		{Name: "no secrets in its environment", Source: sh(`printf '%s' "$SECRET"`), Key: "a", Want: ok("")},
		{Name: "environment", Source: source(t, Config{Env: []string{"A=b"}}, loader.OriginOptions{}, "/bin/sh", "-c", `printf '%s' "$A"`), Key: "a", Want: ok("b")},
		{Name: "absent", Source: sh(`echo none; exit 1`), Key: "a", Err: loader.ErrAbsent},
		{Name: "absent as configured", Source: source(t, Config{Absent: 44}, loader.OriginOptions{}, "sh", "-c", "exit 44"), Key: "a", Err: loader.ErrAbsent},
		{Name: "error", Source: sh(`echo broken >&2; exit 3`), Key: "a", Err: origintest.ErrAny},
		{Name: "killed", Source: sh(`kill -9 $$`), Key: "a", Err: origintest.ErrAny},
		{Name: "as long as may be", Source: sh(`head -c 1000 /dev/zero | tr '\0' x`), Key: "a", Want: ok(strings.Repeat("x", 1000))},
		{Name: "too long", Source: sh(`head -c 1001 /dev/zero; exit 1`), Key: "a", Err: loader.ErrTooLarge},
		{Name: "endless", Source: sh(`yes`), Key: "a", Err: loader.ErrTooLarge},
		{Name: "endless errors", Source: sh(`yes | head -c 1000000 >&2; exit 3`), Key: "a", Err: origintest.ErrAny},
		{Name: "hangs", Source: source(t, Config{}, loader.OriginOptions{Timeout: 100 * time.Millisecond}, "sh", "-c", "exec sleep 600"), Key: "a", Err: origintest.ErrAny},
		{Name: "a process left behind", Source: sh(`sleep 9 & printf %64s`), Key: "a", Want: ok(strings.Repeat(" ", 64))},
		{Name: "a process left behind by what fails", Source: sh(`sleep 9 & echo broken >&2; exit 3`), Key: "a", Err: origintest.ErrAny},
		{Name: "bad key", Source: sh(`:`), Key: "a\x00b", Err: loader.ErrBadKey},
		{Name: "an option", Source: sh(`:`), Key: "-rf", Err: loader.ErrBadKey},
		{Name: "no option after --", Source: source(t, Config{}, loader.OriginOptions{}, "sh", "-c", `printf '%s' "$2"`, "script", "--"), Key: "-rf", Want: ok("-rf")},
	})
}

// The processes that the command has started are killed with it.
func TestEndKillsTheGroup(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	testenv.Must(t, syscall.Mkfifo(pid, 0o600))
	s := source(t, Config{}, loader.OriginOptions{}, "sh", "-c", `(exec 3>"$1"; exec sleep 600) & wait`, "script")
	ctx, cancel := context.WithCancel(testenv.Context(t))
	read := make(chan error, 1)
	go func() { // ends after every process has closed the fifo
		f, err := os.Open(pid) // by the child, too
		cancel()
		if err == nil {
			_, err = io.Copy(io.Discard, f)
		}
		read <- err
	}()
	if _, err := s.Load(ctx, []byte(pid)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-testenv.Expired():
		t.Error("the command's child lives on")
	}
}

func TestConfig(t *testing.T) {
	for _, cfg := range []Config{{}, {Command: []string{"/no/such/program"}}, {Command: []string{"sh"}, Absent: 256}} {
		if _, err := New(cfg, loader.OriginOptions{}); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// TestMemory checks that an output takes memory before it is kept.
func TestMemory(t *testing.T) {
	m := &origintest.Memory{Left: 100_000}
	s, err := New(Config{Command: []string{"head", "/dev/zero", "-c"}}, loader.OriginOptions{Memory: m})
	testenv.Must(t, err)
	get := func(key string) func() (loader.Value, error) {
		return func() (loader.Value, error) { return s.Load(t.Context(), []byte(key)) }
	}
	origintest.TakesMemory(t, m, get("20000"), get("2000000"))
}
