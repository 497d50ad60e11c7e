package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// TestSocketThatCannotBe checks that a sidecar with an impossible socket path reports the
// reason and does not start.
func TestSocketThatCannotBe(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	plain := filepath.Join(dir, "plain")
	testenv.Must(t, os.WriteFile(plain, []byte("precious"), 0o600))
	long := filepath.Join(dir, strings.Repeat("x", unixsock.MaxPath-len(dir)))
	for _, tc := range []struct{ name, socket, want string }{
		{"too long", long, fmt.Sprintf("has %d bytes, at most %d fit into a socket address: choose a shorter one", len(long), unixsock.MaxPath)},
		{"missing folder", filepath.Join(dir, "none", "s"), "does not exist: create " + filepath.Join(dir, "none") + " or choose another path with --socket"},
		{"folder is a file", filepath.Join(plain, "s"), plain},
		{"plain file in the way", plain, "exists and is no socket: remove it or choose another path with --socket"},
		{"folder in the way", dir, "exists and is no socket"},
	} {
		o := runBinary(t, "run", "--socket", tc.socket, "--http", "off")
		if o.status != exitMiss || o.out != "" || !strings.Contains(o.err, tc.want) {
			t.Errorf("%s: %v\nwant status %d and %q", tc.name, o, exitMiss, tc.want)
		}
	}
	if b, err := os.ReadFile(plain); string(b) != "precious" {
		t.Errorf("the file in the way has %q, %v", b, err)
	}
	// The longest path that fits is served.
	p := runSidecarAt(t, long[:unixsock.MaxPath])
	p.dial().must(ping())
}

// TestSocketFolderNotWritable checks that the message names a folder that is not
// writable. Root may write everywhere, so it becomes another user.
func TestSocketFolderNotWritable(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	testenv.Must(t, os.Chmod(dir, 0o555))
	cmd := exec.Command(binary(), "run", "--socket", filepath.Join(dir, "s"), "--http", "off")
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	p := launch(t, cmd)
	if status := p.wait(); status != exitMiss || !strings.Contains(p.log.String(), "permission denied: its folder must be writable") || !strings.Contains(p.log.String(), dir) {
		t.Errorf("status %d: %s", status, p.log)
	}
}

func TestSocketModeAndGroup(t *testing.T) {
	t.Parallel()
	gid := os.Getgid()
	p := runSidecar(t, "--socket-mode", "0604", "--socket-group", fmt.Sprint(gid))
	fi, err := os.Stat(p.socket)
	testenv.Must(t, err)
	if fi.Mode().Perm() != 0o604 || int(fi.Sys().(*syscall.Stat_t).Gid) != gid {
		t.Errorf("mode %v, group %d", fi.Mode(), fi.Sys().(*syscall.Stat_t).Gid)
	}
	if strings.Contains(p.log.String(), "have no effect") {
		t.Errorf("systemd has passed nothing on: %s", p.log)
	}
	runBinary(t, "run", "--socket", p.socket+"2", "--http", "off", "--socket-group", "no-such-group").fails(t, "unknown group", exitMiss, `socket group "no-such-group"`)
}

// TestSizesAboveMemory checks that sizes above the machine's memory are refused before
// anything is mapped.
func TestSizesAboveMemory(t *testing.T) {
	t.Parallel()
	o := runBinary(t, "run", "--socket", filepath.Join(tempDir(t), "s"), "--http", "off", "--l1-size", "1TiB", "--l2-size", "256GiB")
	for _, want := range []string{"l1_size 1.0 TiB, l2_size 256 GiB", "need 2.3 TiB, but the ", "lower the sizes, or set ignore_memory_limit"} {
		if o.status != exitUsage || !strings.Contains(o.err, want) {
			t.Errorf("%v\nwant status %d and %q", o, exitUsage, want)
		}
	}
	p := runSidecar(t, "--l1-size", "1TiB", "--ignore-memory-limit")
	p.dial().must(setRequest("k", "v"))
}

