package rpc

import (
	"bytes"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Go runs a request that must wait: task returns its answer, a whole frame,
// which is written when it comes.
func (c *Conn) Go(task func() []byte) {
	c.Begin()
	c.Run(task)
}

// Begin begins a request that must wait, which Run or Answer ends. While the
// connection has MaxInFlight of them it waits, and so nothing more is read. It
// is the reader's.
func (c *Conn) Begin() {
	c.mu.Lock()
	for c.tasks >= c.shared.limits.MaxInFlight && c.err == nil {
		// Answers that the reader still has, and calls, may be what the peer waits
		// for.
		if len(c.Out) > 0 || c.asked != nil {
			c.mu.Unlock()
			_ = c.flush()
			c.mu.Lock()
			continue
		}
		c.changed.Wait()
	}
	c.tasks++
	c.mu.Unlock()
	c.shared.inFlight.Add(1)
}

// Run ends a request that has begun with what task returns.
func (c *Conn) Run(task func() []byte) {
	go func() { // owned by the connection: drain waits for it
		b := task()
		_ = c.send(b)
		c.mu.Lock()
		c.endLocked()
		c.mu.Unlock()
	}()
}

// endLocked counts a request as ended.
func (c *Conn) endLocked() {
	c.shared.inFlight.Add(-1)
	c.tasks--
	c.changed.Broadcast()
}

// Start makes a call for a request that has begun: caller is told what has
// become of it, and ends the request. The call is sent when the requests at
// hand have been served, with theirs. After an error caller is not told
// anything. It is the reader's.
func (c *Conn) Start(to *Client, q *wire.Request, timeout time.Duration, caller Caller) error {
	if c.asked != to {
		c.ask()
		c.asked = to
	}
	return to.queue(q, timeout, caller)
}

// ask sends the calls of Start. Nobody else need do it, so it comes before
// everything that the reader may have to wait for.
func (c *Conn) ask() {
	if c.asked != nil {
		c.asked.flush()
		c.asked = nil
	}
}

// Answers are what came in at once for calls, and the connections whose
// requests they end.
type Answers struct {
	Frame []byte // room for a frame, of whoever is told

	conns []*Conn // we write
}

// Answer ends a request that has begun, for a Caller: it does not wait. The
// frame's bytes are the caller's again when it returns.
func (c *Conn) Answer(a *Answers, frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
	case len(c.queued) > 0 && len(c.queued)+len(frame) > maxQueued: // the peer is slow
		b := bytes.Clone(frame)
		c.Run(func() []byte { return b })
		return
	default:
		c.queued = append(c.queued, frame...)
		if !c.writing {
			c.writing = true
			a.conns = append(a.conns, c)
		}
	}
	c.endLocked()
}

// Write writes what has been answered, as far as that goes without waiting.
func (a *Answers) Write() {
	for _, c := range a.conns {
		c.writeAnswers()
	}
	clear(a.conns)
	a.conns = a.conns[:0]
	if cap(a.Frame) > smallBuffer {
		a.Frame = nil
	}
}

// writeAnswers writes what is queued, once; a goroutine does the rest.
func (c *Conn) writeAnswers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.takeQueuedLocked()
	c.mu.Unlock()
	n, err := c.writeNow(b)
	c.shared.bytesOut.Add(int64(n))
	c.mu.Lock()
	if err != nil {
		c.failLocked(err)
	}
	switch {
	case c.err == nil && n < len(b):
		b = b[n:]
	case c.err == nil && len(c.queued) > 0:
		b = c.takeQueuedLocked()
	default:
		c.wroteLocked()
		return
	}
	go func() { // owned by the connection: drain waits until nobody writes
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writeLocked(b)
	}()
}
