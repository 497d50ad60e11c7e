package engine

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A write that its caller has given up is not executed: it might replace a newer write
// that has been acknowledged since. Each write carries its end as a moment of this host's
// boot clock, wherever it has waited:
//
//	an app's           as it was sent, if HELLO has shown that both read one clock
//	another host's     as that host has translated it, see cluster.Owner.Until
//	without a moment   the request's time after it was read
//
// The store compares the end in the critical section that stamps the write, with a clock
// that it reads there, since the process may have stood still at any place before. It may
// stand still within that section too, but no other write can come in between. A
// write-through is compared before the origin is asked.
//
// Reads and deletions are executed late: they only cause misses.

// Limit gives a write without a moment the end until, which is the request's own.
func (c *Engine) Limit(q *wire.Request, until time.Duration) {
	switch q.Op {
	case wire.OpSet, wire.OpDelete, wire.OpTouch, wire.OpIncr, wire.OpFill:
		if q.UntilNS == 0 && !q.Has(wire.Abandon) {
			q.UntilNS = uint64(until)
		}
	}
}

func untilOf(q *wire.Request) time.Duration { return time.Duration(q.UntilNS) }

// until returns when a write that this host passes on is given up, on the owner's clock.
// This host waits for it until deadline.
func until(owner *cluster.Owner, q *wire.Request, deadline time.Duration) uint64 {
	if q.UntilNS == 0 {
		return 0
	}
	return owner.Until(min(untilOf(q), deadline))
}

// overdue reports whether a write has been given up; zero means never.
func (c *Engine) overdue(until time.Duration) bool {
	return until != 0 && c.Clock.Read().Boot >= until
}

// OverdueInStore is overdue for the store.
func (c *Engine) OverdueInStore(until time.Duration) bool {
	return c.overdue(until) && !failpoint.Out(failpoint.Overdue)
}

// tooLate answers a write that was given up and was not executed.
func (c *Engine) tooLate(q *wire.Request) wire.Reply {
	c.Counts.Overdue.Add(1)
	late := c.Clock.Read().Boot - untilOf(q)
	return wire.ErrorReply(wire.Errorf(wire.Unavailable, "the %s came %v after its caller had given it up: nothing was done", q.Op, late.Round(time.Microsecond)))
}

// Timeout returns how long a request may take.
func (c *Engine) Timeout(q *wire.Request) time.Duration {
	if q.TimeoutMS == 0 {
		return c.Config.RequestTimeout
	}
	return time.Duration(q.TimeoutMS) * time.Millisecond
}
