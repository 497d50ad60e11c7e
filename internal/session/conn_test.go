package session_test

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

// conn is a client that speaks the bare protocol.
type conn struct {
	net.Conn
	t  testing.TB
	r  *bufio.Reader
	id uint64
}

func newConn(t testing.TB, nc net.Conn) *conn { return &conn{nc, t, bufio.NewReader(nc), 0} }

// write sends bytes.
func (c *conn) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// send sends a request and returns its number.
func (c *conn) send(q wire.Request) uint64 {
	c.t.Helper()
	c.id++
	q.ID = c.id
	c.write(wire.AppendRequest(nil, &q))
	return q.ID
}

// frame returns the next answer.
func (c *conn) frame() []byte {
	c.t.Helper()
	_ = c.SetReadDeadline(testenv.Deadline())
	var head [wire.LengthSize]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		c.t.Fatal(err)
	}
	frame := make([]byte, wire.FrameLength(head[:]))
	if _, err := io.ReadFull(c.r, frame); err != nil {
		c.t.Fatal(err)
	}
	return frame
}

func (c *conn) decode(op wire.Op, frame []byte) wire.Reply {
	c.t.Helper()
	var r wire.Reply
	if err := wire.DecodeReply(op, frame, &r); err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c *conn) receive(op wire.Op) wire.Reply {
	c.t.Helper()
	return c.decode(op, c.frame())
}

// call sends a request and returns its answer, which must be the next.
func (c *conn) call(q wire.Request) wire.Reply {
	c.t.Helper()
	id := c.send(q)
	r := c.receive(q.Op)
	if r.ID != id {
		c.t.Fatalf("answer to %d, want %d", r.ID, id)
	}
	return r
}

// The requests that most tests make, in the default namespace, with its TTL.

func (c *conn) get(key string) wire.Reply {
	c.t.Helper()
	return c.call(wire.Request{Op: wire.OpGet, Key: []byte(key)})
}

func (c *conn) set(key string, value []byte) {
	c.t.Helper()
	r := c.call(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: value, TTLMS: wire.TTLDefault})
	onehost.Is(c.t, "SET "+key, r, wire.OK, "")
}

func leaseOf(key string, timeout time.Duration) wire.Request {
	return wire.Request{Op: wire.OpLease, Key: []byte(key), TimeoutMS: uint32(timeout.Milliseconds())}
}

func fillOf(key string, token []byte, value string) wire.Request {
	return wire.Request{Op: wire.OpFill, Key: []byte(key), Token: token, Value: []byte(value), TTLMS: wire.TTLDefault}
}

func keys(names ...string) (list [][]byte) {
	for _, n := range names {
		list = append(list, []byte(n))
	}
	return list
}
