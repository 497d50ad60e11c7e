package engine

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Forget drops a host that is gone, on this host. MISS means that it is unknown here.
func (c *Engine) Forget(node kv.NodeID) wire.Reply {
	switch known, err := c.Node.Forget(node); {
	case errors.Is(err, cluster.ErrSelf):
		return wire.ErrorReply(wire.Errorf(wire.BadRequest, "%s is this very host: to take it out of the cluster, stop it", node))
	case err != nil:
		return wire.ErrorReply(wire.Errorf(wire.Unavailable, "%s is not forgotten by %s: %v: stop it, wait a few seconds, and try again", node, c.Config.Node, err))
	case !known:
		return wire.Reply{Status: wire.Miss}
	}
	return wire.Reply{}
}

// ForgetEverywhere drops a host that is gone, on all living hosts. It asks the other
// hosts even if this one does not know the host, or has forgotten it before.
func (c *Engine) ForgetEverywhere(ctx context.Context, q *wire.Request) wire.Reply {
	node := kv.NodeID(q.Key)
	all := c.Forget(node)
	if all.Status.IsError() {
		return all // it lives, as far as this host knows
	}
	var unasked []string
	for _, a := range c.askAll(ctx, q, func(m *cluster.Member) bool { return m.ID.Node != node && m.MayOwn }) {
		switch {
		case a.err == nil && a.reply.Status == wire.OK:
			all.Status = wire.OK
		case a.err == nil:
		case a.reply.Status == wire.Unavailable: // it lives, as far as that host knows
			return a.reply
		default:
			unasked = append(unasked, string(a.node))
		}
	}
	if len(unasked) > 0 {
		slices.Sort(unasked)
		return wire.ErrorReply(wire.Errorf(wire.Timeout, "%s did not answer, and may list %s still: try again once they do", strings.Join(unasked, ", "), node))
	}
	return all
}

// askAll sends a request to the members that which selects, all at once. Each answer has
// less than half of the request's time.
func (c *Engine) askAll(ctx context.Context, q *wire.Request, which func(*cluster.Member) bool) []said {
	timeout := c.Timeout(q)
	timeout = (timeout - AnswerBefore(timeout)) / 2
	var to []kv.Process
	for _, m := range c.Node.Members() {
		if m.ID != c.Node.Self() && which(&m) {
			to = append(to, m.ID)
		}
	}
	list := make([]said, len(to))
	var wg sync.WaitGroup
	for i, id := range to {
		wg.Go(func() {
			var got peer.Answer
			defer got.Release()
			send := *q
			a := &list[i]
			a.node = id.Node
			if a.err = c.Node.Do(ctx, id, timeout, &send, &got); a.err == nil {
				a.reply, a.err = owned(&got.Reply), got.Err()
			}
		})
	}
	wg.Wait()
	return list
}
