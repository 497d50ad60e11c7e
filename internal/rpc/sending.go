package rpc

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/sched"
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
	if c.writing || c.gatherer.held || c.requests.empty() {
		return
	}
	c.writing = true
	if c.calls.inFlight() > 1 {
		// Other calls are in flight: let their callers join this write.
		c.mu.Unlock()
		sched.LetOthersRun()
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
	if c.requests.empty() || !c.gatherer.mayWriteLocked() {
		return nil
	}
	b, last := c.requests.next()
	c.deadline.beginWrite(last)
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

// writeDeadline bounds a write of requests whose peer takes some of them: the write may go on
// while one of its calls waits, and for the write timeout at least. After that its memory
// would be in use for nothing.
type writeDeadline struct {
	calls atomic.Int64 // when the last of the calls expires, UnixNano
	least atomic.Int64 // first wait + timeout, UnixNano; zero: no wait yet
}

// beginWrite begins a write of requests. last is when the last of their calls expires.
func (p *writeDeadline) beginWrite(last time.Time) {
	p.calls.Store(last.UnixNano())
	p.least.Store(0)
}

// beforeWait is called before the write waits. It returns an error if the deadline is over.
func (p *writeDeadline) beforeWait(timeout time.Duration) error {
	now := time.Now().UnixNano()
	p.least.CompareAndSwap(0, now+int64(timeout))
	if now > max(p.least.Load(), p.calls.Load()) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// A request is long if its value has longRequest bytes. If more than manyShort bytes of
// short requests wait, longAmongMany bytes are enough. Without that, many requests that
// are nearly long would all go before a short one.
const (
	longRequest   = 32 << 10
	longAmongMany = longRequest / 8
	manyShort     = 4 * longRequest
)

// requests are the requests that wait to be written to another host. The short ones share
// a buffer, and so a write. A long one is written alone, after the short ones that wait
// at that time. So a short request waits for one long request at most. The accounts that
// long requests are sent for take turns.
type requests struct {
	short  []byte
	last   time.Time // when the last call of short expires
	spare  []byte    // for the next short requests
	long   quota.FairQueue[*quota.Account, longOne]
	end    longOne // is written when nothing else waits
	bytes  int64   // of the long ones
	writes []byte  // is being written; nil: nothing is
	alone  bool    // one request is being written, mostly a long one

	sent   quota.Sent // bytes that wait or are being written
	shorts []part     // the parts of short
	parts  []part     // the parts of what is being written
}

// part is the bytes of one process in one write.
type part struct {
	process *quota.Account
	n       int64
}

// longOne is a request that is written alone.
type longOne struct {
	id      uint64
	frame   []byte
	until   time.Time // when its call expires
	process *quota.Account
}

// valueSize returns the bytes of a request's value, body and keys, which may be many.
func valueSize(q *wire.Request) int {
	n := len(q.Value) + len(q.Body)
	for _, k := range q.Keys {
		n += len(k) + keyHead
	}
	return n
}

// keyHead is how many bytes stand before each key of a list.
const keyHead = 3

// isLong says whether a request of valueSize n is written alone.
func (r *requests) isLong(n int) bool {
	return n >= longRequest || n >= longAmongMany && len(r.short) > manyShort
}

// empty says whether no request waits.
func (r *requests) empty() bool { return len(r.short) == 0 && r.long.Len() == 0 && r.end.frame == nil }

// len returns how many bytes wait.
func (r *requests) len() int { return len(r.short) + int(r.bytes) }

// memory returns the bytes of memory in use, with n more bytes of one request.
func (r *requests) memory(n int) int64 {
	if r.isLong(n) {
		return r.bytes + int64(cap(r.writes)+cap(r.short)+n)
	}
	return r.bytes + int64(cap(r.writes)+max(cap(r.short), len(r.short)+n))
}

// full says whether a process, or this host for nil, has too many requests beside others:
// beyond a number of bytes only a process that has less than a fair part of them may add
// more.
func (r *requests) full(bytes int, process *quota.Account) bool {
	return r.len() > bytes && r.sent.Much(process, bytes)
}

// add adds a request for a process's account or nil. Its call expires at until.
func (r *requests) add(q *wire.Request, process *quota.Account, until time.Time) {
	n := valueSize(q)
	if r.isLong(n) {
		frame := wire.AppendRequest(make([]byte, 0, n+len(q.Key)+smallParts), q)
		r.long.Push(process, longOne{q.ID, frame, until, process})
		r.bytes += int64(cap(frame))
		r.sent.Add(process, int64(cap(frame)))
		return
	}
	if n > 0 {
		r.sent.Add(process, int64(n))
		r.shorts = append(r.shorts, part{process, int64(n)})
	}
	r.short = wire.AppendRequest(r.short, q)
	if until.After(r.last) {
		r.last = until
	}
}

// addEnd adds a short request that is written after all others.
func (r *requests) addEnd(q *wire.Request, until time.Time) {
	r.end = longOne{frame: wire.AppendRequest(nil, q), until: until}
}

// removeExpired removes the long requests whose calls have expired, and calls left for each.
func (r *requests) removeExpired(now time.Time, left func(id uint64)) {
	r.long.Remove(func(one longOne) bool {
		if now.Before(one.until) {
			return false
		}
		n := int64(cap(one.frame))
		r.bytes -= n
		r.sent.Add(one.process, -n)
		left(one.id)
		return true
	})
}

// removeAll removes the requests that wait, and those of the present write that are not
// in front of its last unsent bytes. It calls left for each.
func (r *requests) removeAll(unsent int, left func(id uint64)) {
	idsBehind(r.writes, len(r.writes)-unsent, left)
	idsBehind(r.short, 0, left)
	for r.long.Len() > 0 {
		one := r.long.Pop()
		r.bytes -= int64(cap(one.frame))
		r.sent.Add(one.process, -int64(cap(one.frame)))
		left(one.id)
	}
	for _, p := range r.shorts {
		r.sent.Add(p.process, -p.n)
	}
	idsBehind(r.end.frame, 0, left)
	r.short, r.shorts, r.last, r.end = r.short[:0], r.shorts[:0], time.Time{}, longOne{}
}

// idsBehind calls each with the ids of the frames of b that end behind an offset.
func idsBehind(b []byte, offset int, each func(id uint64)) {
	for at := 0; at < len(b); {
		begin := at + wire.LengthSize
		at = begin + wire.FrameLength(b[at:])
		if id, ok := wire.PeekID(b[begin:at]); ok && at > offset {
			each(id)
		}
	}
}

// smallParts is more than most requests have beside their key and value, in bytes.
const smallParts = 512

// next removes what is to be written next, and returns when the last of its calls
// expires.
func (r *requests) next() (b []byte, last time.Time) {
	long := r.long.Len() > 0 && (!r.alone || len(r.short) == 0)
	r.alone = long || len(r.short) == 0
	switch {
	case long:
		one := r.long.Pop()
		b, last = one.frame, one.until
		r.bytes -= int64(cap(b))
		r.parts = append(r.parts, part{one.process, int64(cap(b))})
	case r.alone:
		b, last = r.end.frame, r.end.until
		r.end = longOne{}
	default:
		b, last = r.short, r.last
		r.short, r.spare, r.last = r.spare[:0], nil, time.Time{}
		r.parts, r.shorts = r.shorts, r.parts
	}
	r.writes = b
	return b, last
}

// written takes back what next has returned. It says whether there was anything.
func (r *requests) written() bool {
	b := r.writes
	if b == nil {
		return false
	}
	r.writes = nil
	for _, p := range r.parts {
		r.sent.Add(p.process, -p.n)
	}
	clear(r.parts)
	r.parts = r.parts[:0]
	if cap(b) <= 4*transport.BufferSize && !r.alone {
		r.spare = b
	}
	return true
}
