//go:build !race

// The race detector makes allocations longer.

package rpc

import (
	"net"
	"testing"
	"time"
)

// TestAccountIsTheHeap checks for each use that the charged bytes are the growth of the
// heap.
func TestAccountIsTheHeap(t *testing.T) {
	for _, tc := range []struct {
		name  string
		conns int
		fill  func(t *testing.T, nc net.Conn)
	}{
		{"half frames of 60 KB", 200, func(t *testing.T, nc net.Conn) { startFrame(t, nc, 1, 62_000, 60_000) }},
		{"half frames of 8 MiB", 6, func(t *testing.T, nc net.Conn) { startFrame(t, nc, 1, 8<<20, 5<<20) }},
		{"answers that are short", 60, func(t *testing.T, nc net.Conn) { pipeline(t, nc, 200, "big 20000") }},
		{"answers that are long", 8, func(t *testing.T, nc net.Conn) { pipeline(t, nc, 5, "big 3000000") }},
		{"answers of another server", 4, func(t *testing.T, nc net.Conn) { pipeline(t, nc, 20, "ask big 1000000") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			back := newEcho()
			_, dialBack, _ := serve(t, back, Limits{})
			front := newEcho()
			front.to, front.patience = newTestClient(t, dialBack, ClientConfig{}), time.Minute
			s, dial, _ := serve(t, front, Limits{WriteTimeout: time.Minute})
			conns := make([]net.Conn, tc.conns)
			for i := range conns { // brings each to its idle state
				conns[i] = dial()
				_ = conns[i].(*net.UnixConn).SetReadBuffer(4096)
				pipeline(t, conns[i], 1, "x")
				readReply(t, conns[i])
			}
			before := heapInUse()
			for _, nc := range conns {
				tc.fill(t, nc)
			}
			was := int64(-1)
			eventually(t, "all to have come, and the account to be within a tenth of the heap", s, func(Stats) bool {
				time.Sleep(50 * time.Millisecond)
				has := s.Limits().Budget.Stats().Total()
				now := has + s.Stats().BytesIn
				same := now == was && has > 1<<20
				if was = now; !same { // on a busy machine it may seem to stand still
					return false
				}
				grown := heapInUse() - before
				t.Logf("the heap has grown by %d KiB, %d KiB are accounted for: %.3f", grown>>10, has>>10, float64(has)/float64(grown))
				return has >= grown*9/10 && has <= grown*11/10
			})
			for _, nc := range conns {
				nc.Close()
			}
			allGiven(t, s)
		})
	}
}
