package main

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// bounded watches the process's memory. most ends the watch, fails the test if the
// process grew beyond the configured sizes plus 256 MiB, which an attack may cost, and
// returns the peak. Far beyond that, the process is killed at once.
func (p *process) bounded(sizes int64) (most func() int64) {
	p.t.Helper()
	var mu sync.Mutex
	var peak int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for {
			if n := resident(p.cmd.Process.Pid); n > 0 {
				mu.Lock()
				peak = max(peak, n)
				mu.Unlock()
				if n > sizes+1<<30 { // far beyond: other programs need the machine too
					_ = p.cmd.Process.Kill()
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		if peak > sizes+256<<20 {
			p.t.Errorf("the process grew to %d MiB, want at most %d", peak>>20, sizes>>20+256)
		}
		return peak
	}
}

// resident returns a process's memory in bytes, or zero if it is not known.
func resident(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	var size, pages int64
	if _, e := fmt.Sscan(string(b), &size, &pages); err != nil || e != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// sizesOf is what a sidecar without settings may use: l1_size, l2_size and buffer_size.
const sizesOf = (64 + 256 + 128) << 20

// TestLengthyThousandsOfHalfFrames checks that thousands of half frames of 60 KB stay within the
// budget while other clients are served.
func TestLengthyThousandsOfHalfFrames(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	const n = 4000
	needFiles(t, n+1000)
	p := runSidecar(t)
	check := p.bystander()
	watcher := p.dial()
	most := p.bounded(sizesOf)
	half := wire.AppendRequest(nil, &wire.Request{ID: 9, Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 60_000), TTLMS: wire.TTLDefault})
	half = half[:len(half)-100]
	conns := dialMany(t, p, n, p.tryConnect)
	for _, c := range conns {
		if _, err := c.nc.Write(half); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
	}
	testenv.Succeeds(t, "all to have come", func() error {
		if st := watcher.stats().Connections; st.BytesIn < n*int64(len(half)) {
			return fmt.Errorf("%d bytes have", st.BytesIn)
		}
		return nil
	})
	// Each connection that must release memory does so in its own time, and meanwhile
	// more connections than necessary may be asked to. But half of the memory stays in
	// use.
	st := watcher.stats().Connections
	if st.BufferBytes > 128<<20 || st.Buffers.Frames < 64<<20 || st.Dropped < n/4 {
		t.Errorf("%d bytes are held, %d frames dropped: %+v", st.BufferBytes, st.Dropped, st.Buffers)
	}
	watcher.must(&wire.Request{Op: wire.OpSet, Key: []byte("small"), Value: make([]byte, 1000), TTLMS: wire.TTLDefault})
	check()
	for _, c := range conns {
		c.close()
	}
	p.onlyOpen(watcher, 1)
	t.Logf("at most %d MiB resident", most()>>20)
}

// TestLengthyAnswersOfOtherHostsUnread reads another host's values on connections that never
// read the answers.
func TestLengthyAnswersOfOtherHostsUnread(t *testing.T) {
	testenv.Takes(t, 15*time.Second)
	t.Parallel()
	a := runCluster(t, "a", "b")[0]
	check := a.bystander()
	c := a.dial()
	var keys [][]byte
	for i := 0; len(keys) < 4; i++ {
		key := fmt.Appendf(nil, "key%d", i)
		var at cachesidecar.Place
		if err := wire.UnmarshalBody(c.must(&wire.Request{Op: wire.OpRing, Key: key}).Body, &at); err != nil {
			t.Fatal(err)
		}
		if at.AssignedOwner == "b" {
			keys = append(keys, key)
			c.must(&wire.Request{Op: wire.OpSet, Key: key, Value: make([]byte, 1_000_000), TTLMS: wire.TTLDefault, TimeoutMS: 30_000})
		}
	}
	most := a.bounded(sizesOf - 240<<20) // l2_size is 16 MiB
	var unread []*conn
	for range 4 {
		d := a.dial()
		unread = append(unread, d)
		var q []byte
		for i := range 1000 {
			q = wire.AppendRequest(q, &wire.Request{ID: uint64(i) + 10, Op: wire.OpGet, Key: keys[i%4], Options: wire.Fresh, TimeoutMS: 3_600_000})
		}
		d.write(q)
	}
	testenv.Succeeds(t, "answers to wait", func() error {
		// Reads stop at 3.7 MiB of answers on each connection.
		if st := c.stats().Connections; st.Buffers.Answers < 12<<20 {
			return fmt.Errorf("%+v", st.Buffers)
		}
		return nil
	})
	for range 50 { // while more answers come
		if st := c.stats().Connections; st.BufferBytes > 128<<20 {
			t.Fatalf("%d bytes are held: %+v", st.BufferBytes, st.Buffers)
		}
		small := setRequest("small", "v")
		small.TimeoutMS = 5000 // half of the time until the clients are cut off
		c.must(small)
	}
	check()
	testenv.Succeeds(t, "the clients to be cut off, and their memory back", func() error {
		if st := c.stats().Connections; st.SlowReaders != 4 || st.BufferBytes-st.Buffers.Sockets > 1<<20 {
			return fmt.Errorf("%d slow readers, %+v", st.SlowReaders, st.Buffers)
		}
		return nil
	})
	for _, d := range unread {
		d.close()
	}
	a.onlyOpen(c, 1)
	t.Logf("at most %d MiB resident", most()>>20)
}
