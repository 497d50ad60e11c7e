package session

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// inspect answers a request about what this host stores and does. It may take
// milliseconds, so the reader does not wait for it.
func (c *Handler) inspect(conn *server.Conn) {
	q := c.Req
	switch {
	case len(q.Key) > kv.MaxKeyLen:
		c.answerError(conn, wire.Errorf(wire.BadRequest, "%s: a prefix of %d bytes: give at most %d",
			q.Op, len(q.Key), kv.MaxKeyLen))
		return
	case !q.Has(wire.All) && !kv.ValidNamespace(string(q.Namespace)):
		c.answerError(conn, namespaces.BadName(q.Namespace))
		return
	}
	own, may := q.Clone(), c.By.MayAdmin()
	i, deadline := c.Core.Inspection, c.Core.Deadlines.Of(q, c.Now)
	c.aside(conn, func() wire.Reply {
		switch own.Op {
		case wire.OpKeys:
			return i.Keys(&own, deadline)
		case wire.OpHot:
			return i.Hot(&own, may)
		}
		return i.Slow(&own, may)
	})
}

// aside answers c.Req with what answer returns, on a goroutine of its own. answer must not
// use the session.
func (c *Handler) aside(conn *server.Conn, answer func() wire.Reply) {
	c.Names.Release()
	id, op := c.Req.ID, c.Req.Op
	size := pendingSize + sizeOf(c.Req)
	if err := NoRoom(conn.Hold(size)); err != nil {
		c.answerError(conn, err)
		return
	}
	conn.Go(func() []byte {
		defer conn.Free(size)
		r := answer()
		r.ID = id
		return wire.AppendReply(nil, op, &r)
	})
}
