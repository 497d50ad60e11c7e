package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zeebo/xxh3"
	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// shares returns a client that has the shared memory of a sidecar.
func shares(t testing.TB, p *process) *client.Client {
	t.Helper()
	c, err := client.Dial(t.Context(), client.Config{Socket: p.socket, Conns: 1, DialTimeout: testenv.Patience, RequestTimeout: testenv.Patience})
	testenv.Must(t, err)
	t.Cleanup(func() { c.Close() })
	testenv.Eventually(t, "the shared memory", func() bool { return c.SharedStats().Attached })
	return c
}

// put stores a value and reads it until it comes from the shared memory.
func put(t testing.TB, c *client.Client, key, value string) {
	t.Helper()
	testenv.Must(t, testenv.ErrorOf(c.Set(t.Context(), key, []byte(value), cachesidecar.SetOptions{})))
	testenv.Eventually(t, key+" from the shared memory", func() bool { return isShared(t, c, key, value) })
}

func isShared(t testing.TB, c *client.Client, key, value string) bool {
	t.Helper()
	it, err := c.Get(t.Context(), key, cachesidecar.GetOptions{})
	if err != nil || string(it.Value) != value {
		t.Fatalf("%s: %q, %v", key, it.Value, err)
	}
	return it.Source == "shared"
}

// From a sidecar that is stopped nothing is read after the bound; from one that was killed
// neither, and the next one closes its region before it answers.
func TestSharedMemoryOfStopped(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	const bound = time.Second
	testenv.ReadsClock(t, time.Second, "nothing is read from a sidecar that is stopped for longer than the bound of staleness")
	start := func(socket string) *process {
		return runSidecarAt(t, socket, "--max-staleness", bound.String(), "--l2-size", "16MiB")
	}
	socket := filepath.Join(t.TempDir(), "s")
	p := start(socket)
	c := shares(t, p)
	put(t, c, "k", "one")
	old := filesOf(t, socket)

	proctest.Stop(t, p.cmd.Process)
	stopped := time.Now()
	for hits := 0; ; hits++ {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		it, err := c.Get(ctx, "k", cachesidecar.GetOptions{})
		cancel()
		if err == nil && it.Source == "shared" && began.Sub(stopped) > bound {
			t.Fatalf("read %v after the stop", began.Sub(stopped))
		}
		if time.Since(stopped) > bound*3/2 {
			t.Logf("%d reads while it stood", hits)
			break
		}
	}
	p.signal(syscall.SIGCONT)
	testenv.Succeeds(t, "the sidecar to answer again", func() error { return c.Ping(t.Context()) })
	put(t, c, "k", "two")

	_ = p.cmd.Process.Kill()
	p.wait()
	p = start(socket)
	// It ends the region, or any other sidecar of this user that starts meanwhile does.
	testenv.Eventually(t, "the old region has ended", func() bool { return !slices.Contains(filesOf(t, socket), old[0]) })
	if it, err := c.Get(t.Context(), "k", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Errorf("after the restart: %q from %s, %v", it.Value, it.Source, err)
	}
	put(t, c, "k", "three")
	if now := filesOf(t, socket); len(old) != 1 || len(now) != 1 || old[0] == now[0] {
		t.Errorf("files before %v, and now %v", old, now)
	}
	p.signal(syscall.SIGTERM)
	p.wait()
	if now := filesOf(t, socket); len(now) != 0 {
		t.Errorf("left after the end: %v", now)
	}
}

// filesOf returns the files of a socket's regions.
func filesOf(t testing.TB, socket string) (list []string) {
	t.Helper()
	for _, dir := range []string{filepath.Dir(socket), "/dev/shm"} {
		found, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("cachesidecar-%016x-*", xxh3.HashString(socket))))
		testenv.Must(t, err)
		list = append(list, found...)
	}
	return list
}

// Where there is no room the sidecar runs without shared memory, and says so.
func TestSharedMemoryHasNoRoom(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("run as root: it mounts a small tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("cannot mount a tmpfs: run in a mount namespace of your own: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	socket := filepath.Join(dir, "s")
	p := runSidecarAt(t, socket)
	if log := p.log.String(); !strings.Contains(log, "apps share no memory") || !strings.Contains(log, "no space left") {
		t.Errorf("the log says nothing of it: %s", log)
	}
	c, err := client.Dial(t.Context(), client.Config{Socket: socket, DialTimeout: testenv.Patience, RequestTimeout: testenv.Patience})
	testenv.Must(t, err)
	defer c.Close()
	testenv.Must(t, testenv.ErrorOf(c.Set(t.Context(), "k", []byte("v"), cachesidecar.SetOptions{})))
	for range 100 {
		if isShared(t, c, "k", "v") {
			t.Fatal("read from shared memory")
		}
	}
}

// A thousand apps have the shared memory, and all see a change at once. Apps that report
// hits without end do not keep other apps from being served.
func TestLengthySharedMemoryOfMany(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	p := runSidecar(t)
	first := shares(t, p)
	put(t, first, "k", "one")
	all := make([]*client.Client, 1000)
	for i := range all {
		all[i] = shares(t, p)
	}
	for _, c := range all { // a reader that is kept waiting in the middle asks over the socket
		testenv.Eventually(t, "a hit in the shared memory", func() bool { return isShared(t, c, "k", "one") })
	}
	testenv.Must(t, testenv.ErrorOf(first.Set(t.Context(), "k", []byte("two"), cachesidecar.SetOptions{})))
	for _, c := range all {
		isShared(t, c, "k", "two")
	}
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	for range 4 {
		r := p.dial()
		q := &wire.Request{Op: wire.OpHits, Keys: slices.Repeat([][]byte{[]byte("k")}, wire.MaxKeys), Hits: wire.Hits{Shared: 16 * wire.MaxKeys}}
		flood.Go(func() {
			for ctx.Err() == nil {
				if _, err := r.try(q); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 1000 {
		key := fmt.Sprint("other", i)
		testenv.Must(t, testenv.ErrorOf(first.Set(t.Context(), key, []byte("v"), cachesidecar.SetOptions{})))
		isShared(t, first, key, "v")
	}
	stop()
	flood.Wait()
}
