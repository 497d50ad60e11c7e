package server

import (
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/sched"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// batch is what the reader of a connection has beside Conn.Out while it serves a batch.
type batch struct {
	buffer  *batchBuffer // the array of Out while Out is short; nil between batches
	charged int64        // bytes charged for large answers in Out
	calls   Flusher      // see FlushLater
}

// batchBuffer is what the reader needs while it serves.
type batchBuffer struct {
	bytes  [transport.BufferSize]byte
	frames [MaxFrames][]byte
}

var batchBuffers = sync.Pool{New: func() any { return new(batchBuffer) }}

// takeBuffer takes a buffer from the pool, and returns its room for Out.
func (b *batch) takeBuffer() []byte {
	b.buffer = batchBuffers.Get().(*batchBuffer)
	return b.buffer.bytes[:0]
}

// dropBuffer gives the buffer back, and Out with it.
func (b *batch) dropBuffer() {
	clear(b.buffer.frames[:])
	batchBuffers.Put(b.buffer)
	b.buffer = nil
}

// beginBatch gives the reader a buffer for its answers.
func (c *Conn) beginBatch() {
	c.Out = c.batch.takeBuffer()
	c.outbox.waited = false
}

// endBatch takes the buffer back.
func (c *Conn) endBatch() {
	c.turn.release()
	if b := &c.batch; b.charged > 0 { // the answer was not sent
		c.outbox.share.Give(b.charged)
		b.charged = 0
	}
	c.batch.dropBuffer()
	c.Out = nil
}

// Grow makes room for n more bytes in Out. Beyond 64 KiB the memory is charged to the
// budget. If between is set, Out ends with a whole answer, and Grow first writes what Out
// has. An error says why there is no memory.
func (c *Conn) Grow(n int, between bool) error {
	if len(c.Out)+n <= transport.BufferSize {
		return nil
	}
	if between {
		if err := c.flush(); err != nil {
			return err
		}
	}
	need := int64(len(c.Out) + n)
	if need >= quota.LongCopy {
		if err := c.takeTurn(quota.CopyTurn); err != nil {
			return err
		}
	}
	if need <= int64(cap(c.Out)) {
		return nil
	}
	need = (need + quota.PageSize - 1) &^ (quota.PageSize - 1)
	has, share := &c.batch.charged, &c.outbox.share
	// Twice what it has, while the budget allows it: an answer of many parts is then copied few times.
	if twice := 2 * *has; twice > need && share.Take(twice-*has, 0) == nil {
		need, *has = twice, twice
	} else if need > transport.BufferSize {
		if err := share.Take(need-*has, 0); err != nil {
			return err
		}
		*has = need
	}
	grown := make([]byte, len(c.Out), need)
	copy(grown, c.Out)
	c.Out = grown
	return nil
}

// Flush writes what Out has, so that a long answer has all of the buffer. It says whether
// the connection still stands.
func (c *Conn) Flush() bool { return c.flush() == nil }

// flush writes what Out has, or leaves it to the goroutine that writes already.
func (c *Conn) flush() error {
	c.turn.release()
	c.sendCalls()
	if c.lost == nil && c.socket.Killed() { // by the handler too: it wants no answer to go
		c.lost = errKilled
	}
	if c.lost != nil || len(c.Out) == 0 {
		return c.lost
	}
	answers := chunk{b: c.Out, charged: c.batch.charged}
	c.Out, c.batch.charged = c.batch.buffer.bytes[:0], 0
	c.lost = c.outbox.sendBatch(answers)
	return c.lost
}

// Flusher sends calls that have been made, without waiting.
type Flusher interface{ Flush() }

// FlushLater makes calls.Flush send the calls of the requests at hand, once they have been served.
// Only the reader calls it, before it makes a call.
func (c *Conn) FlushLater(calls Flusher) {
	if c.batch.calls != calls {
		c.sendCalls()
		c.batch.calls = calls
	}
}

// sendCalls sends the calls of FlushLater. No other goroutine sends them, so sendCalls comes
// before anything that the reader may have to wait for.
func (c *Conn) sendCalls() {
	if c.batch.calls != nil {
		c.batch.calls.Flush()
		c.batch.calls = nil
	}
}

// takeTurn has the reader wait for a turn. An error means that it has none: there is no memory to wait with, or the
// connection has ended.
func (c *Conn) takeTurn(kind quota.Turn) error {
	sched.NoteBusy()
	if c.turn.tryAcquire(kind) {
		return nil
	}
	if kind == quota.LongTurn { // between two answers
		if err := c.flush(); err != nil {
			return err
		}
	}
	c.sendCalls()
	return c.outbox.waitIn(pins, func() { c.turn.acquire(kind) })
}

// BeginCopy has the reader wait for a turn to copy n bytes, if they are many, and charges them, until EndCopy. An
// error means that there is no memory.
func (c *Conn) BeginCopy(n int) error {
	if n >= quota.LongCopy {
		if err := c.takeTurn(quota.CopyTurn); err != nil {
			return err
		}
	}
	return c.Hold(n)
}

// EndCopy ends a turn to copy n bytes.
func (c *Conn) EndCopy(n int) {
	if c.Free(n); n >= quota.LongCopy {
		c.turn.release()
	}
}
