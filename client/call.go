package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// do makes one call. The caller releases the answer, also after an error.
func (c *Client) do(ctx context.Context, s *slot, q *wire.Request) (a answer, err error) {
	if !q.Writes() {
		return call(ctx, c, s, q, c.timeout(ctx))
	}
	c.memory.beginWrite(c.seed, q)
	a, err = call(ctx, c, s, q, c.timeout(ctx))
	c.memory.endWrite(c.seed, q, err)
	return a, err
}

// timeout returns the time that a call has: until ctx's deadline, else RequestTimeout.
func (s *shared) timeout(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return time.Until(d)
	}
	return s.cfg.RequestTimeout
}

// leaseGrace is how much longer a LEASE waits than it tells the sidecar. A token that
// arrives after its caller has left would delay other callers.
const leaseGrace = 100 * time.Millisecond

// call makes one call, if need be over a second connection.
func call(
	ctx context.Context, c *Client, s *slot, q *wire.Request, timeout time.Duration,
) (a answer, err error) {
	if q.Namespace == nil {
		q.Namespace = c.namespace
	}
	if err := ctx.Err(); err != nil {
		return a, callError(err)
	}
	all, began := timeout, time.Now()
	for attempt := 0; ; attempt++ {
		if q.Op == wire.OpFill && s.Live() == nil && c.moving() && !s.borrows() {
			return a, fmt.Errorf("%w: the sidecar closes, and its token has ended", cachesidecar.ErrUnavailable)
		}
		if a.from, a.conn, timeout, err = c.reach(ctx, s, timeout); err != nil {
			return a, err
		}
		if timeout, err = a.from.settle(ctx, a.conn, timeout); err != nil {
			return a, err
		}
		if w := a.from.welcomeOf(a.conn); w != nil && !w.Serves(q.Op) {
			return a, fmt.Errorf("%w: the sidecar serves no %s", cachesidecar.ErrUnsupported, q.Op)
		}
		q.TimeoutMS = uint32(min(max(timeout.Milliseconds(), 1), wire.MaxTimeout))
		if q.UntilNS = 0; q.Writes() && a.from.oneClock(a.conn) {
			q.UntilNS = c.givenUp(ctx, timeout)
		}
		grace := time.Duration(0)
		if q.Op == wire.OpLease {
			grace = leaseGrace
		}
		if a.call, err = a.conn.Do(ctx, timeout+grace, q); err == nil {
			if err = a.call.Decode(q, &a.Reply); err != nil {
				return a, fmt.Errorf("%w: the sidecar's answer: %w", cachesidecar.ErrInternal, err)
			}
			return a, calls.Err(&a.Reply)
		}
		a.from.doubts(ctx, a.conn, began, err)
		again := errors.Is(err, rpc.ErrNotSent) || errors.Is(err, rpc.ErrClosed) && q.Op.Repeatable()
		if !again || attempt > 0 && !errors.Is(err, rpc.ErrRetiring) {
			return a, callError(withReason(ctx, err))
		}
		a.release()
		a.conn, a.call = nil, nil
		timeout = max(all-time.Since(began), time.Millisecond)
	}
}

// reach is connect, but waits for a sidecar that has said that it closes, until it is
// back. It returns how much of the call's time is left.
func (s *shared) reach(ctx context.Context, want *slot, timeout time.Duration) (
	from *slot, conn *rpc.Client, left time.Duration, err error,
) {
	if want.lent.Load() == nil {
		if conn := want.Live(); conn != nil {
			return want, conn, timeout, nil
		}
	}
	if !s.moving() {
		from, conn, err = s.connect(ctx, want)
		return from, conn, timeout, err
	}
	began := time.Now()
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	from, conn, err = s.connect(wait, want)
	for want.again(wait, err) {
		from, conn, err = s.connect(wait, want)
	}
	switch {
	case err == nil:
		left = max(timeout-time.Since(began), time.Millisecond)
	case ctx.Err() != nil:
		err = callError(ctx.Err())
	case wait.Err() != nil:
		err = fmt.Errorf("%w: it has stopped, and was not started again in time: %w", cachesidecar.ErrUnavailable, err)
	}
	return from, conn, left, err
}

// givenUp returns the time on the boot clock at which a call that begins now is given up,
// because of its timeout or its context.
func (s *shared) givenUp(ctx context.Context, timeout time.Duration) uint64 {
	// Read the clock first: time that passes after this makes the result earlier.
	now := s.clock.Read().Boot
	if d, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(d))
	}
	return uint64(max(1, now+timeout-min(clockError, timeout/4)))
}

// answer is the result of a call. Its bytes are valid until release.
type answer struct {
	wire.Reply
	from *slot
	conn *rpc.Client
	call *rpc.Call
}

func (a *answer) release() {
	if a.conn != nil {
		a.conn.Release(a.call)
	}
}
