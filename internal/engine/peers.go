package engine

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// ServePeer answers a request that another sidecar has passed on, if this host owns the
// key's partition or is about to. Otherwise it answers MOVED. deadline is on the boot
// clock; b is released while it waits.
func (c *Engine) ServePeer(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	if q.Op == wire.OpMGet || q.Op == wire.OpDelete {
		r := wire.Reply{Items: make([]wire.Reply, len(q.Keys))}
		if q.Op == wire.OpDelete && c.through(q) == nil {
			for i, key := range q.Keys {
				r.Items[i] = c.serveKeyForPeer(ctx, q, key, b, deadline)
			}
			return r
		}
		b.Release()
		group := errgroup.Group{} // each key may wait for the origin
		group.SetLimit(fetchesAtOnce)
		for i, key := range q.Keys {
			group.Go(func() error {
				b := namespaces.Pins{Table: c.Names, Member: b.Member}
				defer b.Release()
				one := *q
				if q.Op == wire.OpMGet {
					one.Op, one.Key, one.Keys = wire.OpGet, key, nil
				}
				r.Items[i] = c.serveKeyForPeer(ctx, &one, key, &b, deadline)
				return nil
			})
		}
		_ = group.Wait() // no function in it fails
		return r
	}
	return c.serveKeyForPeer(ctx, q, q.Key, b, deadline)
}

func (c *Engine) serveKeyForPeer(ctx context.Context, q *wire.Request, k []byte, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	partition := c.Hash(q.Namespace, k).Partition()
	until := c.patience(q, deadline)
	for {
		changed := c.Node.Changed()
		now := c.Clock.Read()
		c.Node.CheckPause(now.Boot)
		if c.Node.OwnershipEpoch(partition) != 0 {
			if r, done := c.serveLocal(ctx, q, k, b, now, deadline); done {
				return r
			}
		}
		if !c.Node.View().Own(partition) {
			return Moved()
		}
		b.Release()
		if !c.wait(ctx, changed, until) {
			return wire.ErrorReply(wire.Errorf(wire.Unavailable, "the key's partition is being taken over: try again"))
		}
	}
}
