//go:build !race

// The race detector makes sync.Pool drop items at random.

package server

import (
	"net"
	"runtime"
	"strings"
	"testing"
)

// TestIdleNeedsLittle checks that an idle connection uses little memory, even after a
// frame longer than its buffer. A connection that is not over a file descriptor has to
// wait in a read.
func TestIdleNeedsLittle(t *testing.T) {
	const conns = 200
	s := newShared(Limits{})
	var ends []net.Conn
	done := make(chan error, conns)
	before := heapInUse()
	for range conns {
		near, far := net.Pipe()
		c := newConn(far, s, s.limits.Budget.Open("", ""))
		c.handler = &echoHandler{echo: newEcho()}
		go func() { done <- c.serve() }()
		ends = append(ends, near)
	}
	long := getFrame(2, strings.Repeat("k", 1000))
	for _, near := range ends {
		for _, exchange := range []struct {
			frames  []byte
			answers int
		}{{getFrame(1, "x"), 1}, {long, 1}, {append(getFrame(1, "x"), long...), 2}} {
			// Ends before the last answer has come.
			go func() { _, _ = near.Write(exchange.frames) }()
			for range exchange.answers {
				readReply(t, near)
			}
		}
	}
	each := (heapInUse() - before) / conns
	t.Logf("an idle connection holds %d bytes", each)
	if each > 16<<10 {
		t.Errorf("that is too much")
	}
	for _, near := range ends {
		near.Close()
		<-done
	}
}

// heapInUse returns the heap in use when the pools are empty too, in bytes.
func heapInUse() int64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