// TestInheritedSocket passes a socket as systemd does, in LISTEN_FDS. The file belongs to
// systemd, and stays.
func TestInheritedSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(tempDir(t), "s")
	ln := keeps(t, "unix", socket)
	notify := filepath.Join(filepath.Dir(socket), "n")
	nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	testenv.Must(t, err)
	defer nc.Close()
	for flag, warns := range map[string]bool{"--socket-mode=0660": false, "--socket-mode=0600": true} {
		cmd := passing(t, []net.Listener{ln}, "", flag)
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+notify)
		p := launch(t, cmd)
		p.socket = socket
		if got := read(t, nc); got != "READY=1" {
			t.Errorf("systemd is told %q, want READY=1", got)
		}
		p.dial().must(setRequest("k", "v"))
		if o := p.at("get", "k"); o.out != "v" {
			t.Errorf("through the inherited socket: %v", o)
		}
		p.signal(syscall.SIGTERM)
		const want = "STOPPING=1\nEXTEND_TIMEOUT_USEC=45000000" // leave_time, and 35 s
		if got := read(t, nc); got != want {
			t.Errorf("systemd is told %q, want %q", got, want)
		}
		p.ends(exitDone)
		log := p.log.String()
		if strings.Contains(log, "socket, socket_mode and socket_group have no effect") != warns {
			t.Errorf("with %s, which the socket has: %v: %s", flag, !warns, log)
		}
	}
	if _, err := os.Lstat(socket); err != nil {
		t.Errorf("the socket file is gone: %v", err)
	}
}

func read(t *testing.T, nc *net.UnixConn) string {
	t.Helper()
	_ = nc.SetReadDeadline(testenv.Deadline())
	b := make([]byte, 100)
	n, err := nc.Read(b)
	testenv.Must(t, err)
	return string(b[:n])
}

// TestHTTPAddressTaken checks that an address in use ends the start, and leaves no socket
// behind.
func TestHTTPAddressTaken(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	defer ln.Close()
	socket := filepath.Join(tempDir(t), "s")
	o := runBinary(t, "run", "--socket", socket, "--http", ln.Addr().String())
	if o.status != exitMiss || !strings.Contains(o.err, ln.Addr().String()) || !strings.Contains(o.err, `choose another address, or "off"`) {
		t.Errorf("%v", o)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is there: %v", err)
	}
}

// TestHTTP checks health, metrics and profiles of a real sidecar.
func TestHTTP(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		flags    []string
		profiles int
	}{{nil, 404}, {[]string{"--pprof"}, 200}} {
		addr := testenv.FreeAddress(t)
		p := runSidecar(t, append(tc.flags, "--http", addr)...)
		client := &http.Client{Timeout: testenv.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
		for path, want := range map[string]int{
			"/livez": 200, "/readyz": 200, "/metrics": 200, "/": 200, "/x": 404,
			"/debug/pprof/": tc.profiles, "/debug/pprof/heap": tc.profiles,
		} {
			testenv.Succeeds(t, path, func() error {
				r, err := client.Get("http://" + addr + path)
				if err != nil {
					return err
				}
				defer r.Body.Close()
				if r.StatusCode != want {
					t.Errorf("%s: %s, want %d", path, r.Status, want)
				}
				return nil
			})
		}
		p.terminate()
	}
}

// TestEndTakesLeaveTime checks that systemd is told to wait for the leave_time of the last reload.
func TestEndTakesLeaveTime(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	notify, file := filepath.Join(dir, "n"), filepath.Join(dir, "c.yaml")
	nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	testenv.Must(t, err)
	defer nc.Close()
	write := func(leaveTime string) {
		testenv.Must(t, os.WriteFile(file, []byte("leave_time: "+leaveTime+"\n"), 0o600))
	}
	write("20s")
	socket := filepath.Join(dir, "s")
	cmd := passing(t, []net.Listener{keeps(t, "unix", socket)}, "", "--config", file)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+notify)
	p := launch(t, cmd)
	p.socket = socket
	for read(t, nc) != "READY=1" {
	}
	write("1m")
	p.must("reload")
	p.signal(syscall.SIGTERM)
	got := read(t, nc)
	for ; !strings.HasPrefix(got, "STOPPING=1"); got = read(t, nc) {
	}
	if want := "STOPPING=1\nEXTEND_TIMEOUT_USEC=95000000"; got != want { // and 35 s
		t.Errorf("systemd is told %q, want %q", got, want)
	}
	p.ends(exitDone)
}
