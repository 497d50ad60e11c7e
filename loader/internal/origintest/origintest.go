// Package origintest has what the tests of all origins need: servers that are
// run for a test, addresses where none answers, and the table that each origin
// is held to. It is imported by tests alone.
package origintest

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Need returns the path of a program, or skips the test with what to install.
// In CI nothing may be wanting.
func Need(t testing.TB, program, install string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	// Debian keeps PostgreSQL's programs of each version in a folder of its own.
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program); len(found) > 0 {
		return found[len(found)-1]
	}
	why := program + " is not installed: " + install
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
	return ""
}

// Start runs a server until the end of the test, and returns once something
// listens on its socket.
func Start(t testing.TB, cmd *exec.Cmd, socket string) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			_ = c.Close()
			return
		} else if time.Now().After(end) {
			t.Fatalf("%s does not listen: %v", cmd.Path, err)
		}
	}
}

// Folder returns a new folder with a short path, for sockets.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cso")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Refusing returns an address where nobody listens.
func Refusing(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Saying returns the address of a server that takes connections, says the same
// to each, and then nothing more.
func Saying(t testing.TB, what string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the listener, which the test's end closes
		defer close(ended)
		var conns []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
			_, _ = c.Write([]byte(what))
		}
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	return l.Addr().String()
}

// ErrAny is any error that may be retried.
var ErrAny = errors.New("any error that is no answer")

// Case is one load and what it must give.
type Case struct {
	Name   string
	Source loader.Source
	Key    string
	Want   loader.Value
	Err    error         // nil, a sentinel of loader's, or ErrAny
	Within time.Duration // zero: 30 s
	Secret string        // must not be in the error
}

// Run makes the loads.
func Run(t *testing.T, cases []Case) {
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if c.Within == 0 {
				c.Within = 30 * time.Second
			}
			began := time.Now()
			got, err := c.Source.Load(context.Background(), []byte(c.Key))
			if took := time.Since(began); took > c.Within {
				t.Errorf("took %v, want less than %v", took, c.Within)
			}
			switch {
			case c.Err == nil && err != nil:
				t.Fatalf("got %v", err)
			case errors.Is(c.Err, ErrAny):
				if loader.Answered(err) {
					t.Fatalf("got %v, want an error that may be retried", err)
				}
			case !errors.Is(err, c.Err):
				t.Fatalf("got %v, want %v", err, c.Err)
			}
			if err != nil && c.Secret != "" && strings.Contains(err.Error(), c.Secret) {
				t.Errorf("the error shows a secret: %v", err)
			}
			if string(got.Bytes) != string(c.Want.Bytes) || got.Flags != c.Want.Flags || got.TTL != c.Want.TTL || got.NoStore != c.Want.NoStore {
				t.Errorf("got %+v (%q), want %+v (%q)", got, got.Bytes, c.Want, c.Want.Bytes)
			}
		})
	}
}
