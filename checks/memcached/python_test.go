package memcached

import (
	"os/exec"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// python is Debian's, which has Debian's packages.
const python = "/usr/bin/python3"

// needsPymemcache skips a test without pymemcache.
func needsPymemcache(t testing.TB) {
	t.Helper()
	if err := exec.Command(python, "-c", "import pymemcache").Run(); err != nil {
		testenv.Needs(t, "there is no pymemcache: install the Debian package python3-pymemcache")
	}
}

// TestPymemcache does everything that pymemcache can do.
func TestPymemcache(t *testing.T) {
	needsPymemcache(t)
	out, err := exec.Command(python, "testdata/commands.py", oneServer(t)).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
