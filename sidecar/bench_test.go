package sidecar

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// BenchmarkServe measures a batch's way through a session, without the socket.
func BenchmarkServe(b *testing.B) {
	for _, n := range []int{1, 32} {
		for _, op := range servedOps {
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

// servedOps are requests of the socket's protocol, and commands of memcached's.
var servedOps = []string{"GET", "SET", "get", "get of 4", "set", "mg", "ms"}

// answersOf are the beginnings of memcached's answers to servedOps.
var answersOf = map[string]string{
	"get": "VALUE ", "get of 4": "VALUE ", "set": "STORED\r\n", "mg": "VA ", "ms": "HD\r\n",
}

// requestOf returns request number i of one of servedOps, and the request before it that
// stores its key.
func requestOf(op string, i int) (frame, store []byte) {
	get, set := load.Sidecar{KeySize: 16}, load.Sidecar{KeySize: 16, Value: make([]byte, 100)}
	key, value := load.Key(nil, uint64(i), 16), strings.Repeat("v", 100)
	switch store = set.Append(nil, i, uint64(i))[wire.LengthSize:]; op {
	case "GET":
		return get.Append(nil, i, uint64(i))[wire.LengthSize:], store
	case "SET":
		return store, store
	}
	store = fmt.Appendf(nil, "set %s 0 0 100\r\n%s\r\n", key, value)
	switch op {
	case "get":
		frame = fmt.Appendf(nil, "get %s\r\n", key)
	case "get of 4":
		frame = []byte("get")
		for j := range 4 {
			frame = load.Key(append(frame, ' '), uint64(max(i-j, 0)), 16)
		}
		frame = append(frame, "\r\n"...)
	case "mg":
		frame = fmt.Appendf(nil, "mg %s v\r\n", key)
	case "ms":
		frame = fmt.Appendf(nil, "ms %s 100\r\n%s\r\n", key, value)
	default:
		frame = store
	}
	return frame, store
}

// serveSetup returns a session and requests for it. Every read is a hit.
func serveSetup(t testing.TB, op string) (rpc.Handler, *rpc.Conn, [][]byte) {
	s, err := New(Config{NoSocket: true, Memcached: "127.0.0.1:0"}) // it does not listen
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.engine.Store.Close() })
	h := rpc.Handler(s.doors.Of(byRoot(s.engine), nil))
	if answersOf[op] != "" {
		near, far := net.Pipe()
		t.Cleanup(func() { _, _ = near.Close(), far.Close() })
		if h, err = s.doors.Text(near, s.memcached.door); err != nil {
			t.Fatal(err)
		}
	}
	conn := &rpc.Conn{Out: make([]byte, 0, 64<<10)}
	var frames [][]byte
	for i := range 10_000 {
		f, store := requestOf(op, i)
		h.Batch()
		if err := h.Serve(conn, [][]byte{store}); err != nil {
			t.Fatal(err)
		}
		h.Served()
		conn.Out = conn.Out[:0]
		frames = append(frames, f)
	}
	return h, conn, frames
}
