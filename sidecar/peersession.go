package sidecar

import (
	"context"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// peer makes what serves another sidecar's requests: the session of
// an app that has said HELLO, and whose requests go no further than here.
func (d *doors) peer(from kv.Process) rpc.Handler {
	m := d.engine.Shares.Join("node " + string(from.Node))
	return &session{
		d: d, core: d.engine, from: from, who: []any{"from", from.Node}, member: m,
		hello: true, ns: defaultNamespace, names: namespaces.Pins{Table: d.engine.Names, Member: m}, slow: d.engine.ServeHere,
		tally: tally{served: &d.engine.Counts.Served},
	}
}

// ofPeers answers what only sidecars ask.
func (c *session) ofPeers(conn *rpc.Conn) {
	q := *c.req
	h := c.core.Handoff
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
		deadline := c.core.DeadlineOf(&q, c.now)
		answer = func() wire.Reply {
			return wire.BodyReply(wire.AppliedBy{All: c.core.Applied(context.Background(), a.Partitions, deadline)})
		}
	case wire.OpProbe:
		var p wire.Probe
		if !c.structured(conn, &p) {
			return
		}
		answer = func() wire.Reply { return wire.BodyReply(c.d.host.Probed(&p)) }
	default:
		c.answerError(conn, wire.Errorf(wire.Unsupported, "%s is not served on a call connection", q.Op))
		return
	}
	id, op := q.ID, q.Op
	c.names.Release()
	size := pendingSize + sizeOf(&q)
	if err := noRoom(conn.Hold(size)); err != nil {
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

// structured decodes a request's body. False says that it has been answered.
func (c *session) structured(conn *rpc.Conn, v any) bool {
	if err := peer.Read(c.from, c.req, v); err != nil {
		c.answerError(conn, err)
		return false
	}
	return true
}
