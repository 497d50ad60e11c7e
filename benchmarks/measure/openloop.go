package measure

import (
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/load"
)

// openLoop sends requests at fixed moments, however long the answers take. A connection has a thread
// of its own, which waits in the kernel, so that the client adds little to a latency. A request that
// is due while the one before it is under way is sent late, and its latency counts from when it was
// due.
type openLoop struct {
	protocol load.Protocol
	conns    []*openConn
}

type openConn struct {
	socket  io.ReadWriter
	buf     []byte
	request []byte
	latency *hdrhistogram.Histogram // ns
	misses  int
}

// openLoop connects until the end of the scope.
func (b *Bench) openLoop(dial func() (net.Conn, error), p load.Protocol, conns int) *openLoop {
	l := &openLoop{protocol: p}
	for range conns {
		nc := b.connect(dial, p)
		uc, ok := nc.(*net.UnixConn)
		if !ok {
			fail("%T: an open loop needs a Unix socket", nc)
		}
		f := must(uc.File())
		b.closes(func() { _ = f.Close() })
		l.conns = append(l.conns, &openConn{ // Fd makes it a socket that blocks
			socket: blocking(f.Fd()), buf: make([]byte, 16<<10), latency: load.NewHistogram(),
		})
	}
	return l
}

// run sends perSecond requests a second over all connections for a time, and returns their latencies.
func (l *openLoop) run(
	ctx context.Context, perSecond float64, d time.Duration, key func(conn, n int) uint64,
) (*hdrhistogram.Histogram, error) {
	gap := time.Duration(float64(len(l.conns)) / perSecond * float64(time.Second))
	start := time.Now().Add(10 * time.Millisecond)
	end := start.Add(d)
	var g errgroup.Group
	for i, c := range l.conns {
		g.Go(func() error { // ends with the time
			runtime.LockOSThread() // not unlocked: the thread ends with its slack
			if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
				return err
			}
			c.latency.Reset()
			due := start.Add(gap * time.Duration(i) / time.Duration(len(l.conns)))
			for n := 0; due.Before(end) && ctx.Err() == nil; n++ {
				sleepUntil(due)
				if err := c.exchange(l.protocol, key(i, n)); err != nil {
					return err
				}
				_ = c.latency.RecordValue(int64(time.Since(due))) // fails only above a minute
				due = due.Add(gap)
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	all := load.NewHistogram()
	for _, c := range l.conns {
		if all.Merge(c.latency); c.misses > 0 {
			return nil, fmt.Errorf("%d requests were no hits, want all", c.misses)
		}
	}
	return all, nil
}

// sleepUntil sleeps in the kernel, because the runtime's timers may be a millisecond late.
func sleepUntil(t time.Time) {
	for {
		d := time.Until(t)
		if d <= 0 {
			return
		}
		ts := syscall.NsecToTimespec(int64(d))
		_ = syscall.Nanosleep(&ts, nil) // a signal may end it early
	}
}

// exchange sends one request and reads its answer.
func (c *openConn) exchange(p load.Protocol, key uint64) error {
	c.request = p.Append(c.request[:0], 0, key)
	hits, err := load.Exchange(c.socket, p, c.request, 1, &c.buf)
	c.misses += 1 - hits
	return err
}

// blocking is a socket that Go's scheduler knows nothing of.
type blocking int

func (s blocking) Write(b []byte) (int, error) { return syscall.Write(int(s), b) }

func (s blocking) Read(b []byte) (int, error) {
	n, err := syscall.Read(int(s), b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}
