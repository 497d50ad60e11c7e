//go:build !race

// The race detector makes allocations longer.

package server

import (
	"net"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestAccountIsTheHeap checks for each use that the charged bytes are the growth of the
// heap.
func TestAccountIsTheHeap(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	testenv.ReadsClock(t, 50*time.Millisecond, "the heap is measured once nothing moves; if it still did, again")
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
			// On a busy machine what another test has given back may still be in the heap when
			// it is first measured.
			for tries := 0; !accountIsTheHeap(t, tc.conns, tc.fill); tries++ {
				if tries == 10 {
					t.Fatal("the account is not within a tenth of the heap")
				}
			}
		})
	}
}

// accountIsTheHeap fills connections, and says whether the account and the growth of the heap were
// the same, within a tenth, once all had come.
func accountIsTheHeap(t *testing.T, n int, fill func(t *testing.T, nc net.Conn)) (same bool) {
	back := newEcho()
	_, dialBack, _ := serve(t, back, Limits{})
	front := newEcho()
	front.to, front.patience = newTestClient(t, dialBack, rpc.ClientConfig{}), time.Minute
	s, dial, _ := serve(t, front, Limits{WriteTimeout: time.Minute})
	conns := make([]net.Conn, n)
	for i := range conns { // brings each to its idle state
		conns[i] = dial()
		_ = conns[i].(*net.UnixConn).SetReadBuffer(4096)
		pipeline(t, conns[i], 1, "x")
		readReply(t, conns[i])
	}
	before := heapInUse()
	for _, nc := range conns {
		fill(t, nc)
	}
	was := int64(-1)
	for looks := 0; looks < 200 && !same; looks++ {
		time.Sleep(50 * time.Millisecond)
		has := s.Limits().Budget.Stats().Total()
		now := has + s.Stats().BytesIn
		still := now == was && has > 1<<20
		if was = now; !still { // on a busy machine it may seem to stand still
			continue
		}
		grown := heapInUse() - before
		t.Logf("the heap has grown by %d KiB, %d KiB are accounted for: %.3f", grown>>10, has>>10, float64(has)/float64(grown))
		same = has >= grown*9/10 && has <= grown*11/10
	}
	for _, nc := range conns {
		nc.Close()
	}
	allGiven(t, s)
	return same
}
