package unixsock

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) {
	if os.Getenv("UNIXSOCK_TEST_ROLE") == "dial" { // a process of another user
		dials()
		os.Exit(0)
	}
	testenv.Main(m)
}

func mustListen(t *testing.T, cfg Config) *Listener {
	t.Helper()
	l, err := Listen(cfg)
	testenv.Must(t, err)
	t.Cleanup(func() { l.Close() })
	return l
}

func TestModeAndGroup(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for _, mode := range []fs.FileMode{0, 0o600, 0o666} {
		l := mustListen(t, Config{Path: path, Mode: mode, Group: fmt.Sprint(os.Getgid())})
		fi, err := os.Stat(path)
		testenv.Must(t, err)
		want := mode
		if want == 0 {
			want = DefaultMode
		}
		if got := fi.Mode().Perm(); got != want {
			t.Errorf("mode %o, want %o", got, want)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second close: %v", err)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "file")
	testenv.Must(t, os.WriteFile(plain, nil, 0o600))
	served := filepath.Join(dir, "served")
	mustListen(t, Config{Path: served})
	foreign := filepath.Join(dir, "foreign") // served by another program
	ln, err := net.Listen("unix", foreign)
	testenv.Must(t, err)
	defer ln.Close()
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
		is   error
	}{
		{"too long", Config{Path: "/tmp/" + strings.Repeat("x", MaxPath)}, fmt.Sprint("at most ", MaxPath, " fit"), nil},
		{"missing folder", Config{Path: filepath.Join(dir, "none", "s")}, "does not exist: create", nil},
		{"a file for a folder", Config{Path: filepath.Join(plain, "s")}, "is no folder", nil},
		{"no socket", Config{Path: plain}, "is no socket: remove it", nil},
		{"already served", Config{Path: served}, "already running", ErrRunning},
		{"served by another program", Config{Path: foreign}, "already running", ErrRunning},
		{"unknown group", Config{Path: filepath.Join(dir, "g"), Group: "no-such-group"}, "no-such-group", nil},
	} {
		l, err := Listen(tc.cfg)
		if err == nil {
			l.Close()
			t.Errorf("%s: no error", tc.name)
			continue
		}
		if !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	if c, err := net.Dial("unix", served); err != nil {
		t.Errorf("the one that was there is gone: %v", err)
	} else {
		c.Close()
	}
}

func TestNotWritable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Log("run as root, who may write everywhere: checked with a read-only folder of /proc")
		if _, err := Listen(Config{Path: "/proc/s"}); err == nil || !strings.Contains(err.Error(), "must be writable") {
			t.Errorf("%v", err)
		}
		return
	}
	dir := t.TempDir()
	testenv.Must(t, os.Chmod(dir, 0o500))
	if _, err := Listen(Config{Path: filepath.Join(dir, "s")}); err == nil || !strings.Contains(err.Error(), "must be writable") {
		t.Errorf("%v", err)
	}
}

// TestStaleSocket checks that Listen replaces what a killed process leaves behind.
func TestStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	testenv.Must(t, err)
	ln.SetUnlinkOnClose(false)
	ln.Close()
	testenv.Must(t, os.WriteFile(path+".lock", nil, 0o600))
	mustListen(t, Config{Path: path})
	c, err := net.Dial("unix", path)
	testenv.Must(t, err)
	c.Close()
}

// TestTwoAtOnce checks that exactly one of many processes that start over a stale socket
// serves.
func TestTwoAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 20 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []*Listener
		for range 8 {
			wg.Go(func() {
				l, err := Listen(Config{Path: path})
				if err != nil {
					if !errors.Is(err, ErrRunning) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				won = append(won, l)
				mu.Unlock()
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%d serve", len(won))
		}
		won[0].Close()
	}
}

func TestPeerCredentials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := mustListen(t, Config{Path: path})
	c, err := net.Dial("unix", path)
	testenv.Must(t, err)
	defer c.Close()
	s, err := l.Accept()
	testenv.Must(t, err)
	defer s.Close()
	p, err := PeerOf(s)
	if err != nil || p.PID != os.Getpid() || p.UID != os.Getuid() || p.GID != os.Getgid() {
		t.Errorf("%v, %v", p, err)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := PeerOf(a); err == nil {
		t.Error("a pipe has credentials")
	}
}

// TestInherited takes a socket that systemd has made. Its path counts, and its file stays.
func TestInherited(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	testenv.Must(t, err)
	l := mustListen(t, Config{Path: path + "2", Passed: ln})
	c, err := net.Dial("unix", path)
	testenv.Must(t, err)
	defer c.Close()
	if _, err := l.Accept(); err != nil || l.Path() != path {
		t.Errorf("at %s: %v, want %s", l.Path(), err, path)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the inherited socket was removed: %v", err)
	}
}

func TestFindAndChoose(t *testing.T) {
	t.Setenv(EnvPath, "")
	run := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", run)
	path := filepath.Join(run, "cachesidecar", "cachesidecar.sock")
	if got := Candidates(); len(got) != 3 || got[0] != "/run/cachesidecar/cachesidecar.sock" || got[1] != path {
		t.Errorf("candidates %v", got)
	}
	testenv.Must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	if _, err := os.Stat("/run/cachesidecar/cachesidecar.sock"); err != nil {
		if _, err := Find(""); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "cachesidecar run") {
			t.Errorf("nothing there: %v", err)
		}
		mustListen(t, Config{Path: path})
		if got, err := Find(""); got != path || err != nil {
			t.Errorf("Find = %s, %v", got, err)
		}
	}
	t.Setenv(EnvPath, "/x/y")
	if got, err := choose(""); got != "/x/y" || err != nil {
		t.Errorf("choose = %s, %v", got, err)
	}
	if got, err := Find("/explicit"); got != "/explicit" || err != nil {
		t.Errorf("Find = %s, %v", got, err)
	}
}

func TestOwnFolder(t *testing.T) {
	base := t.TempDir()
	fresh := filepath.Join(base, "fresh")
	for range 2 { // made, then found
		if err := ownFolder(fresh); err != nil {
			t.Error(err)
		}
	}
	open := filepath.Join(base, "open")
	link := filepath.Join(base, "link")
	testenv.Must(t, os.Mkdir(open, 0o700))
	testenv.Must(t, os.Chmod(open, 0o777))
	testenv.Must(t, os.Symlink(fresh, link))
	if err := ownFolder(open); err == nil || !strings.Contains(err.Error(), "open to others") {
		t.Errorf("open folder: %v", err)
	}
	if err := ownFolder(link); err == nil || !strings.Contains(err.Error(), "is no folder") {
		t.Errorf("link: %v", err)
	}
	if os.Getuid() == 0 {
		foreign := filepath.Join(base, "foreign")
		testenv.Must(t, os.Mkdir(foreign, 0o700))
		testenv.Must(t, syscall.Chown(foreign, 12345, 12345))
		if err := ownFolder(foreign); err == nil || !strings.Contains(err.Error(), "another user") {
			t.Errorf("foreign folder: %v", err)
		}
	}
}
