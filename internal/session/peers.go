package session

import (
	"context"

	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// ofPeers answers the requests that only sidecars send.
func (c *Handler) ofPeers(conn *server.Conn) {
	q := *c.Req
	h := c.Core.Handoff
	var answer func() wire.Reply
	switch q.Op {
	case wire.OpPull:
		var p wire.Pull
		if !c.structured(conn, &p) {
			return
		}
		answer = func() wire.Reply { return h.ServePull(c.from, &p) }
	case wire.OpFetch:
		var f wire.Fetch
		if !c.structured(conn, &f) {
			return
		}
		answer = func() wire.Reply { return h.ServeFetch(c.from, &f) }
	case wire.OpApplied:
		var a wire.Applied
		if !c.structured(conn, &a) {
			return
		}
		deadline := c.Core.Deadlines.Of(&q, c.Now)
		answer = func() wire.Reply {
			return wire.BodyReply(wire.AppliedBy{All: c.Core.Acks.Applied(context.Background(), a.Partitions,
				deadline)})
		}
	case wire.OpProbe:
		var p wire.Probe
		if !c.structured(conn, &p) {
			return
		}
		answer = func() wire.Reply { return wire.BodyReply(c.Doors.Host.Probed(&p)) }
	default:
		c.answerError(conn, wire.Errorf(wire.Unsupported, "%s is not served on a call connection", q.Op))
		return
	}
	c.aside(conn, answer)
}

// structured decodes a request's body. If it returns false, it has answered the request.
func (c *Handler) structured(conn *server.Conn, v any) bool {
	if err := peer.Read(c.from, c.Req, v); err != nil {
		c.answerError(conn, err)
		return false
	}
	return true
}
