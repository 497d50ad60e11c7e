//go:build !race

// The race detector makes sync.Pool drop what it is given at random.

package rpc

import (
	"net"
	"runtime"
	"strings"
	"testing"
)

// A connection that is not over a file descriptor has to wait in a read, and
// holds little meanwhile, also after a frame that was longer than that.
func TestIdleHoldsLittle(t *testing.T) {
	const conns = 200
	s := newShared(Limits{})
	var ends []net.Conn
	done := make(chan error, conns)
	before := heapInUse()
	for range conns {
		near, far := net.Pipe()
		c := newConn(far, s, "", "")
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
			go func() { _, _ = near.Write(exchange.frames) }() // ends before the last answer has come
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

// heapInUse is what is left once pools are empty too.
func heapInUse() int64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
