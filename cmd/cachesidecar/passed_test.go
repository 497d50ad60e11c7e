package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// passing returns a run of the sidecar with these flags, to which listeners are passed as systemd does:
// from descriptor 3 on, with their names.
func passing(t testing.TB, listeners []net.Listener, names string, flags ...string) *exec.Cmd {
	t.Helper()
	// LISTEN_PID must be the process's own ID, which the shell knows before exec.
	cmd := exec.Command("sh", append([]string{
		"-c", `LISTEN_PID=$$ exec "$0" run --http off --node host1 "$@"`, binary(),
	}, flags...)...)
	cmd.Env = append(os.Environ(), fmt.Sprint("LISTEN_FDS=", len(listeners)), "LISTEN_FDNAMES="+names)
	for _, ln := range listeners {
		f, err := ln.(interface{ File() (*os.File, error) }).File()
		testenv.Must(t, err)
		t.Cleanup(func() { f.Close() })
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	return cmd
}

// keeps listens as systemd does: until the end of the test, and without an Accept.
func keeps(t testing.TB, network, address string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, address)
	testenv.Must(t, err)
	t.Cleanup(func() { ln.Close() })
	return ln
}

// asks sends a command of memcached's protocol, and returns the first line of the answer.
func asks(nc net.Conn, command string) (string, error) {
	if _, err := io.WriteString(nc, command+"\r\n"); err != nil {
		return "", err
	}
	return reads(nc)
}

func reads(nc net.Conn) (string, error) {
	_ = nc.SetDeadline(testenv.Deadline())
	b := make([]byte, 100)
	n, err := nc.Read(b)
	return strings.TrimSuffix(string(b[:n]), "\r\n"), err
}

// ends ends a process in order.
func ends(p *process) {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	p.ends(exitDone)
}

// receives returns the receive buffer that the connections of a listener get, and sets another one.
func receives(t *testing.T, ln net.Listener, next int) (now int) {
	t.Helper()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	testenv.Must(t, err)
	e := raw.Control(func(fd uintptr) {
		now, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, next))
	})
	testenv.Should(t, errors.Join(err, e))
	return now
}

// TestPassedMemcached restarts a sidecar whose socket and memcached endpoint systemd keeps. A client that
// connects while no process serves is served by the next one.
func TestPassedMemcached(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	for name, tc := range map[string]struct{ network, names string }{
		"a port, in the unit of the socket":      {"tcp", "cachesidecar.socket:cachesidecar.socket"},
		"a path, in a unit of its own":           {"unix", "cachesidecar.socket:memcached"},
		"a path, and systemd tells no names":     {"unix", ""},
		"a port, and what is there without them": {"tcp", ":"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, address := tempDir(t), "127.0.0.1:0"
			if tc.network == "unix" {
				address = filepath.Join(dir, "m")
			}
			socket, text := keeps(t, "unix", filepath.Join(dir, "s")), keeps(t, tc.network, address)
			address = text.Addr().String()
			if tc.network == "tcp" {
				receives(t, text, 16<<10)
			}
			start := func() *process {
				p := launch(t, passing(t, []net.Listener{socket, text}, tc.names, "--memcached", address))
				p.socket = socket.Addr().String()
				return p
			}
			connect := func(command, want string) {
				t.Helper()
				nc, err := net.Dial(tc.network, address)
				testenv.Must(t, err)
				defer nc.Close()
				if got, err := asks(nc, command); got != want {
					t.Errorf("%.20q is answered %q, %v, want %q", command, got, err, want)
				}
			}
			p := start()
			p.told("serving memcached's protocol", 1)
			if tc.network == "tcp" {
				if got := receives(t, text, 16<<10); got != 128<<10 {
					t.Errorf("the receive buffer is %d bytes, want the 128 KiB that docs/OPERATIONS.md counts", got)
				}
			}
			connect("set k 0 0 5\r\nfirst", "STORED")
			if o := p.at("get", "k"); o.out != "first" {
				t.Errorf("over the socket: %v", o)
			}
			old, err := net.Dial(tc.network, address)
			testenv.Must(t, err)
			defer old.Close()
			if got, err := asks(old, "mn"); got != "MN" {
				t.Errorf("mn is answered %q, %v", got, err)
			}
			ends(p)
			if got, err := asks(old, "mn"); err == nil {
				t.Errorf("a connection of the process that has ended answers %q", got)
			}
			waits, err := net.Dial(tc.network, address)
			if err != nil {
				t.Fatalf("while no process serves: %v", err)
			}
			defer waits.Close()
			testenv.Must(t, testenv.ErrorOf(io.WriteString(waits, "mn\r\n")))
			p = start()
			if got, err := reads(waits); got != "MN" {
				t.Errorf("the next process answers %q, %v", got, err)
			}
			connect("get k", "END")
			ends(p)
			if tc.network == "unix" {
				if _, err := os.Lstat(address); err != nil {
					t.Errorf("systemd's file is gone: %v", err)
				}
			}
		})
	}
}

// TestPassedRefused: a listener that the settings do not name ends the start, and the error says what to do.
func TestPassedRefused(t *testing.T) {
	t.Parallel()
	text := keeps(t, "tcp", "127.0.0.1:0")
	for setting, want := range map[string]string{"off": "but memcached is off: give", "127.0.0.1:1": "but memcached is 127.0.0.1:1: give"} {
		p := launch(t, passing(t, []net.Listener{text}, "", "--memcached", setting, "--socket", filepath.Join(tempDir(t), "s")))
		if status, log := p.wait(), p.log.String(); status != exitMiss || !strings.Contains(log, text.Addr().String()+", "+want) {
			t.Errorf("status %d: %s", status, log)
		}
	}
}

// TestLengthyPassedRestarts: while a sidecar is restarted, no client of memcached's protocol is refused, and
// each that connects between two processes is answered.
func TestLengthyPassedRestarts(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	dir := tempDir(t)
	socket, text := keeps(t, "unix", filepath.Join(dir, "s")), keeps(t, "tcp", "127.0.0.1:0")
	start := func() *process {
		p := launch(t, passing(t, []net.Listener{socket, text}, "", "--memcached", text.Addr().String()))
		p.waitFor("the sidecar to serve", p.log, func(log string) bool { return strings.Contains(log, `"msg":"serving"`) })
		return p
	}
	p := start()
	var clients sync.WaitGroup
	var stop atomic.Bool
	var answered, ended atomic.Int64
	for range 6 {
		clients.Go(func() {
			for !stop.Load() {
				nc, err := net.Dial("tcp", text.Addr().String())
				if err != nil {
					t.Errorf("refused: %v", err)
					return
				}
				switch got, err := asks(nc, "mn"); {
				case got == "MN":
					answered.Add(1)
				case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
					ended.Add(1) // with the process that had accepted it
				default:
					t.Errorf("%q, %v", got, err)
				}
				nc.Close()
			}
		})
	}
	for range 20 {
		before := answered.Load()
		testenv.Eventually(t, "some answers", func() bool { return answered.Load() >= before+20 })
		ends(p)
		p = start()
	}
	stop.Store(true)
	clients.Wait()
	t.Logf("%d answered, %d ended", answered.Load(), ended.Load())
	ends(p)
}
