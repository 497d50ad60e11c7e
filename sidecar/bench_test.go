package sidecar

import (
	"fmt"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// BenchmarkServe measures a batch's way through a session, without the socket.
func BenchmarkServe(b *testing.B) {
	for _, n := range []int{1, 32} {
		for _, op := range []string{"GET", "SET"} {
			b.Run(fmt.Sprint(op, "x", n), func(b *testing.B) {
				h, conn, frames := serveSetup(b, op)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					at := i % (len(frames) - n)
					h.Batch()
					if err := h.Serve(conn, frames[at:at+n]); err != nil {
						b.Fatal(err)
					}
					h.Served()
					conn.Out = conn.Out[:0]
					i += n
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(i), "ns/request")
			})
		}
	}
}

// serveSetup returns a session and requests for it. Every GET is a hit.
func serveSetup(t testing.TB, op string) (rpc.Handler, *rpc.Conn, [][]byte) {
	s, err := New(Config{NoSocket: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.engine.Store.Close() })
	h := s.doors.Of(byRoot(s.engine), nil)
	set, get := load.Sidecar{KeySize: 16, Value: make([]byte, 100)}, load.Sidecar{KeySize: 16}
	conn := &rpc.Conn{Out: make([]byte, 0, 64<<10)}
	var frames [][]byte
	for i := range 10_000 {
		f := set.Append(nil, i, uint64(i))[wire.LengthSize:]
		h.Batch()
		if err := h.Serve(conn, [][]byte{f}); err != nil {
			t.Fatal(err)
		}
		h.Served()
		conn.Out = conn.Out[:0]
		if op == "GET" {
			f = get.Append(nil, i, uint64(i))[wire.LengthSize:]
		}
		frames = append(frames, f)
	}
	return h, conn, frames
}
