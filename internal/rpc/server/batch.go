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
	turn    quota.Turn   // that the reader has; 0: none
}

// batchBuffer is what the reader needs while it serves.
type batchBuffer struct {
	bytes  [transport.BufferSize]byte
	frames [MaxFrames][]byte
}

var batchBuffers = sync.Pool{New: func() any { return new(batchBuffer) }}

// beginBatch gives the reader a buffer for its answers.
func (c *Conn) beginBatch() {
	takeBuffer(c)
	c.outbox.waited = false
}

func takeBuffer(c *Conn) {
	c.batch.buffer = batchBuffers.Get().(*batchBuffer)
	c.Out = c.batch.buffer.bytes[:0]
}

func (c *Conn) dropBuffer() {
	clear(c.batch.buffer.frames[:])
	batchBuffers.Put(c.batch.buffer)
	c.batch.buffer, c.Out = nil, nil
}

// endBatch takes the buffer back.
func (c *Conn) endBatch() {
	b := &c.batch
	endTurn(c)
	if b.charged > 0 { // the answer was not sent
		c.outbox.share.Give(b.charged)
		b.charged = 0
	}
	c.dropBuffer()
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
		if err := beginTurn(c, quota.CopyTurn); err != nil {
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
	endTurn(c)
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

// beginTurn makes the reader of a connection wait for a turn, after the one that it has, if that is
// another one. The turn ends when the answers are written, or when the request waits.
func beginTurn(c *Conn, kind quota.Turn) error {
	sched.NoteBusy()
	if c.batch.turn == kind {
		return nil
	}
	endTurn(c)
	if c.account.TryTurn(kind) {
		c.batch.turn = kind
		return nil
	}
	if kind == quota.LongTurn { // between two answers
		if err := c.flush(); err != nil {
			return err
		}
	}
	c.sendCalls()
	return c.outbox.waitIn(pins, func() {
		c.account.BeginTurn(kind)
		c.batch.turn = kind
	})
}

// endTurn ends the turn of a connection's reader, if it has one.
func endTurn(c *Conn) {
	if c.batch.turn != 0 {
		c.account.EndTurn(c.batch.turn)
		c.batch.turn = 0
	}
}

// Turn makes the reader of a connection wait for a turn to copy n bytes, if they are many, and
// charges them, until EndTurn. An error means that there is no memory.
func Turn(c *Conn, n int) error {
	if n >= quota.LongCopy {
		if err := beginTurn(c, quota.CopyTurn); err != nil {
			return err
		}
	}
	return c.Hold(n)
}

// EndTurn ends a turn to copy n bytes.
func EndTurn(c *Conn, n int) {
	if c.Free(n); n >= quota.LongCopy {
		endTurn(c)
	}
}
