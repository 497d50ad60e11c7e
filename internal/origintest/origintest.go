// Package origintest has what the tests of all origins need: servers that are
// run for a test, addresses where none answers, and the table that each origin
// is held to. It is imported by tests alone.
package origintest

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
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
