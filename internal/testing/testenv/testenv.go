// Package testenv tells a test what this run gives it: time, programs, and the command.
//
// Inputs are environment variables. CI=true says that nothing may be missing.
// LONG_TESTS=1 runs the tests whose names begin with TestLengthy; without it they are skipped.
// TEST_COMMAND is the path of the built command; without it each package takes a copy of one.
// The package starts no goroutine, and only tests import it.
package testenv

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Takes marks a test that takes about as long as is said. With -short it is skipped. A
// test whose name begins with TestLengthy is skipped unless LONG_TESTS is set.
func Takes(t testing.TB, about time.Duration) {
	t.Helper()
	switch {
	case strings.HasPrefix(t.Name(), "TestLengthy") && !Long():
		t.Skipf("it takes about %v: LONG_TESTS=1 runs it", about)
	case testing.Short():
		t.Skipf("skipped by -short: it takes about %v", about)
	}
}

// Long reports whether LONG_TESTS is set. Tests that do the same for many seeds do it for
// more of them.
func Long() bool { return os.Getenv("LONG_TESTS") != "" }

// Needs skips a test that lacks something. The reason says what to install. In CI it fails
// the test.
func Needs(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Build returns the path of the command, which it puts into the folder unless the caller of the tests has
// built it. "go run" links it once for all packages, and keeps it; "go build" would do so for each.
func Build(folder string) (string, error) {
	if path := os.Getenv("TEST_COMMAND"); path != "" {
		return path, nil
	}
	const module = "github.com/cachesidecar/cachesidecar"
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("go list: %w", err)
	}
	path := filepath.Join(folder, "cachesidecar")
	cmd := exec.Command("go", "run", "-exec", "cp", "./cmd/cachesidecar", path)
	cmd.Dir = strings.TrimSpace(string(root)) // the module of the command: its go.sum has what it needs
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go run: %w\n%s", err, out)
	}
	return path, nil
}

// File returns the path of a file of the test's own that contains text.
func File(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Must ends the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Should reports an error, and the test goes on.
func Should(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// ErrorOf returns the error of a call that returns something else too.
func ErrorOf[T any](_ T, err error) error { return err }
