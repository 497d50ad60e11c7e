package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// readyz waits until /readyz returns the given status and text.
func readyz(t testing.TB, addr string, status int, want string) {
	t.Helper()
	client := &http.Client{Timeout: testenv.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
	testenv.Succeeds(t, fmt.Sprintf("/readyz: %d %s", status, want), func() error {
		r, err := client.Get("http://" + addr + "/readyz")
		if err != nil {
			return err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err == nil && (r.StatusCode != status || !strings.Contains(string(b), want)) {
			err = fmt.Errorf("%s: %s", r.Status, b)
		}
		return err
	})
}

// TestLengthySocketFileDeleted checks that a deleted socket file is created again, with its
// mode. Open connections and the lock survive.
func TestLengthySocketFileDeleted(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	addr := testenv.FreeAddress(t)
	p := runSidecar(t, "--http", addr, "--socket-mode", "0604")
	c := p.dial()
	c.must(setRequest("k", "v"))
	lock := p.socket + ".lock"
	for _, gone := range [][]string{{p.socket}, {p.socket, lock}, {lock}, {p.socket}} {
		for _, path := range gone {
			testenv.Must(t, os.Remove(path))
		}
		testenv.Succeeds(t, fmt.Sprintf("%v anew", gone), func() error {
			for _, path := range gone {
				if _, err := os.Lstat(path); err != nil {
					return err
				}
			}
			o := p.at("get", "k")
			if o.out != "v" {
				return errors.New(o.err)
			}
			return nil
		})
		c.must(getRequest("k"))
		p.dial().must(getRequest("k"))
		if fi, err := os.Lstat(p.socket); err != nil || fi.Mode().Perm() != 0o604 {
			t.Errorf("the new file: %v, %v", fi.Mode(), err)
		}
		runBinary(t, "run", "--socket", p.socket, "--http", "off").fails(t, "a second sidecar", exitMiss, "already running")
	}
	readyz(t, addr, http.StatusOK, "serving")
	p.terminate()
	if n := strings.Count(p.log.String(), "the socket's file was gone, and is made anew"); n != 3 {
		t.Errorf("the log has %d lines, want one for each time", n)
	}
	if _, err := os.Lstat(lock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock is there: %v", err)
	}
}

// TestLengthySocketFileReplaced checks that the sidecar does not touch a foreign file in the
// place of its socket until that is removed. Meanwhile it is not ready, reports the
// reason once, and serves the connected clients.
func TestLengthySocketFileReplaced(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	addr := testenv.FreeAddress(t)
	p := runSidecar(t, "--http", addr)
	c := p.dial()
	// The file is put in place in one step, because a missing socket would be created
	// again.
	other := p.socket + "-other"
	testenv.Must(t, errors.Join(os.WriteFile(other, []byte("precious"), 0o600), os.Rename(other, p.socket)))
	const why = "exists and is no socket: remove it or choose another path with --socket"
	readyz(t, addr, http.StatusServiceUnavailable, "apps do not find the socket: "+p.socket+" "+why)
	c.must(ping())
	testenv.Must(t, os.Remove(p.socket))
	readyz(t, addr, http.StatusOK, "serving")
	p.dial().must(ping())

	// Another server, which is alive.
	ln, err := net.Listen("unix", other)
	testenv.Must(t, err)
	defer ln.Close()
	testenv.Must(t, os.Rename(other, p.socket))
	readyz(t, addr, http.StatusServiceUnavailable, "already running: another process serves "+p.socket)
	c.must(ping())
	p.signal(syscall.SIGTERM)
	p.ends(exitDone)
	if n := strings.Count(p.log.String(), "apps do not find the socket"); n != 2 {
		t.Errorf("the log has %d lines, want one for each reason", n)
	}
	if nc, err := net.Dial("unix", p.socket); err != nil {
		t.Errorf("the other server's socket is gone: %v", err)
	} else {
		nc.Close()
	}
}

// TestSocketTakenOver stops a sidecar, deletes its socket and lock, and starts another
// one at the same path. The first one then leaves the path to the second.
func TestSocketTakenOver(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	addr := testenv.FreeAddress(t)
	first := runSidecar(t, "--http", addr)
	proctest.Stop(t, first.cmd.Process)
	for _, path := range []string{first.socket, first.socket + ".lock"} {
		testenv.Must(t, os.Remove(path))
	}
	second := runSidecarAt(t, first.socket)
	second.dial().must(setRequest("k", "second"))
	first.signal(syscall.SIGCONT)
	readyz(t, addr, http.StatusServiceUnavailable, "already running: another sidecar serves "+first.socket)
	first.signal(syscall.SIGTERM)
	first.ends(exitDone)
	if _, err := os.Lstat(first.socket + ".lock"); err != nil {
		t.Errorf("the second sidecar's lock is gone: %v", err)
	}
	if o := second.at("get", "k"); o.out != "second" {
		t.Errorf("the second sidecar: %v", o)
	}
	if o := runBinary(t, "run", "--socket", second.socket, "--http", "off"); !strings.Contains(o.err, "already running") {
		t.Errorf("a third sidecar: %v", o)
	}
	second.terminate()
}

// TestSocketFolderGone removes the folder for a while. The sidecar creates its socket
// again when the folder is back. If the sidecar made the folder itself, it makes that
// again, too.
func TestSocketFolderGone(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	addr, run := testenv.FreeAddress(t), tempDir(t)
	dir := filepath.Join(run, "folder")
	testenv.Must(t, os.Mkdir(dir, 0o700))
	p := runSidecarAt(t, filepath.Join(dir, "s"), "--http", addr)
	// Rename does it in one step; otherwise the socket would be created again in it.
	testenv.Must(t, os.Rename(dir, dir+"-gone"))
	readyz(t, addr, http.StatusServiceUnavailable, "does not exist: create "+dir)
	testenv.Must(t, os.Mkdir(dir, 0o700))
	readyz(t, addr, http.StatusOK, "serving")
	p.dial().must(ping())
	p.terminate()
}

// TestInheritedSocketDeleted: the sidecar cannot create a socket from systemd again, so
// it reports that the file is gone.
func TestInheritedSocketDeleted(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	addr, socket := testenv.FreeAddress(t), filepath.Join(tempDir(t), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	testenv.Must(t, err)
	ln.SetUnlinkOnClose(false)
	f, err := ln.File()
	testenv.Must(t, err)
	ln.Close()
	defer f.Close()
	cmd := exec.Command("sh", "-c", `LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" run --http "$1" --node host1`, binary(), addr)
	cmd.ExtraFiles = []*os.File{f} // becomes 3
	p := launch(t, cmd)
	p.socket = socket
	readyz(t, addr, http.StatusOK, "serving")
	c := p.dial()
	testenv.Must(t, os.Rename(socket, socket+"-away"))
	readyz(t, addr, http.StatusServiceUnavailable, "the file of the socket that systemd has passed on is gone from "+socket+": restart its socket unit")
	c.must(ping())
	testenv.Must(t, os.Rename(socket+"-away", socket))
	readyz(t, addr, http.StatusOK, "serving")
	p.signal(syscall.SIGTERM)
	p.ends(exitDone)
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("systemd's file is gone: %v", err)
	}
}

// TestLockFile checks that the lock file belongs to the sidecar: it is not opened through
// a link, and another user's file is refused.
func TestLockFile(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		put  func(lock, target string) error
		want string
	}{
		"a link to a file":  {func(lock, target string) error { return os.Symlink(target, lock) }, "is a symbolic link: remove it"},
		"a link to nothing": {func(lock, target string) error { return os.Symlink(target+"-none", lock) }, "is a symbolic link: remove it"},
		"a pipe":            {func(lock, _ string) error { return syscall.Mkfifo(lock, 0o600) }, "is no regular file: remove it"},
		"a file of another user's": {func(lock, _ string) error {
			return errors.Join(os.WriteFile(lock, nil, 0o600), os.Chown(lock, 65534, 65534))
		}, "belongs to another user: remove it"},
	} {
		if strings.Contains(name, "user") && os.Getuid() != 0 {
			t.Logf("not root: %s is not tried", name)
			continue
		}
		dir := tempDir(t)
		socket, target := filepath.Join(dir, "s"), filepath.Join(dir, "target")
		testenv.Must(t, os.WriteFile(target, []byte("precious"), 0o600))
		testenv.Must(t, tc.put(socket+".lock", target))
		o := runBinary(t, "run", "--socket", socket, "--http", "off")
		if o.status != exitMiss || !strings.Contains(o.err, "lock file "+socket+".lock "+tc.want) {
			t.Errorf("%s: %v\nwant %q", name, o, tc.want)
		}
		if b, err := os.ReadFile(target); string(b) != "precious" || err != nil {
			t.Errorf("%s: the file behind it has %q, %v", name, b, err)
		}
		for _, path := range []string{socket, target + "-none"} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %s is there: %v", name, path, err)
			}
		}
	}
}

