package unixsock

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestDialFullQueue checks that Dial tries a full queue again until its context ends.
func TestDialFullQueue(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	testenv.Must(t, err)
	testenv.Must(t, errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 1)))
	f := os.NewFile(uintptr(fd), path)
	ln, err := net.FileListener(f)
	_ = f.Close()
	testenv.Must(t, err)
	defer ln.Close()
	for {
		nc, err := net.Dial("unix", path)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		testenv.Must(t, err)
		defer nc.Close()
	}
	testenv.ReadsClock(t, 20*time.Millisecond, "a full queue has no room: nothing may come")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, path); err == nil {
		t.Fatal("a full queue had room")
	}
	timer := time.AfterFunc(20*time.Millisecond, func() {
		if nc, err := ln.Accept(); err == nil {
			_ = nc.Close()
		}
	})
	defer timer.Stop()
	nc, err := Dial(testenv.Context(t), path)
	if err != nil {
		t.Fatalf("with room in the queue: %v", err)
	}
	_ = nc.Close()
	if _, err := Dial(t.Context(), path+"x"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
}
