package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestWatchdog checks that a process whose unit has WatchdogSec tells systemd in time that
// it lives, and that it ends in order.
func TestWatchdog(t *testing.T) {
	testenv.ReadsClock(t, 300*time.Millisecond, "systemd is not told five times within the time for which once is enough")
	t.Parallel()
	notify := filepath.Join(tempDir(t), "n")
	nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	testenv.Must(t, err)
	defer nc.Close()
	socket := filepath.Join(filepath.Dir(notify), "s")
	cmd := exec.Command("sh", "-c", `WATCHDOG_PID=$$ exec "$0" run --http off --node host1 --socket "$1"`, binary(), socket)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify, "WATCHDOG_USEC=300000")
	began := time.Now() // before, since this test may be late to read
	p := launch(t, cmd)
	p.socket = socket
	if got := read(t, nc); got != "READY=1" {
		t.Fatalf("systemd is told %q, want READY=1", got)
	}
	for range 5 {
		if got := read(t, nc); got != "WATCHDOG=1" {
			t.Errorf("systemd is told %q, want WATCHDOG=1", got)
		}
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("five times in %v", took)
	}
	p.signal(syscall.SIGTERM)
	for got := read(t, nc); !strings.HasPrefix(got, "STOPPING=1\n"); got = read(t, nc) {
		if got != "WATCHDOG=1" {
			t.Fatalf("systemd is told %q", got)
		}
	}
	p.ends(exitDone)
}

// TestHangs checks which sidecars count as hanging, for the watchdog and for ping --alive:
// those that take a connection or a request and do not answer.
func TestHangs(t *testing.T) {
	t.Parallel()
	p := runSidecar(t)
	for _, tc := range []struct {
		name  string
		serve func(net.Conn) // nil: nothing accepts
		hangs bool
		limit time.Duration
	}{
		{"nothing accepts", nil, true, 100 * time.Millisecond},
		{"no answer", func(net.Conn) {}, true, 100 * time.Millisecond},
		{"closed at once", func(c net.Conn) { _ = c.Close() }, false, testenv.Patience},
	} {
		socket := filepath.Join(tempDir(t), "s")
		ln, err := net.Listen("unix", socket)
		testenv.Must(t, err)
		go func() { // ends with the listener
			for tc.serve != nil {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				tc.serve(c)
			}
		}()
		if got := hangs(context.Background(), socket, tc.limit); got != tc.hangs {
			t.Errorf("%s: hangs is %v", tc.name, got)
		}
		want := map[bool]int{false: exitDone, true: exitTimeout}[tc.hangs]
		if o := command(t, "", "ping", "--alive", "--socket", socket, "--timeout", tc.limit.String()); o.status != want || o.out != "" {
			t.Errorf("%s: ping --alive: %v, want status %d", tc.name, o, want)
		}
		_ = ln.Close()
	}
	if hangs(context.Background(), p.socket, testenv.Patience) {
		t.Error("a sidecar that serves counts as hanging")
	}
	if o := p.at("ping", "--alive"); o.status != exitDone || o.out != "" {
		t.Errorf("ping --alive: %v", o)
	}
	absent := filepath.Join(tempDir(t), "absent")
	if hangs(context.Background(), absent, testenv.Patience) {
		t.Error("a socket that is not there counts as hanging: systemd would end a process that makes it again")
	}
	if o := command(t, "", "ping", "--alive", "--socket", absent); o.status != exitConnect {
		t.Errorf("without a sidecar, ping --alive: %v", o)
	}
}