// TestEndWhileStarting checks that a sidecar that gets a signal at any moment of its
// start ends in order, and leaves neither socket nor lock.
func TestEndWhileStarting(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	testenv.ReadsClock(t, 46*time.Millisecond, "the signal comes at moments of the start that leave no trace")
	t.Parallel()
	dir := tempDir(t)
	for i := range 30 {
		socket := filepath.Join(dir, fmt.Sprint("s", i))
		p := launch(t, exec.Command(binary(), "run", "--socket", socket, "--http", "off", "--node", "host1", "--bind", "127.0.0.1:0"))
		p.socket = socket
		switch { // before it has begun, and at each step that leaves a trace
		case i < 24:
			<-time.After(time.Duration(i) * 2 * time.Millisecond)
		case i < 27:
			testenv.Succeeds(t, "the lock", func() error { _, err := os.Lstat(socket + ".lock"); return err })
		default:
			testenv.Succeeds(t, "the socket", func() error { _, err := os.Lstat(socket); return err })
		}
		told := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}[i%2]
		p.signal(told)
		// Before the program has begun, the signal kills the process.
		if status := p.wait(); status != exitDone {
			ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !ok || !ws.Signaled() || ws.Signal() != told || p.log.String() != "" {
				t.Errorf("%v after step %d: status %d: %s", told, i, status, p.log)
			}
		}
		for _, path := range []string{socket, socket + ".lock"} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%v after step %d: %s is there", told, i, path)
			}
		}
	}
}

// TestSignalsWithoutMeaning checks that signals that a sidecar does not use do not end
// it.
func TestSignalsWithoutMeaning(t *testing.T) {
	t.Parallel()
	p := runSidecar(t)
	c := p.dial()
	for _, s := range []os.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE} {
		p.signal(s)
		c.must(ping())
		p.dial().must(ping())
	}
	p.terminate()
}
