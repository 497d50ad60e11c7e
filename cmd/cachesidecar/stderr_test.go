package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// runBeside starts a sidecar whose stderr is w. It closes w in this process.
func runBeside(t *testing.T, w *os.File, flags ...string) *process {
	t.Helper()
	socket := filepath.Join(tempDir(t), "s")
	cmd := exec.Command(binary(), append([]string{"run", "--socket", socket, "--http", "off"}, flags...)...)
	cmd.Stderr = w
	p := launch(t, cmd)
	_ = w.Close()
	p.socket = socket
	p.listens()
	return p
}

// listens waits until a sidecar whose log is not read listens. Its socket file exists a
// moment earlier.
func (p *process) listens() {
	p.t.Helper()
	testenv.Succeeds(p.t, "the sidecar to listen", func() error {
		c, err := net.Dial("unix", p.socket)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// malformed sends n malformed frames, each on a new connection.
func (p *process) malformed(n int) {
	p.t.Helper()
	for range n {
		c, err := net.Dial("unix", p.socket)
		testenv.Must(p.t, err)
		_ = c.SetDeadline(testenv.Deadline())
		_, _ = c.Write(make([]byte, 4))
		_, _ = c.Read(make([]byte, 64)) // the sidecar closes it
		_ = c.Close()
	}
}

// serves checks that the sidecar executes a write and a read.
func (p *process) serves() {
	p.t.Helper()
	ctx := testenv.Context(p.t)
	cl, err := client.Dial(ctx, client.Config{Socket: p.socket, DialTimeout: testenv.Patience, RequestTimeout: testenv.Patience})
	testenv.Must(p.t, err)
	defer cl.Close()
	testenv.Must(p.t, testenv.ErrorOf(cl.Set(ctx, "k", []byte("v"), cachesidecar.SetOptions{})))
	if it, err := cl.Get(ctx, "k", cachesidecar.GetOptions{}); err != nil || string(it.Value) != "v" {
		p.t.Fatalf("%q, %v", it.Value, err)
	}
}

// TestLengthyStderrIsFull checks that a stderr that is not read only costs lines: the sidecar
// continues to serve, and ends when it is told to.
func TestLengthyStderrIsFull(t *testing.T) {
	testenv.Takes(t, 15*time.Second)
	t.Parallel()
	r, w, err := os.Pipe()
	testenv.Must(t, err)
	defer r.Close()
	p := runBeside(t, w, "--log-level", "debug")
	p.malformed(5_000)
	p.serves()
	p.signal(syscall.SIGTERM)
	p.ends(exitDone)
}

// TestLengthyStderrIsGone checks that a stderr that is closed, or whose reader has gone, does
// not end the sidecar.
func TestLengthyStderrIsGone(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	t.Parallel()
	r, w, err := os.Pipe()
	testenv.Must(t, err)
	p := runBeside(t, w)
	_ = r.Close()
	p.malformed(100)
	p.serves()
	p.signal(syscall.SIGTERM)
	p.ends(exitDone)

	socket := filepath.Join(tempDir(t), "s")
	cmd := exec.Command("/bin/sh", "-c", `exec "$0" run --socket "$1" --http off 2>&-`, binary(), socket)
	p = launch(t, cmd)
	p.socket = socket
	p.listens()
	p.malformed(100)
	p.serves()
	p.signal(syscall.SIGTERM)
	p.ends(exitDone)
}
