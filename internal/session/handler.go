package session

import (
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Handler serves a connection in the socket's protocol: an app's, or another sidecar's.
type Handler struct {
	*Session
	Namespace []byte // the connection's default namespace

	hello  bool
	brief  bool    // it asks for the shared memory: the app may end before it has it
	passed *passed // the latest descriptor of the shared memory; nil: none
	order  order
	tokens tokens
	queued queued

	watching atomic.Int64 // WATCHes that wait
	leasing  atomic.Int64 // LEASEs that wait
}

func (c *Handler) nameOf(q *wire.Request) []byte {
	if q.Namespace == nil {
		return c.Namespace
	}
	return q.Namespace
}

// keys returns the hashes of the keys of c.Req. They are valid until the next call.
func (c *Handler) keys() []kv.Hash {
	q := c.Req
	c.own = c.own[:0]
	if q.Key != nil {
		c.own = append(c.own, c.Core.Names.Hash(q.Namespace, q.Key))
	}
	for _, k := range q.Keys {
		c.own = append(c.own, c.Core.Names.Hash(q.Namespace, k))
	}
	return c.own
}

func (c *Handler) answerError(conn *server.Conn, err *wire.Error) {
	c.Refuse(err)
	c.answer(conn)
}

func (c *Handler) answer(conn *server.Conn) {
	c.Reply.ID = c.Req.ID
	conn.Out = wire.AppendReply(conn.Out, c.Req.Op, &c.Reply)
}
