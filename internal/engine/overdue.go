package engine

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A write that its caller has given up is not executed any more: it might take
// the place of a newer one that has been acknowledged since. Each write has its
// end with it, as a moment of this host's boot clock, wherever it has waited:
//
//	an app's           as it was sent, where HELLO has shown that both read one clock
//	another host's     as that one has translated it, see cluster.Owner.Until
//	without a moment   the request's time after it was read
//
// The store compares it in the critical section that stamps the write, with a
// clock that is read there: the process may have stood still at any place before.
// Within that section it may too, but then nothing can have come in between. A
// write through is compared before the origin is asked.
//
// Reads and deletions are executed late: they only make misses.

// Limit gives a write that has come without a moment the request's own.
func (c *Engine) Limit(q *wire.Request, until time.Duration) {
	switch q.Op {
	case wire.OpSet, wire.OpDelete, wire.OpTouch, wire.OpIncr, wire.OpFill:
		if q.UntilNS == 0 && !q.Has(wire.Abandon) {
			q.UntilNS = uint64(until)
		}
	}
}

func untilOf(q *wire.Request) time.Duration { return time.Duration(q.UntilNS) }

// until is when a write that this host passes on and waits for until its deadline
// is given up, by the owner's clock.
func until(owner *cluster.Owner, q *wire.Request, deadline time.Duration) uint64 {
	if q.UntilNS == 0 {
		return 0
	}
	return owner.Until(min(untilOf(q), deadline))
}

// overdue says whether a write has been given up; zero is never.
func (c *Engine) overdue(until time.Duration) bool {
	return until != 0 && c.Clock.Read().Boot >= until
}

// OverdueInStore is overdue, for the store.
func (c *Engine) OverdueInStore(until time.Duration) bool {
	return c.overdue(until) && !failpoint.Out(failpoint.Overdue)
}

// tooLate answers a write that was given up, and was not executed.
func (c *Engine) tooLate(q *wire.Request) wire.Reply {
	c.Counts.Overdue.Add(1)
	late := c.Clock.Read().Boot - untilOf(q)
	return wire.ErrorReply(wire.Errorf(wire.Unavailable, "the %s came %v after its caller had given it up: nothing was done", q.Op, late.Round(time.Microsecond)))
}

// Timeout is how long a request may take.
func (c *Engine) Timeout(q *wire.Request) time.Duration {
	if q.TimeoutMS == 0 {
		return c.Config.RequestTimeout
	}
	return time.Duration(q.TimeoutMS) * time.Millisecond
}
