package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// needFiles makes sure that this process and its children may open n files.
func needFiles(t *testing.T, n uint64) {
	t.Helper()
	var l syscall.Rlimit
	testenv.Must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l))
	if l.Cur >= n {
		return
	}
	raised := l
	raised.Cur, raised.Max = n, max(n, l.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		t.Skipf("%d open files are allowed, %d are needed: %v", l.Max, n, err)
	}
	t.Cleanup(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l) })
}

// dialMany opens connections, some at a time, so that the listen backlog does not
// overflow.
func dialMany(t *testing.T, p *process, n int, dial func() (*conn, error)) []*conn {
	t.Helper()
	conns := make([]*conn, n)
	var g errgroup.Group
	g.SetLimit(64)
	for i := range conns {
		g.Go(func() (err error) {
			conns[i], err = dial()
			return err
		})
	}
	err := g.Wait()
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				c.close()
			}
		}
	})
	testenv.Must(t, err)
	return conns
}

func TestLengthyTenThousandConnections(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	const n = 10_000
	needFiles(t, n+1000)
	p := runSidecar(t)
	check := p.bystander()
	watcher := p.dial()
	before := watcher.stats().Process.ResidentBytes
	conns := dialMany(t, p, n, p.tryDial)
	idle := watcher.stats()
	if idle.Connections.Open != n+2 {
		t.Errorf("%d connections are open, want %d", idle.Connections.Open, n+2)
	}
	t.Logf("%d connections take %d bytes each", n, (idle.Process.ResidentBytes-before)/n)
	for i, c := range conns { // all send before the first one reads
		if err := c.send(ping()); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	for i, c := range conns {
		if r, err := c.read(wire.OpPing); err != nil || r.Status != wire.OK || r.ID != c.id {
			t.Fatalf("PING on connection %d: %+v, %v", i, r, err)
		}
	}
	if used := watcher.stats().Process.ResidentBytes - before; used > n*64<<10 {
		t.Errorf("%d connections take %d bytes, want less than 64 KiB each", n, used)
	}
	check()
	for _, c := range conns {
		c.close()
	}
	p.onlyOpen(watcher, 1)
	testenv.Succeeds(t, "the end of the goroutines", func() error {
		if n := watcher.stats().Process.Goroutines; n > 100 {
			return fmt.Errorf("%d are left", n)
		}
		return nil
	})
}

// TestConnectionLimit checks that a connection over the limit is closed at once, and that
// the others stay.
func TestConnectionLimit(t *testing.T) {
	p := runSidecar(t, "--max-connections", "10")
	conns := dialMany(t, p, 9, p.tryDial) // one place is for other users
	c, err := p.tryDial()
	if err == nil {
		c.close()
		t.Error("a tenth connection of one user is served")
	}
	for _, c := range conns {
		c.must(ping())
	}
	o := p.at("get", "k")
	if o.status != exitConnect || !strings.Contains(o.err, "no HELLO from the sidecar") {
		t.Errorf("the command: %v", o)
	}
	conns[0].close()
	testenv.Succeeds(t, "a connection to be free", func() error {
		c, err := p.tryDial()
		if err == nil {
			conns[0] = c
		}
		return err
	})
}

// TestLengthyClientThatNeverReads checks that a client that never reads is cut off after the
// write timeout of 10 s. Its memory is freed, and no other client notices. What the kernel still
// has for it counts until it goes.
func TestLengthyClientThatNeverReads(t *testing.T) {
	testenv.Takes(t, 15*time.Second)
	testenv.ReadsClock(t, 8*time.Second, "a client that never reads is not cut off sooner than after 10 s")
	t.Parallel()
	p := runSidecar(t)
	check := p.bystander()
	watcher := p.dial()
	watcher.must(setRequest("large", strings.Repeat("v", 4<<20)))
	start := time.Now()
	for _, op := range []wire.Op{wire.OpGet, wire.OpMGet} { // of both kinds
		c := p.dial()
		var b []byte
		for i := range 1000 {
			q := &wire.Request{ID: uint64(i), Op: op, Key: []byte("large"), Keys: [][]byte{[]byte("large"), []byte("large")}}
			b = wire.AppendRequest(b, q)
		}
		c.write(b)
	}
	testenv.Succeeds(t, "both clients to be cut off", func() error {
		if st := watcher.stats().Connections; st.SlowReaders != 2 || st.BufferBytes != st.Buffers.Sockets {
			return fmt.Errorf("%d slow readers, %+v", st.SlowReaders, st.Buffers)
		}
		return nil
	})
	if took := time.Since(start); took < 8*time.Second {
		t.Errorf("cut off after %v already", took)
	}
	if st := watcher.stats().Connections; st.Open != 4 || st.Buffers.Sockets == 0 {
		t.Errorf("%d open, %+v: what the two have not read counts", st.Open, st.Buffers)
	}
	check()
	p.terminate() // although the two are there; log lines are written a moment later
	if n := strings.Count(p.log.String(), "the peer does not take its answers"); n != 2 {
		t.Errorf("%d log lines, want 2", n)
	}
}
