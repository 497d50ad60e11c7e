package doors

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Conn is a client that speaks the bare protocol.
type Conn struct {
	net.Conn
	T  testing.TB
	r  *bufio.Reader
	id uint64
}

func NewConn(t testing.TB, nc net.Conn) *Conn { return &Conn{nc, t, bufio.NewReader(nc), 0} }

// Send sends bytes.
func (c *Conn) Send(b []byte) {
	c.T.Helper()
	if _, err := c.Write(b); err != nil {
		c.T.Fatal(err)
	}
}

// Begin sends a request and returns its number.
func (c *Conn) Begin(q wire.Request) uint64 {
	c.T.Helper()
	c.id++
	q.ID = c.id
	c.Send(wire.AppendRequest(nil, &q))
	return q.ID
}

// Frame returns the next answer.
func (c *Conn) Frame() []byte {
	c.T.Helper()
	_ = c.SetReadDeadline(testenv.Deadline())
	var head [wire.LengthSize]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		c.T.Fatal(err)
	}
	frame := make([]byte, wire.FrameLength(head[:]))
	if _, err := io.ReadFull(c.r, frame); err != nil {
		c.T.Fatal(err)
	}
	return frame
}

func (c *Conn) Decode(op wire.Op, frame []byte) wire.Reply {
	c.T.Helper()
	var r wire.Reply
	testenv.Must(c.T, wire.DecodeReply(op, frame, &r))
	return r
}

func (c *Conn) Receive(op wire.Op) wire.Reply {
	c.T.Helper()
	return c.Decode(op, c.Frame())
}

// Call sends a request and returns its answer, which must be the next.
func (c *Conn) Call(q wire.Request) wire.Reply {
	c.T.Helper()
	id := c.Begin(q)
	r := c.Receive(q.Op)
	if r.ID != id {
		c.T.Fatalf("answer to %d, want %d", r.ID, id)
	}
	return r
}

// The requests that most tests make, in the default namespace, with its TTL.

func (c *Conn) Get(key string) wire.Reply {
	c.T.Helper()
	return c.Call(wire.Request{Op: wire.OpGet, Key: []byte(key)})
}

func (c *Conn) Set(key string, value []byte) {
	c.T.Helper()
	r := c.Call(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: value, TTLMS: wire.TTLDefault})
	onehost.Is(c.T, "SET "+key, r, wire.OK, "")
}

func LeaseOf(key string, timeout time.Duration) wire.Request {
	return wire.Request{Op: wire.OpLease, Key: []byte(key), TimeoutMS: uint32(timeout.Milliseconds())}
}

func FillOf(key string, token []byte, value string) wire.Request {
	return wire.Request{Op: wire.OpFill, Key: []byte(key), Token: token, Value: []byte(value), TTLMS: wire.TTLDefault}
}

func Keys(names ...string) (list [][]byte) {
	for _, n := range names {
		list = append(list, []byte(n))
	}
	return list
}
