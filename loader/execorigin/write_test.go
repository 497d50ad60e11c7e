//go:build unix

package execorigin

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestList(t *testing.T) {
	testenv.Takes(t, 700*time.Millisecond)
	s := source(t, Config{Env: []string{"PATH=" + os.Getenv("PATH"), "KEY=from the environment"}}, loader.OriginOptions{}, "true")
	within := func(timeout time.Duration, script string) loader.Lister {
		l, err := s.NewLister(loader.List{Command: []string{"sh", "-c", script}, Timeout: timeout})
		testenv.Must(t, err)
		return l
	}
	sh := func(script string) loader.Lister { return within(origintest.Never, script) }
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprint(10000+i))
	}
	origintest.RunLists(t, []origintest.List{
		{Name: "keys", Lister: sh(`printf 'b\n%s\r\n\na' "$KEY"`), Want: []string{"a", "b", "from the environment"}},
		{Name: "none", Lister: sh(":")},
		{Name: "many", Lister: sh("seq 10000 10999"), Want: many},
		{Name: "fails in the middle", Lister: sh("echo a; echo broken >&2; exit 1"), Err: origintest.ErrAny},
		{Name: "killed", Lister: sh("echo a; kill -9 $$"), Err: origintest.ErrAny},
		{Name: "no list", Lister: sh("yes x | tr -d '\\n'"), Err: loader.ErrPermanent},
		{Name: "drips", Lister: within(300*time.Millisecond, "while :; do echo x; sleep 0.01; done"), Err: origintest.ErrAny},
		{Name: "hangs", Lister: within(300*time.Millisecond, "echo a; sleep 600"), Err: origintest.ErrAny},
	})

	t.Run("ends with who has enough", func(t *testing.T) {
		enough, ctx := errors.New("enough"), testenv.Context(t)
		err := sh("echo a; sleep 600").Keys(ctx, func([]byte) error { return enough })
		if !errors.Is(err, enough) || ctx.Err() != nil {
			t.Errorf("got %v, %v", err, ctx.Err())
		}
	})

	for _, cfg := range []loader.List{{}, {Command: []string{"/no/such/program"}}, {Command: []string{"sh"}, Timeout: -1}} {
		if _, err := s.NewLister(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	of := func(cfg WriteConfig) loader.Writer {
		env := []string{"PATH=" + os.Getenv("PATH"), "DIR=" + dir}
		return source(t, Config{Env: env, Write: cfg}, loader.OriginOptions{WriteThrough: true}, "true")
	}
	sh := func(store string) loader.Writer {
		return of(WriteConfig{Store: []string{"sh", "-c", store, "store"}, Delete: []string{"sh", "-c", `rm -f "$DIR/$1"`, "delete"}, Refused: 3})
	}
	files := sh(`cat >"$DIR/$1"`)
	slow := of(WriteConfig{Store: []string{"sh", "-c", `cat >"$DIR/$1"; sleep 600`, "store"}, Delete: []string{"true"}})
	script := filepath.Join(dir, "script")
	testenv.Must(t, os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700))
	vanished := of(WriteConfig{Store: []string{script}, Delete: []string{script}})
	testenv.Must(t, os.Remove(script))
	big := strings.Repeat("x", 1<<20)
	origintest.RunWrites(t, []origintest.Write{
		{Name: "store", Writer: files, Key: "a $(id)", Value: "1\x00\n"},
		{Name: "empty", Writer: files, Key: "empty"},
		{Name: "big", Writer: files, Key: "big", Value: big},
		{Name: "store and delete", Writer: files, Key: "gone", Value: "1"},
		{Name: "delete", Writer: files, Key: "gone", Delete: true},
		{Name: "delete what is not there", Writer: files, Key: "gone", Delete: true},
		{Name: "does not want the value", Writer: sh("exit 0"), Key: "a", Value: big},
		{Name: "error", Writer: sh("echo broken >&2; exit 1"), Key: "a", Err: origintest.ErrUnknown},
		{Name: "says that it has refused", Writer: sh("exit 3"), Key: "a", Value: big, Err: loader.ErrNotWritten},
		{Name: "killed", Writer: sh("kill -9 $$"), Key: "a", Err: origintest.ErrUnknown},
		{Name: "talks much", Writer: sh("yes | head -c 10000000"), Key: "a"},
		{Name: "program gone", Writer: vanished, Key: "a", Err: loader.ErrNotWritten},
		{Name: "program to delete gone", Writer: vanished, Key: "a", Delete: true, Err: loader.ErrNotWritten},
		{Name: "bad key", Writer: files, Key: "a\x00b", Err: loader.ErrBadKey},
		{Name: "an option", Writer: files, Key: "-rf", Delete: true, Err: loader.ErrBadKey},
	})
	ctx, cancel := context.WithCancel(testenv.Context(t))
	stored := make(chan error)
	go func() { stored <- slow.Store(ctx, []byte("late"), loader.Value{Bytes: []byte("1")}) }()
	testenv.Eventually(t, "a program that hangs to have stored", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "late"))
		return len(b) > 0
	})
	cancel()
	if err := <-stored; err == nil || errors.Is(err, loader.ErrNotWritten) {
		t.Errorf("done, and then it hangs: %v", err)
	}
	for name, want := range map[string]string{"a $(id)": "1\x00\n", "empty": "", "big": big, "late": "1"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "gone")); !os.IsNotExist(err) {
		t.Errorf("deleted: %v", err)
	}
	ok := []string{"true"}
	for _, cfg := range []WriteConfig{{}, {Store: ok}, {Delete: ok}, {Store: ok, Delete: []string{"/no/such/program"}}, {Store: ok, Delete: ok, Refused: 256}} {
		if _, err := New(Config{Command: ok, Write: cfg}, loader.OriginOptions{WriteThrough: true}); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
