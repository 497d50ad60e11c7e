package sidecar

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/strike"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A write with ack=all is answered once no host can serve what was before it:
// every process that may have a lease on the holder has applied the holder's log
// up to the write, or its lease has lapsed.

// wantsAll says whether a request is such a write.
func (c *core) wantsAll(q *wire.Request) bool { return q.Has(wire.AckAll) && c.log != nil }

// acked executes such a write and waits. What another host holds it waits for
// there: the request is passed on as it is.
func (c *core) acked(ctx context.Context, q *wire.Request, deadline time.Duration, peer bool, execute func() wire.Reply) wire.Reply {
	partitions := c.partitionsOf(q)
	before := make([]uint32, len(partitions))
	for i, p := range partitions {
		before[i] = c.node.Holds(p)
	}
	begun := c.clock.Read().Boot
	r := execute()
	if r.Status != wire.OK {
		return r
	}
	place, after := c.log.Head(), make([]uint32, len(partitions))
	var here bool
	until := begun // copies from an earlier holder are gone then
	for i, p := range partitions {
		if after[i] = c.node.Holds(p); after[i] != 0 {
			here = true
			until = max(until, time.Duration(c.handoff.begunAt[p].Load())+cluster.Margin(c.node.Bound()))
		}
	}
	if here && !strike.Out(strike.AckAll) && !c.applied(ctx, place, until, deadline) {
		return notByAll(q, r, func(i int) bool { return after[i] != 0 })
	}
	c.node.Beat(c.clock.Read().Boot)
	// What was held when it was executed must be held still: else somebody
	// else's copies are about, and nobody has waited for them.
	return notByAll(q, r, func(i int) bool {
		p := partitions[i]
		held := c.node.Holds(p)
		lost := held == 0 && (peer || before[i] != 0 || time.Duration(c.handoff.begunAt[p].Load()) >= begun)
		return lost || held != after[i]
	})
}

// applied waits until everybody has applied this host's log up to a place and
// leases on earlier holders have lapsed, within the request's time.
func (c *core) applied(ctx context.Context, place uint64, until, deadline time.Duration) bool {
	now := c.clock.Read().Boot
	latest := now + cluster.Margin(c.node.Bound()) // by then all leases from before have lapsed
	until = min(until, latest)
	ctx, cancel := context.WithTimeout(ctx, max(0, deadline-now))
	defer cancel()
	if !c.node.Applied(ctx, place) {
		return false
	}
	for {
		left := until - c.clock.Read().Boot
		if left <= 0 {
			return true
		}
		if ctx.Err() != nil || !sleep(ctx, left) {
			return false
		}
	}
}

// notByAll turns the answers of those keys that are not acknowledged by all into
// errors.
func notByAll(q *wire.Request, r wire.Reply, late func(i int) bool) wire.Reply {
	err := errorReply(wire.Errorf(wire.Timeout, "the write was executed, but not every host has acknowledged it in time: old copies are served for max_staleness at most"))
	if q.Op != wire.OpDelete {
		if late(0) {
			return err
		}
		return r
	}
	for i := range r.Items {
		if s := r.Items[i].Status; (s == wire.OK || s == wire.Miss) && late(i) {
			r.Items[i] = err
		}
	}
	return r
}

// partitionsOf are those of a request's keys.
func (c *core) partitionsOf(q *wire.Request) []uint16 {
	if q.Op != wire.OpDelete {
		return []uint16{c.hash(q.Namespace, q.Key).Partition()}
	}
	list := make([]uint16, len(q.Keys))
	for i, k := range q.Keys {
		list[i] = c.hash(q.Namespace, k).Partition()
	}
	return list
}
