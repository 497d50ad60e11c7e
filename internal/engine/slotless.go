package engine

import (
	"context"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// readSlotless answers a GET in a namespace without a slot here: this host has no entry
// of it, and cannot keep the owner's answer.
func (c *Engine) readSlotless(ctx context.Context, q *wire.Request, deadline time.Duration) wire.Reply {
	now := c.Clock.Read()
	partition := c.Hash(q.Namespace, q.Key).Partition()
	if c.Node.OwnershipEpoch(partition) != 0 {
		return wire.Reply{Status: wire.Miss}
	}
	owner := c.Node.View().Owner(partition)
	switch {
	case owner == nil || owner.Process == c.Node.Self():
		return c.replyNoOwner(q)
	case deadline <= now.Boot || !q.Has(wire.Fresh) && !owner.Answers(now.Boot, c.Node.Bound()):
		return unanswered(q, owner)
	}
	out := &wire.Request{Op: wire.OpGet, Namespace: q.Namespace, Key: q.Key, Options: q.Options & Asked}
	var a peer.Answer
	defer a.Release()
	switch err := c.Node.Do(ctx, owner.Process, deadline-now.Boot, out, &a); {
	case errors.Is(err, rpc.ErrNoRoom):
		return wire.ErrorReply(wire.Errorf(wire.Busy, "%v", err))
	case err != nil:
		c.Counts.PeerErrors.Add(1)
		return unanswered(q, owner)
	case a.Status == wire.Moved:
		return c.replyNoOwner(q)
	}
	c.Counts.PeerReads.Add(1)
	r := owned(&a.Reply)
	if r.Status == wire.OK {
		r.Source = wire.SourcePeer
	}
	return r
}
