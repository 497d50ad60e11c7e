package rpc

import (
	"context"
	"sync"
	"time"
)

// Grow makes sure that Out may take n more bytes, out of the budget where it
// becomes longer than 64 KiB. With a wait it first writes what Out has and then
// waits so long for memory; that is possible only between two answers. It says
// whether the memory was to be had.
func (c *Conn) Grow(n int, wait time.Duration) bool {
	if len(c.Out)+n <= smallBuffer {
		return true
	}
	need := int64(len(c.Out) + n)
	if need <= c.outHeld {
		return true
	}
	if wait > 0 {
		if c.flush() != nil {
			return false
		}
		ctx, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		need = int64(n)
		if need <= smallBuffer {
			return true
		}
		if c.shared.out.sem.Acquire(ctx, need) != nil {
			return false
		}
	} else {
		if need = max(need, 2*c.outHeld); !c.shared.out.sem.TryAcquire(need - c.outHeld) {
			return false
		}
		need -= c.outHeld
	}
	c.outHeld += need
	c.shared.out.used.Add(need)
	if int64(cap(c.Out)) < c.outHeld {
		grown := make([]byte, len(c.Out), c.outHeld)
		copy(grown, c.Out)
		c.Out = grown
	}
	return true
}

// Flush writes what Out has, so that a long answer has all of the buffer. It
// says whether the connection still stands.
func (c *Conn) Flush() bool { return c.flush() == nil }

// acquireOut gives the reader a buffer for its answers.
func (c *Conn) acquireOut() {
	c.outPool = outBuffers.Get().(*outBuffer)
	c.Out = c.outPool.bytes[:0]
}

func (c *Conn) releaseOut() {
	clear(c.outPool.frames[:])
	outBuffers.Put(c.outPool)
	c.outPool, c.Out = nil, nil
}

// outBuffer is what a connection needs while it serves a batch.
type outBuffer struct {
	bytes  [smallBuffer]byte
	frames [MaxServe][]byte
}

var outBuffers = sync.Pool{New: func() any { return new(outBuffer) }}

// flush writes what Out has.
func (c *Conn) flush() error {
	c.ask()
	if len(c.Out) == 0 {
		return nil
	}
	err := c.send(c.Out)
	c.served = true
	if c.outHeld > 0 {
		c.shared.out.sem.Release(c.outHeld)
		c.shared.out.used.Add(-c.outHeld)
		c.outHeld = 0
	}
	c.Out = c.outPool.bytes[:0]
	return err
}

// maxQueued is how many bytes of answers may wait for a connection's writer
// before those who bring more wait too.
const maxQueued = 256 << 10

// send writes b, or leaves it to whoever writes already.
func (c *Conn) send(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing && c.err == nil && len(c.queued) > 0 && len(c.queued)+len(b) > maxQueued {
		c.changed.Wait()
	}
	if c.err != nil {
		return c.err
	}
	if c.writing {
		c.queued = append(c.queued, b...)
		return nil
	}
	c.writing = true
	c.writeLocked(b)
	return c.err
}

// writeLocked writes b, and then what has been queued meanwhile. The lock is
// held at entry and exit, and released while it writes.
func (c *Conn) writeLocked(b []byte) {
	for {
		c.mu.Unlock()
		err := c.write(b)
		c.shared.bytesOut.Add(int64(len(b)))
		c.mu.Lock()
		if err != nil {
			c.failLocked(err)
		}
		if c.err != nil || len(c.queued) == 0 {
			break
		}
		b = c.takeQueuedLocked()
	}
	c.wroteLocked()
}

// failLocked ends the connection, since it cannot be written to.
func (c *Conn) failLocked(err error) {
	if c.err != nil {
		return
	}
	if isTimeout(err) {
		c.shared.slowReaders.Add(1)
		err = ErrSlowReader
	}
	c.err = err
	// Wakes the reader. It must not be Close: that waits for the reader, who may
	// be us.
	_ = c.nc.SetDeadline(time.Unix(1, 0))
}

func (c *Conn) takeQueuedLocked() (b []byte) {
	b, c.queued, c.spare = c.queued, c.spare[:0], c.queued
	c.changed.Broadcast()
	return b
}

// wroteLocked ends the turn of whoever wrote.
func (c *Conn) wroteLocked() {
	if cap(c.spare) > smallBuffer {
		c.spare = nil
	}
	if cap(c.queued) > smallBuffer {
		c.queued = nil
	}
	c.writing = false
	c.changed.Broadcast()
}
