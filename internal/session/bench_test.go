package session_test

import (
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// BenchmarkServe measures a batch's way through a session, without the socket.
func BenchmarkServe(b *testing.B) {
	for _, n := range []int{1, 32} {
		for _, op := range servedOps {
			b.Run(fmt.Sprint(op, "x", n), func(b *testing.B) {
				h, conn, frames := serveSetup(b, op, 10_000)
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					at := i % (len(frames) - n)
					h.Batch()
					testenv.Must(b, h.Serve(conn, frames[at:at+n]))
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
func serveSetup(t testing.TB, op string, keys int) (server.Handler, *server.Conn, [][]byte) {
	h := doors.Serve(t, onehost.Config{L2Size: 64 << 20})
	handler := server.Handler(h.Sessions.Of(h.Access.Caller(unixsock.Peer{}), nil))
	if answersOf[op] != "" {
		near, far := net.Pipe()
		t.Cleanup(func() { _, _ = near.Close(), far.Close() })
		var err error
		door := &memcached.Endpoint{Sessions: h.Sessions, Namespace: session.DefaultNamespace, MaxValue: h.Config.MaxValue}
		if handler, err = door.Handler(near); err != nil {
			t.Fatal(err)
		}
	}
	conn := &server.Conn{Out: make([]byte, 0, 64<<10)}
	var frames [][]byte
	for i := range keys {
		f, store := requestOf(op, i)
		handler.Batch()
		testenv.Must(t, handler.Serve(conn, [][]byte{store}))
		handler.Served()
		conn.Out = conn.Out[:0]
		frames = append(frames, f)
	}
	return handler, conn, frames
}

// TestHitAllocatesNothing checks the guarantee of the hot path, in the socket's protocol and
// in memcached's.
func TestHitAllocatesNothing(t *testing.T) {
	for _, op := range servedOps {
		for _, n := range []int{1, 32} {
			h, conn, frames := serveSetup(t, op, 1000)
			at, answer := 0, []byte(answersOf[op])
			testenv.Allocates(t, fmt.Sprintf("%d × %s", n, op), 0, 200, func() {
				h.Batch()
				testenv.Must(t, h.Serve(conn, frames[at:at+n]))
				h.Served()
				if len(conn.Out) == 0 || !bytes.HasPrefix(conn.Out, answer) {
					t.Fatalf("%s: got %q, want %q", op, conn.Out, answer)
				}
				conn.Out = conn.Out[:0]
				at = (at + n) % (len(frames) - n)
			})
		}
	}
}
