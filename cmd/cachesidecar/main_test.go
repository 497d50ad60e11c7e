package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// binary returns the path of the command, which is built for the first test that needs a
// process.
var binary = sync.OnceValue(func() string {
	file, err := testenv.Build(folder)
	if err != nil {
		panic(err)
	}
	return file
})

// folder is for the command, and is removed after the tests.
var folder string

func TestMain(m *testing.M) { testenv.Main(alone{m}) }

// alone runs the tests without settings of the user who runs them, and with a folder for the command.
type alone struct{ *testing.M }

func (a alone) Run() int {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "CACHESIDECAR_") || strings.HasPrefix(name, "LISTEN_") || name == "NOTIFY_SOCKET" {
			os.Unsetenv(name)
		}
	}
	testenv.Unignore()
	var err error
	if folder, err = os.MkdirTemp("", "cachesidecar-test"); err == nil {
		defer os.RemoveAll(folder)
		err = os.Chmod(folder, 0o755) // another user runs it too
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return a.M.Run()
}

// tempDir makes a folder whose name is short enough for a socket's path.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cs")
	testenv.Must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// outcome is the result of a command.
type outcome struct {
	status   int
	out, err string
}

func (o outcome) String() string {
	return fmt.Sprintf("status %d\nstdout: %s\nstderr: %s", o.status, o.out, o.err)
}

// fails checks that a command has ended with a status, and says something on stderr.
func (o outcome) fails(t testing.TB, what string, status int, want string) {
	t.Helper()
	if o.status != status || !strings.Contains(o.err, want) {
		t.Errorf("%s: %v\nwant status %d and %q", what, o, status, want)
	}
}

// command runs a command line in this process, with in as its stdin.
func command(t testing.TB, in string, args ...string) outcome {
	t.Helper()
	var out, err bytes.Buffer
	status := commandWith(t, &program{in: strings.NewReader(in), out: &out, err: &err}, args...)
	return outcome{status, out.String(), err.String()}
}

func commandWith(t testing.TB, p *program, args ...string) int {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context()) // a deadline would stand for --timeout
	defer cancel()
	defer context.AfterFunc(testenv.Context(t), cancel)()
	return p.run(ctx, append([]string{"cachesidecar"}, args...))
}

// mustRun runs a command that must succeed, and returns its stdout.
func mustRun(t testing.TB, args ...string) string {
	t.Helper()
	o := command(t, "", args...)
	if o.status != exitDone || o.err != "" {
		t.Fatalf("%q: %v", args, o)
	}
	return o.out
}

// serveHere runs a sidecar in this process, sets the environment so that commands find
// it, and returns its socket.
func serveHere(t testing.TB) string {
	t.Helper()
	return serveWith(t, sidecar.Config{})
}

// serveWith is serveHere with a given configuration.
func serveWith(t testing.TB, cfg sidecar.Config) string {
	t.Helper()
	path := filepath.Join(tempDir(t), "s")
	cfg.Socket, cfg.Node, cfg.Version, cfg.L2Size = path, "host1", "test", 64<<20
	s, err := sidecar.New(cfg)
	testenv.Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with ctx; the cleanup waits for it
	select {
	case <-s.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		testenv.Should(t, <-done)
	})
	t.Setenv("CACHESIDECAR_SOCKET", path)
	return path
}
