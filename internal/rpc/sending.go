package rpc

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Start makes a call without waiting for the answer: caller is told the outcome. Flush
// sends the request q, whose ID Start sets. The bytes of q belong to the caller again
// when Start returns. After an error caller is not told anything.
func (c *Client) Start(q *wire.Request, timeout time.Duration, caller Caller) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queueLocked(q, timeout, caller)
}

// queueLocked is Start, with the lock held.
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
	case c.err != nil:
		return fmt.Errorf("%w: %w", ErrNotSent, c.err)
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
const freeQueue = 4 * transport.BufferSize

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

// Flush writes the requests that wait, as far as that is possible without waiting, so
// that no caller is kept past its deadline. If another goroutine writes already, it
// writes them.
func (c *Client) Flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flushLocked()
}

// flushLocked is Flush, with the lock held at entry and exit.
func (c *Client) flushLocked() {
	if c.lead.by == byNobody && c.calls.inFlight() > 0 {
		c.lead.readLocked()
	}
	if c.writing || c.gathering.held || c.requests.empty() {
		return
	}
	c.writing = true
	if c.calls.inFlight() > 1 {
		// Other calls are in flight: let their callers join this write.
		c.mu.Unlock()
		runtime.Gosched()
		c.mu.Lock()
	}
	c.writeNowLocked()
}

// writeNowLocked writes what waits, as far as that is possible without waiting. A goroutine writes
// the rest. The lock is held at entry and exit, and released while it writes. The caller has set
// writing.
func (c *Client) writeNowLocked() {
	for b := c.nextLocked(); b != nil; b = c.nextLocked() {
		c.mu.Unlock()
		n, behind, err := c.socket.WriteNow(b)
		c.mu.Lock()
		if err == nil && c.err == nil && (n < len(b) || behind) {
			go c.writeRest(b[n:]) // owned by the client: Close waits until nothing is written
			return
		}
		c.wroteLocked(err)
	}
	c.doneLocked()
}

// writeRest writes the rest of a write, and then what waits.
func (c *Client) writeRest(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; b != nil; b = c.nextLocked() {
		c.mu.Unlock()
		err := c.socket.Write(b)
		c.mu.Lock()
		c.wroteLocked(err)
	}
	c.doneLocked()
}

// nextLocked takes back the buffer of the requests that have been written, and returns what is
// written next; nil: nothing.
func (c *Client) nextLocked() []byte {
	if c.err != nil {
		return nil
	}
	if c.requests.written() && c.charged > 0 {
		_ = c.chargeLocked(0, nil) // it charges nothing new
	}
	if c.requests.empty() || !c.gathering.mayWriteLocked() {
		return nil
	}
	b, last := c.requests.next()
	c.patience.begin(last)
	return b
}

// wroteLocked notes how a write has ended.
func (c *Client) wroteLocked(err error) {
	switch {
	case err == nil:
	case errors.Is(err, syscall.EPIPE):
		c.cutLocked()
	default:
		c.failLocked(err)
	}
}

// doneLocked ends the turn of the goroutine that wrote.
func (c *Client) doneLocked() {
	c.writing = false
	c.written.Broadcast()
}

// waitForWriter waits until no goroutine writes.
func (c *Client) waitForWriter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing {
		c.written.Wait()
	}
}
