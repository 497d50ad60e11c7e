package memcached

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// tool runs one of libmemcached's tools and returns what it prints, and whether its status
// is 0.
func tool(t testing.TB, address, name string, args ...string) (string, bool) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		testenv.Needs(t, "there is no "+name+": install the Debian package libmemcached-tools")
	}
	out, err := exec.Command(path, append([]string{"--servers=" + address}, args...)...).CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return string(out), err == nil
}

// TestTools does everything that libmemcached's tools can do. Of these, memcdump needs the
// list of a server's keys, and memcslap only makes load.
func TestTools(t *testing.T) {
	address := oneServer(t)
	does := func(want string, name string, args ...string) {
		t.Helper()
		if out, ok := tool(t, address, name, args...); !ok || !strings.Contains(out, want) {
			t.Errorf("%s %q: %v, %q, want %q in it", name, args, ok, out, want)
		}
	}
	fails := func(name string, args ...string) {
		t.Helper()
		if out, ok := tool(t, address, name, args...); ok {
			t.Errorf("%s %q succeeds: %q", name, args, out)
		}
	}
	dir := t.TempDir()
	file, other := filepath.Join(dir, "file"), filepath.Join(dir, "other")
	for path, text := range map[string]string{file: "what is in the file", other: "what is in the other"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	does("", "memcping")
	fails("memccat", "file")
	fails("memcexist", "file")
	fails("memcrm", "file")
	does("", "memccp", "--flag=7", "--expire=100", file, other)
	does("what is in the file", "memccat", "file")
	does("7", "memccat", "--flags", "--verbose", "file")
	does("", "memcexist", "file")
	does("", "memctouch", "--expire=200", "file")
	does("", "memccp", "--replace", file)
	fails("memccp", "--add", file)
	does("", "memcrm", "file")
	fails("memccat", "file")
	fails("memcexist", "file")
	fails("memctouch", "--expire=200", "file")
	does("", "memccp", "--add", file)
	does("curr_items", "memcstat")
	does("", "memcflush")
	fails("memccat", "other")
}

// capable is what memccapable tests of the text protocol: commands that answer, and commands
// that it also sends with noreply.
var (
	capable      = strings.Fields("version quit verbosity get gets mget stat")
	capableQuiet = strings.Fields("set flush add replace cas delete incr decr append prepend")
)

var capableLine = regexp.MustCompile(`(?m)^ascii (\w+(?: noreply)?)\s+\[(\w+)\]`)

// TestCapable runs memccapable: all of its tests of the text protocol pass, as on memcached.
func TestCapable(t *testing.T) {
	path, err := exec.LookPath("memccapable")
	if err != nil {
		testenv.Needs(t, "there is no memccapable: install the Debian package libmemcached-tools")
	}
	host, port, _ := strings.Cut(oneServer(t), ":")
	out, err := exec.Command(path, "-h", host, "-p", port, "-a", "-t", "10").CombinedOutput()
	if err != nil {
		t.Errorf("memccapable: %v", err)
	}
	want := map[string]bool{}
	for _, name := range capable {
		want[name] = true
	}
	for _, name := range capableQuiet {
		want[name], want[name+" noreply"] = true, true
	}
	got := map[string]bool{}
	for _, m := range capableLine.FindAllStringSubmatch(string(out), -1) {
		got[m[1]] = m[2] == "pass"
	}
	if !maps.Equal(got, want) {
		t.Errorf("memccapable tests %q, want all of %q to pass:\n%s", slices.Sorted(maps.Keys(got)),
			slices.Sorted(maps.Keys(want)), out)
	}
}
