package sidecar

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// newPeerSession makes what serves another sidecar's requests: the session of
// an app that has said HELLO, and whose requests go no further than here.
func (s *Sidecar) newPeerSession(from kv.Process) rpc.Handler {
	m := s.shares.Join("node " + string(from.Node))
	return &session{
		s: s, core: &s.core, from: from, who: []any{"from", from.Node}, member: m,
		hello: true, ns: defaultNamespace, names: namespaces.Pins{Table: s.names, Member: m}, slow: s.serveHere,
		tally: tally{served: &s.counts.served},
	}
}

// ofPeers answers what only sidecars ask.
func (c *session) ofPeers(conn *rpc.Conn) {
	q := *c.req
	h := c.core.handoff
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
		deadline := c.core.deadlineOf(&q, c.now)
		answer = func() wire.Reply {
			return wire.BodyReply(wire.AppliedBy{All: c.core.applied(context.Background(), a.Partitions, deadline)})
		}
	case wire.OpProbe:
		var p wire.Probe
		if !c.structured(conn, &p) {
			return
		}
		answer = func() wire.Reply { return wire.BodyReply(c.s.probed(&p)) }
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

// serveHere answers a request that another sidecar has passed on, if this host
// holds the key's partition, or is about to.
func (c *core) serveHere(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	if q.Op == wire.OpMGet || q.Op == wire.OpDelete {
		r := wire.Reply{Items: make([]wire.Reply, len(q.Keys))}
		if q.Op == wire.OpDelete && c.through(q) == nil {
			for i, key := range q.Keys {
				r.Items[i] = c.keyHere(ctx, q, key, b, deadline)
			}
			return r
		}
		b.Release()
		group := errgroup.Group{} // each may wait for the origin
		group.SetLimit(fetchesAtOnce)
		for i, key := range q.Keys {
			group.Go(func() error {
				b := namespaces.Pins{Table: c.names, Member: b.Member}
				defer b.Release()
				one := *q
				if q.Op == wire.OpMGet {
					one.Op, one.Key, one.Keys = wire.OpGet, key, nil
				}
				r.Items[i] = c.keyHere(ctx, &one, key, &b, deadline)
				return nil
			})
		}
		_ = group.Wait() // nothing in it fails
		return r
	}
	return c.keyHere(ctx, q, q.Key, b, deadline)
}

func (c *core) keyHere(ctx context.Context, q *wire.Request, k []byte, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	partition := c.hash(q.Namespace, k).Partition()
	until := c.patience(q, deadline)
	for {
		changed := c.node.Changed()
		now := c.clock.Read()
		c.node.Beat(now.Boot)
		if c.node.Holds(partition) != 0 {
			if r, done := c.here(ctx, q, k, b, now, deadline); done {
				return r
			}
		}
		if !c.node.View().Own(partition) {
			return moved()
		}
		b.Release()
		if !c.wait(ctx, changed, until) {
			return wire.ErrorReply(wire.Errorf(wire.Unavailable, "the key's partition is being taken over: try again"))
		}
	}
}
