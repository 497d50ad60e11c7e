package session

import (
	"context"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/quota"
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
	i, deadline, end := c.Core.Admin, c.Core.Deadlines.Of(q, c.Now), conn.End()
	c.background(conn, func() wire.Reply {
		conn.Account().BeginTurn(quota.LongTurn) // it visits many entries
		defer conn.Account().EndTurn(quota.LongTurn)
		if end.Ended() {
			return wire.ErrorReply(errGone)
		}
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
// use the session. It returns false if there is no memory.
func (c *Handler) background(conn *server.Conn, reply func() wire.Reply) bool {
	c.Names.Release()
	id, op := c.Req.ID, c.Req.Op
	size := pendingSize + sizeOf(c.Req)
	if err := Busy(conn.Hold(size)); err != nil {
		c.answerError(conn, err)
		return false
	}
	conn.Go(func() []byte {
		defer conn.Free(size)
		r := reply()
		r.ID = id
		return wire.AppendReply(nil, op, &r)
	})
	return true
}

// answerPeer answers the requests that only sidecars send.
func (c *Handler) answerPeer(conn *server.Conn) {
	core := c.Core
	switch c.Req.Op {
	case wire.OpPull:
		answerBody(c, conn, func(p *wire.Pull) wire.Reply { return core.Handoff.ServePull(c.from, p) })
	case wire.OpFetch:
		answerBody(c, conn, func(f *wire.Fetch) wire.Reply { return core.Handoff.ServeFetch(c.from, f) })
	case wire.OpProbe:
		answerBody(c, conn, func(p *wire.Probe) wire.Reply { return wire.BodyReply(core.Admin.Probed(p)) })
	case wire.OpApplied:
		deadline := core.Deadlines.Of(c.Req, c.Now)
		answerBody(c, conn, func(a *wire.Applied) wire.Reply {
			return wire.BodyReply(wire.AppliedBy{All: core.Acks.Applied(context.Background(), a.Partitions, deadline)})
		})
	}
}

// answerBody answers c.Req in the background, with what reply makes of its body.
func answerBody[T any](c *Handler, conn *server.Conn, reply func(*T) wire.Reply) {
	var body T
	if err := peer.Read(c.from, c.Req, &body); err != nil {
		c.answerError(conn, err)
		return
	}
	c.background(conn, func() wire.Reply { return reply(&body) })
}
