package session

import (
	"context"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
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
	own, may := q.Clone(), c.By.Principal().MayAdmin
	i, deadline := c.Core.Inspection, c.Core.Deadlines.Of(q, c.Now)
	c.background(conn, func() wire.Reply {
		switch own.Op {
		case wire.OpKeys:
			return i.Keys(&own, deadline)
		case wire.OpHot:
			return i.Hot(&own, may)
		}
		return i.Slow(&own, may)
	})
}

// background answers c.Req with what reply returns, on a goroutine of its own. reply must not
// use the session.
func (c *Handler) background(conn *server.Conn, reply func() wire.Reply) {
	c.Names.Release()
	id, op := c.Req.ID, c.Req.Op
	size := pendingSize + sizeOf(c.Req)
	if err := Busy(conn.Hold(size)); err != nil {
		c.answerError(conn, err)
		return
	}
	conn.Go(func() []byte {
		defer conn.Free(size)
		r := reply()
		r.ID = id
		return wire.AppendReply(nil, op, &r)
	})
}

// answerPeer answers the requests that only sidecars send.
func (c *Handler) answerPeer(conn *server.Conn) {
	q := *c.Req
	h := c.Core.Handoff
	var reply func() wire.Reply
	switch q.Op {
	case wire.OpPull:
		var p wire.Pull
		if !c.structured(conn, &p) {
			return
		}
		reply = func() wire.Reply { return h.ServePull(c.from, &p) }
	case wire.OpFetch:
		var f wire.Fetch
		if !c.structured(conn, &f) {
			return
		}
		reply = func() wire.Reply { return h.ServeFetch(c.from, &f) }
	case wire.OpApplied:
		var a wire.Applied
		if !c.structured(conn, &a) {
			return
		}
		deadline := c.Core.Deadlines.Of(&q, c.Now)
		reply = func() wire.Reply {
			return wire.BodyReply(wire.AppliedBy{All: c.Core.Acks.Applied(context.Background(), a.Partitions,
				deadline)})
		}
	case wire.OpProbe:
		var p wire.Probe
		if !c.structured(conn, &p) {
			return
		}
		reply = func() wire.Reply { return wire.BodyReply(c.Sessions.Host.Probed(&p)) }
	default:
		c.answerError(conn, wire.Errorf(wire.Unsupported, "%s is not served on a call connection", q.Op))
		return
	}
	c.background(conn, reply)
}

// structured decodes a request's body. If it returns false, it has answered the request.
func (c *Handler) structured(conn *server.Conn, v any) bool {
	if err := peer.Read(c.from, c.Req, v); err != nil {
		c.answerError(conn, err)
		return false
	}
	return true
}
