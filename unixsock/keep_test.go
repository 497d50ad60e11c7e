package unixsock

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// keeps calls Keep and checks its results.
func keeps(t *testing.T, l *Listener, made bool, want string) {
	t.Helper()
	got, err := l.Keep()
	if got != made || (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("made anew: %v, %v; want %v, %q", got, err, made, want)
	}
}

// TestKeepMakesAnew checks that Keep replaces a missing socket file, with its mode, and a
// missing lock file.
func TestKeepMakesAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := mustListen(t, Config{Path: path, Mode: 0o604})
	for _, tc := range []struct {
		gone []string
		made bool
	}{{nil, false}, {[]string{path}, true}, {[]string{path + ".lock"}, false}, {[]string{path, path + ".lock"}, true}} {
		for _, p := range tc.gone {
			testenv.Must(t, os.Remove(p))
		}
		keeps(t, l, tc.made, "")
		keeps(t, l, false, "")
		if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != 0o604 {
			t.Errorf("%v gone: %v, %v", tc.gone, fi, err)
		}
		if _, err := takeLock(path); !errors.Is(err, ErrRunning) {
			t.Errorf("%v gone: the lock is free: %v", tc.gone, err)
		}
		if c, err := net.Dial("unix", path); err != nil {
			t.Errorf("%v gone: %v", tc.gone, err)
		} else {
			c.Close()
		}
	}
}

// TestOthersFilesStay checks that files which other processes have put at the path, or at
// the lock's path, stay while the listener lives and when it closes.
func TestOthersFilesStay(t *testing.T) {
	for name, tc := range map[string]struct {
		put  func(path string) error
		want string
		at   string // appended to the path
	}{
		"a file": {func(path string) error { return os.WriteFile(path, []byte("precious"), 0o600) }, "is no socket", ""},
		"a live socket": {func(path string) error {
			ln, err := net.Listen("unix", path)
			if err == nil {
				t.Cleanup(func() { ln.Close() })
			}
			return err
		}, "already running", ""},
		"another's lock": {func(path string) error {
			if err := os.Remove(path + ".lock"); err != nil {
				return err
			}
			f, err := takeLock(path)
			if err == nil {
				t.Cleanup(func() { f.Close() })
			}
			return err
		}, "another sidecar serves", ".lock"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l := mustListen(t, Config{Path: path})
			testenv.Must(t, os.Remove(path))
			testenv.Must(t, tc.put(path))
			before, err := os.Lstat(path + tc.at)
			testenv.Must(t, err)
			keeps(t, l, false, tc.want)
			if !liesAt(before, path+tc.at) {
				t.Error("it is gone after Keep")
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if !liesAt(before, path+tc.at) {
				t.Error("it is gone after Close")
			}
		})
	}
}

// TestLockIsOwnFile checks that the lock must be a regular file of this user, not reached
// through a link.
func TestLockIsOwnFile(t *testing.T) {
	for want, put := range map[string]func(lock, target string) error{
		"is a symbolic link": func(lock, target string) error { return os.Symlink(target, lock) },
		"is no regular file": func(lock, _ string) error { return unix.Mkfifo(lock, 0o600) },
		"belongs to another user": func(lock, _ string) error {
			return errors.Join(os.WriteFile(lock, nil, 0o600), os.Chown(lock, 65534, 65534))
		},
	} {
		if strings.Contains(want, "user") && os.Getuid() != 0 {
			t.Logf("not root: %q is not tried", want)
			continue
		}
		dir := t.TempDir()
		path := filepath.Join(dir, "s")
		testenv.Must(t, put(path+".lock", filepath.Join(dir, "target")))
		if f, err := takeLock(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
			_ = f.Close()
		}
		if _, err := os.Lstat(filepath.Join(dir, "target")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: what the link leads to was made: %v", want, err)
		}
	}
}

// TestStaleSocketOfAnother checks that a stale socket of another user is not removed.
func TestStaleSocketOfAnother(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("not root: it cannot be tried")
		return
	}
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	testenv.Must(t, err)
	ln.SetUnlinkOnClose(false)
	ln.Close()
	testenv.Must(t, os.Chown(path, 65534, 65534))
	if l, err := Listen(Config{Path: path}); err == nil || !strings.Contains(err.Error(), "belongs to another user") {
		t.Errorf("%v", err)
		if l != nil {
			l.Close()
		}
	}
}

// TestSocketIsClosedAtFirst checks that no other user may connect before the socket's
// file has its mode and group, whatever the umask is. It also checks that the file gets
// the configured group.
func TestSocketIsClosedAtFirst(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := bind(path)
	testenv.Must(t, err)
	defer ln.Close()
	if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm()&0o077 != 0 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
	if os.Getuid() != 0 {
		return
	}
	l := mustListen(t, Config{Path: path + "2", Group: "65534"})
	fi, err := os.Lstat(l.Path())
	testenv.Must(t, err)
	if st := fi.Sys().(*syscall.Stat_t); st.Gid != 65534 {
		t.Errorf("group %d", st.Gid)
	}
}

// TestDressFollowsNoLink checks that a link's target does not get the mode and group.
func TestDressFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "s")
	testenv.Must(t, errors.Join(os.WriteFile(target, nil, 0o600), os.Symlink(target, link)))
	_ = dress(link, 0o666, -1)
	if fi, err := os.Stat(target); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}
