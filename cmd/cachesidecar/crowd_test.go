package main

import (
	"errors"
	"fmt"
	"strings"
	"sync"
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
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
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
	if err != nil {
		t.Fatal(err)
	}
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

func TestThousandDroppedAtOnce(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	p := runSidecar(t)
	check := p.bystander()
	watcher := p.dial()
	goroutines := watcher.stats().Process.Goroutines
	for round, dial := range []func() (*conn, error){p.tryConnect, p.tryDial} {
		conns := dialMany(t, p, 1000, dial)
		var g sync.WaitGroup
		for i, c := range conns {
			g.Go(func() {
				switch i % 3 { // some with a request under way, some within a frame
				case 0:
					_ = c.send(getRequest("bystander"))
				case 1:
					_, _ = c.nc.Write([]byte{0, 0, 1, 0, 0x95})
				}
				c.close()
			})
		}
		g.Wait()
		p.onlyOpen(watcher, 2)
		testenv.Succeeds(t, "their goroutines to end", func() error {
			if n := watcher.stats().Process.Goroutines; n > goroutines+5 {
				return fmt.Errorf("%d goroutines, %d before (round %d)", n, goroutines, round)
			}
			return nil
		})
	}
	check()
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

// TestLengthyByteASecond checks that a client that sends a byte a second delays no other client,
// and is cut off when its frame takes longer than 30 s.
func TestLengthyByteASecond(t *testing.T) {
	testenv.Takes(t, 35*time.Second)
	testenv.ReadsClock(t, 25*time.Second, "a byte a second: a frame may take 30 s, and its client is not cut off sooner")
	t.Parallel()
	p := runSidecar(t)
	check := p.bystander()
	watcher := p.dial()
	large := wire.AppendRequest(nil, &wire.Request{ID: 9, Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 8<<20), TTLMS: wire.TTLDefault})
	small := wire.AppendRequest(nil, setRequest("k", strings.Repeat("v", 100)))
	var slowly []*conn
	// Half of them send a large frame, which uses its share of the memory.
	for range 4 {
		slowly = append(slowly, p.dial(), p.dial())
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	start := time.Now()
	cut := make([]bool, len(slowly))
	for i, left := 0, len(slowly); left > 0; i++ {
		for j, c := range slowly {
			if cut[j] {
				continue
			}
			bytes := small
			if j%2 == 0 {
				bytes = large
			}
			_ = c.nc.SetDeadline(testenv.Deadline())
			if _, err := c.nc.Write(bytes[i : i+1]); err != nil {
				if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
					t.Fatal(err)
				}
				cut[j] = true
				left--
			}
		}
		<-tick.C
	}
	if took := time.Since(start); took < 25*time.Second {
		t.Errorf("cut off after %v already", took)
	}
	testenv.Succeeds(t, "their memory to come back", func() error {
		if st := watcher.stats().Connections; st.SlowFrames != int64(len(slowly)) || st.BufferBytes != 0 {
			return fmt.Errorf("%d slow frames, %d bytes of buffers are held", st.SlowFrames, st.BufferBytes)
		}
		return nil
	})
	check()
}

// TestLengthyLargeFramesAreBounded checks that announced frames take no memory until they come.
// Frames that come take the available memory; the others are answered BUSY at once, and
// their connections continue.
func TestLengthyLargeFramesAreBounded(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	p := runSidecar(t, "--buffer-size", "16MiB", "--max-value", "2MiB")
	check := p.bystander()
	watcher := p.dial()
	before := watcher.stats().Process.ResidentBytes
	set := wire.AppendRequest(nil, &wire.Request{ID: 9, Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 1<<20), TTLMS: wire.TTLDefault})
	var held []*conn
	for range 40 { // 40 MiB are announced, 14 of 16 MiB may be used
		c := p.dial()
		c.write(set[:64<<10])
		held = append(held, c)
	}
	if n := watcher.stats().Connections.BufferBytes; n > 40*(128<<10) {
		t.Errorf("%d bytes are held for 40 frames of which 64 KiB have come", n)
	}
	watcher.must(&wire.Request{Op: wire.OpSet, Key: []byte("large"), Value: make([]byte, 1<<20), TTLMS: wire.TTLDefault})
	for _, c := range held {
		c.write(set[64<<10 : len(set)-100])
	}
	st := watcher.stats()
	if n := st.Connections.BufferBytes; n > 16<<20 || n < 8<<20 {
		t.Errorf("%d bytes are held, of 16 MiB", n)
	}
	if grown := st.Process.ResidentBytes - before; grown > 64<<20 {
		t.Errorf("the process grew by %d bytes", grown)
	}
	watcher.must(setRequest("small", "v"))
	busy := 0
	for _, c := range held {
		c.write(append(set[len(set)-100:len(set):len(set)], wire.AppendRequest(nil, &wire.Request{ID: 10, Op: wire.OpPing})...))
		r, err := c.read(wire.OpSet)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status == wire.Busy {
			busy++
		} else if r.Status != wire.OK {
			t.Fatalf("%v %s", r.Status, r.Message)
		}
		if r, err := c.read(wire.OpPing); err != nil || r.ID != 10 {
			t.Fatalf("behind it: %+v, %v", r, err)
		}
	}
	if st := watcher.stats().Connections; busy == 0 || busy == len(held) || st.Dropped != int64(busy) || st.Buffers.Refused == 0 { // on a slow machine half a frame may be dropped for another
		t.Errorf("%d of %d frames were BUSY: %+v", busy, len(held), st)
	}
	testenv.Succeeds(t, "the memory to come back", func() error {
		if n := watcher.stats().Connections.BufferBytes; n != 0 {
			return fmt.Errorf("%d bytes are held", n)
		}
		return nil
	})
	check()
}
