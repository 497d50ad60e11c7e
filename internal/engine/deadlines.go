package engine

import (
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A write that its caller has given up is not executed: it might replace a newer write
// that has been acknowledged since. Each write carries its end as a moment of this host's
// boot clock, wherever it has waited:
//
//	an app's           as it was sent, if HELLO has shown that both read one clock
//	another host's     as that host has translated it, see cluster.Host.Until
//	without a moment   the request's time after it was read
//
// A write that waits for a connection that has ended has been given up too, at that moment
// (wire.Request.Conn). The connection is asked just before the store's critical section,
// before another host is asked, and before an origin is. A write that is passed on does not
// wait there for an ownership, but comes back and waits here: see servePeer.
//
// The store compares the end in the critical section that stamps the write, with a clock
// that it reads there, since the process may have stood still at any place before. It may
// stand still within that section too, but no other write can come in between. A
// write-through is compared before the origin is asked.
//
// Reads and deletions are executed late: they only cause misses.

// Deadlines says until when a request is answered.
type Deadlines struct {
	clock   kv.Clock
	counts  *Counts
	timeout atomic.Int64 // ns, of requests without one
}

// Limit gives a write without a moment the end until, which is the request's own.
func (d *Deadlines) Limit(q *wire.Request, until time.Duration) {
	if q.UntilNS == 0 && q.Writes() {
		q.UntilNS = uint64(until)
	}
}

// executeBefore returns the moment at which a write is given up; zero: never.
func executeBefore(q *wire.Request) time.Duration {
	if ended(q) {
		return longAgo
	}
	return time.Duration(q.UntilNS)
}

// longAgo is over on every boot clock.
const longAgo time.Duration = 1

// ended reports whether a write waits for a connection that has ended. A FILL does not: its
// token is of use only while the key has not changed, and so is its value.
func ended(q *wire.Request) bool {
	return q.Conn != nil && q.UntilNS != 0 && q.Op != wire.OpFill && q.Conn.Ended() &&
		!failpoint.Out(failpoint.ConnEnded)
}

// executeBeforeAtOwner returns when a write that this host passes on is given up, on the owner's clock.
// This host waits for it until deadline.
func executeBeforeAtOwner(owner *cluster.Host, q *wire.Request, deadline time.Duration) uint64 {
	if q.UntilNS == 0 {
		return 0
	}
	return owner.Until(min(executeBefore(q), deadline))
}

// over reports whether a write has been given up; zero means never.
func (d *Deadlines) over(until time.Duration) bool {
	return until != 0 && d.clock.Read().Boot >= until
}

// OverdueInStore is over for the store.
func (d *Deadlines) OverdueInStore(until time.Duration) bool {
	return d.over(until) && !failpoint.Out(failpoint.Overdue)
}

// tooLate answers a write that was given up and was not executed.
func (d *Deadlines) tooLate(q *wire.Request) wire.Reply {
	d.counts.Overdue.Add(1)
	if ended(q) {
		return failed(wire.Unavailable, "the connection that the %s came over has ended: nothing was done", q.Op)
	}
	late := d.clock.Read().Boot - executeBefore(q)
	return failed(wire.Unavailable, "the %s came %v after its caller had given it up: nothing was done", q.Op,
		late.Round(time.Microsecond))
}

// Default returns how long a request without a time may take.
func (d *Deadlines) Default() time.Duration { return time.Duration(d.timeout.Load()) }

// SetDefault changes it.
func (d *Deadlines) SetDefault(t time.Duration) { d.timeout.Store(int64(t)) }

// Timeout returns how long a request may take.
func (d *Deadlines) Timeout(q *wire.Request) time.Duration {
	if q.TimeoutMS == 0 {
		return d.Default()
	}
	return time.Duration(q.TimeoutMS) * time.Millisecond
}

// halfOf returns the moment at which half of a request's time is left, less AnswerBefore.
func (d *Deadlines) halfOf(q *wire.Request, deadline time.Duration) time.Duration {
	return deadline - d.Timeout(q)/2
}

// AnswerBefore returns how long before a request's deadline the slow way gives up: the
// answer must arrive before the app gives up.
func AnswerBefore(timeout time.Duration) time.Duration { return min(timeout/10, 20*time.Millisecond) }

// Of returns when the slow way of a request gives up, on the boot clock.
func (d *Deadlines) Of(q *wire.Request, now kv.Moment) time.Duration {
	t := d.Timeout(q)
	return now.Boot + t - AnswerBefore(t)
}
