// Package origintest has what the tests of all origins share: servers that run for one
// test, hostile or refusing addresses, and the table of cases that each origin must pass.
// Only tests import it.
package origintest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Need returns the path of a program. If it is missing, Need skips the test and says what
// to install; in CI it fails the test.
func Need(t testing.TB, program, install string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	// Debian keeps each PostgreSQL version's programs in a folder of its own.
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program); len(found) > 0 {
		return found[len(found)-1]
	}
	testenv.Needs(t, program+" is not installed: "+install)
	return ""
}

// Start runs a server until the end of the test. It returns once the socket accepts
// connections.
func Start(t testing.TB, cmd *exec.Cmd, socket string) {
	t.Helper()
	testenv.Must(t, cmd.Start())
	t.Cleanup(func() { end(cmd, os.Kill) })
	awaitSocket(t, cmd, socket)
}

// end ends a process, unless it has ended.
func end(cmd *exec.Cmd, by os.Signal) {
	_ = cmd.Process.Signal(by)
	_ = cmd.Wait()
}

func awaitSocket(t testing.TB, cmd *exec.Cmd, socket string) {
	t.Helper()
	testenv.Succeeds(t, cmd.Path+" to listen", func() error {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
}

// Folder returns a new folder with a short path, for sockets.
func Folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cso")
	testenv.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
