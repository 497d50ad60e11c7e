package rpc

import (
	"fmt"
	"runtime"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// queue takes a slot for a call and queues the request, whose ID it sets, for flush. The
// bytes of q belong to the caller again when it returns. After an error caller is not
// told anything.
func (c *Client) queue(q *wire.Request, timeout time.Duration, caller Caller) error {
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	return c.queueLocked(q, timeout, caller)
}

// queueLocked is queue, with the lock held.
func (c *Client) queueLocked(q *wire.Request, timeout time.Duration, caller Caller) error {
	if err := c.goneLocked(); err != nil {
		return err
	}
	a := accountOf(caller)
	if c.requests.full(c.cfg.MaxQueued, a.Process()) || c.calls.full(c.cfg.MaxCalls) {
		return ErrFull
	}
	if err := c.chargeLocked(valueSize(q), a); err != nil {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	c.requests.add(q, a.Process(), c.beginLocked(q, timeout, caller))
	return nil
}

// goneLocked returns why no more calls are taken, or nil.
func (c *Client) goneLocked() error {
	switch {
	case c.retiring:
		return fmt.Errorf("%w: %w", ErrNotSent, ErrRetiring)
	case c.outbox.err != nil:
		return fmt.Errorf("%w: %w", ErrNotSent, c.outbox.err)
	}
	return nil
}

// beginLocked gives a call a slot, whatever the bounds, and returns when the call
// expires.
func (c *Client) beginLocked(q *wire.Request, timeout time.Duration, caller Caller) (until time.Time) {
	until = time.Now().Add(timeout)
	q.ID = c.calls.add(caller, until)
	c.expiry.expireBy(until, timeout)
	return until
}

// freeQueue is how many bytes of requests may wait without being charged.
const freeQueue = 4 * smallBuffer

// chargeLocked charges the requests that wait to be sent, and n more bytes for an
// account. A nil account is this host itself. Its requests are not refused for what
// others have queued there, unless they are long.
func (c *Client) chargeLocked(n int, a *quota.Account) error {
	has := c.requests.memory(n)
	if has <= freeQueue {
		has = 0
	}
	var err error
	switch more := has - c.charged; {
	case more <= 0 || a == nil && n < longRequest:
		c.account.Force(quota.ForRequests, more)
	case a == nil:
		err = c.account.Take(quota.ForRequests, more)
	default:
		err = c.account.TakeFor(a, &c.requests.sent, quota.ForRequests, more)
	}
	if err == nil {
		c.charged = has
	}
	return err
}

// flush writes the requests that wait, as far as that is possible without waiting, so
// that no caller is kept past its deadline. If another goroutine writes already, it
// writes them.
func (c *Client) flush() {
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	c.flushLocked()
}

// flushLocked is flush, with the lock held at entry and exit.
func (c *Client) flushLocked() {
	o := &c.outbox
	if c.lead.by == byNobody && c.calls.inFlight() > 0 {
		c.lead.readLocked()
	}
	if o.writing || c.gathering.held || c.requests.empty() {
		return
	}
	o.writing = true
	if c.calls.inFlight() > 1 {
		// Other calls are in flight: let their callers join this write.
		o.mu.Unlock()
		runtime.Gosched()
		o.mu.Lock()
	}
	o.writeNowLocked()
}

// refillLocked takes back the buffer of the requests that have been written, and gives
// the outbox the next ones.
func (c *Client) refillLocked() {
	if c.requests.written() && c.charged > 0 {
		_ = c.chargeLocked(0, nil) // it charges nothing new
	}
	if !c.requests.empty() && c.gathering.mayWriteLocked() {
		b, last := c.requests.next()
		c.sending.begin(last)
		c.outbox.queue.push(chunk{b: b})
	}
}
