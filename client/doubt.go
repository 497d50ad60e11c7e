package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// hesitation is how long calls wait for the answer to a doubt's PING, from the PING on.
const hesitation = 100 * time.Millisecond

// doubt is about a sidecar that has left a call without an answer: it may hang, or the call
// alone was slow. A PING has been posted to find out. Calls are not sent before its answer
// has come.
type doubt struct {
	conn     *rpc.Client
	since    time.Time     // when the unanswered call began
	asked    time.Time     // when the PING was posted
	answered chan struct{} // closed with the PING's answer, or with the connection
}

// doubts begins a doubt after a call that began at since has failed with err, if that is
// because of its time.
func (sl *slot) doubts(ctx context.Context, conn *rpc.Client, since time.Time, err error) {
	if !errors.Is(err, rpc.ErrNoAnswer) && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return
	}
	d := &doubt{conn: conn, since: since, asked: time.Now(), answered: make(chan struct{})}
	old := sl.doubt.Load()
	if old != nil && old.conn == conn || !sl.doubt.CompareAndSwap(old, d) {
		return // asked already
	}
	if err := conn.Start(&wire.Request{Op: wire.OpPing}, wire.MaxTimeout*time.Millisecond, asking{sl, d}); err != nil {
		asking{sl, d}.Answered(nil, nil, err)
		return
	}
	conn.Flush()
}

// asking is the caller of a doubt's PING.
type asking struct {
	slot  *slot
	doubt *doubt
}

func (ask asking) Answered(*transport.Answers, []byte, error) {
	ask.slot.doubt.CompareAndSwap(ask.doubt, nil)
	close(ask.doubt.answered)
}

// settle waits until a connection is not in doubt, and returns how much of the call's time is
// left. If it remains in doubt, settle returns ErrUnavailable.
func (sl *slot) settle(ctx context.Context, conn *rpc.Client, timeout time.Duration) (left time.Duration, err error) {
	d := sl.doubt.Load()
	if d == nil || d.conn != conn {
		return timeout, nil
	}
	began := time.Now()
	if wait := min(hesitation-began.Sub(d.asked), timeout); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-d.answered:
		case <-timer.C:
			if wait == timeout {
				return 0, callError(withReason(ctx, rpc.ErrNoAnswer))
			}
		case <-ctx.Done():
			return 0, callError(withReason(ctx, context.Cause(ctx)))
		}
	}
	select {
	case <-d.answered:
		return max(timeout-time.Since(began), time.Millisecond), nil
	default:
	}
	return 0, fmt.Errorf("%w: the sidecar has not answered for %s: it hangs or is stopped: see cachesidecar health, "+
		"or restart it", cachesidecar.ErrUnavailable, time.Since(d.since).Round(100*time.Millisecond))
}
