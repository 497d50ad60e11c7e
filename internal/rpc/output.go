package rpc

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Grow makes room for n more bytes in Out. Beyond 64 KiB the memory is charged to the
// budget. If between is set, Out ends with a whole answer, and Grow first writes what Out
// has. An error says why there is no memory.
func (c *Conn) Grow(n int, between bool) error {
	if len(c.Out)+n <= smallBuffer {
		return nil
	}
	if between {
		if err := c.flush(); err != nil {
			return err
		}
	}
	need := int64(len(c.Out) + n)
	if need <= int64(cap(c.Out)) {
		return nil
	}
	need = (need + page - 1) &^ (page - 1)
	if twice := 2 * c.outHeld; twice > need && c.hasAnswers(twice-c.outHeld, 0) == nil {
		need, c.outHeld = twice, twice
	} else if need > smallBuffer {
		if err := c.hasAnswers(need-c.outHeld, 0); err != nil {
			return err
		}
		c.outHeld = need
	}
	grown := make([]byte, len(c.Out), need)
	copy(grown, c.Out)
	c.Out = grown
	return nil
}

// Flush writes what Out has, so that a long answer has all of the buffer. It says whether
// the connection still stands.
func (c *Conn) Flush() bool { return c.flush() == nil }

// outBuffer is what the reader needs while it serves.
type outBuffer struct {
	bytes  [smallBuffer]byte
	frames [MaxServe][]byte
}

var outBuffers = sync.Pool{New: func() any { return new(outBuffer) }}

// acquireOut gives the reader a buffer for its answers.
func (c *Conn) acquireOut() {
	c.outPool = outBuffers.Get().(*outBuffer)
	c.Out = c.outPool.bytes[:0]
}

func (c *Conn) releaseOut() {
	if c.outHeld > 0 { // the answer was not sent
		c.free(chunk{held: c.outHeld})
		c.outHeld = 0
	}
	clear(c.outPool.frames[:])
	outBuffers.Put(c.outPool)
	c.outPool, c.Out = nil, nil
}

// flush writes what Out has, or leaves it to the goroutine that writes already.
func (c *Conn) flush() error {
	c.ask()
	if len(c.Out) == 0 {
		return nil
	}
	own := chunk{b: c.Out, held: c.outHeld}
	c.Out, c.outHeld = c.outPool.bytes[:0], 0
	c.served = true
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.writing && c.err == nil && c.queue.bytes > maxQueued { // the peer is slow
		c.pinLocked()
		c.changed.Wait()
	}
	switch {
	case c.err != nil:
		c.free(own)
	case c.writing && own.held > 0: // its bytes are not shared
		c.queue.push(own)
	case c.writing:
		if err := c.queueLocked(own.b, false); err != nil {
			c.failLocked(err)
		}
	default:
		c.writing = true
		c.writeLocked(own, true)
	}
	c.unpinLocked()
	return c.err
}

// maxQueued is how many bytes of answers may wait for a connection's writer before its
// reader waits too.
const maxQueued = 256 << 10

// queue is the answers that wait to be written, in their order.
type queue struct {
	chunks []chunk // from first on
	first  int
	bytes  int
	long   int // answers beyond shortAnswer, in chunks or being written
	old    int // leading chunks that wait since Conn.blocked
}

// chunk is a part of the queue: short answers that share a pooled buffer, or one long
// answer with its own bytes.
type chunk struct {
	b      []byte
	pooled *[smallBuffer]byte
	held   int64 // bytes charged to the account for it
	long   bool  // counts in queue.long
}

func (q *queue) push(ch chunk) {
	q.chunks = append(q.chunks, ch)
	q.bytes += len(ch.b)
}

// wait returns the chunks that wait.
func (q *queue) wait() []chunk { return q.chunks[q.first:] }

// pop removes the first chunk.
func (q *queue) pop() chunk {
	ch := q.chunks[q.first]
	q.chunks[q.first] = chunk{}
	q.bytes -= len(ch.b)
	if q.first++; q.first == len(q.chunks) {
		q.first = 0
		if q.chunks = q.chunks[:0]; cap(q.chunks) > MaxServe {
			q.chunks = nil
		}
	}
	return ch
}

// shortAnswer is the longest answer that shares a pooled buffer with others, in bytes.
const shortAnswer = smallBuffer / 4

// sayBusy is the longest answer that is never replaced by BUSY, in bytes.
const sayBusy = 4 << 10

// queueLocked queues an answer behind those that wait. The bytes of b belong to the
// caller again, unless they are given. An error means that there is no memory.
func (c *Conn) queueLocked(b []byte, given bool) error {
	q := &c.queue
	if n := len(q.chunks); n > q.first && len(b) <= shortAnswer {
		if ch := &q.chunks[n-1]; ch.pooled != nil && len(ch.b)+len(b) <= smallBuffer {
			ch.b = append(ch.b, b...)
			q.bytes += len(b)
			return nil
		}
	}
	if len(b) <= shortAnswer {
		ch := chunk{pooled: buffers.Get().(*[smallBuffer]byte)}
		ch.b = append(ch.pooled[:0], b...)
		if c.blocked.Load() != 0 {
			if err := c.hasAnswers(smallBuffer, forShort); err != nil {
				buffers.Put(ch.pooled)
				return err
			}
			ch.held = smallBuffer
		}
		q.push(ch)
		return nil
	}
	n := int64(cap(b))
	if err := c.hasAnswers(n, 0); err != nil {
		return err
	}
	if !given {
		b = append([]byte(nil), b...)
		c.account.Force(ForAnswers, int64(cap(b))-n)
		c.answers.Add(int64(cap(b)) - n)
		n = int64(cap(b))
	}
	q.push(chunk{b: b, held: n, long: true})
	q.long++
	return nil
}

// forShort is what a connection may have beyond its quarter of the budget for necessary
// answers such as BUSY, in bytes.
const forShort = 1 << 20

// hasAnswers charges memory for answers. One connection may have a quarter of the budget,
// and beyond bytes more for short answers and the buffers of a reader that waits.
func (c *Conn) hasAnswers(n, beyond int64) error {
	if c.account == nil {
		return nil
	}
	if err := c.partFor(c.answers.Add(n)-n, n-beyond); err != nil {
		c.answers.Add(-n)
		return err
	}
	if err := c.account.Take(ForAnswers, n); err != nil {
		c.answers.Add(-n)
		return err
	}
	return nil
}

// partFor returns why a connection that has so many bytes of answers may not have n more,
// or nil.
func (c *Conn) partFor(has, n int64) error {
	if c.account == nil || has <= 0 || has+n <= c.account.budget.max/4 {
		return nil
	}
	c.account.budget.refused[ForAnswers].Add(1)
	return fmt.Errorf("%w: answers of %s wait on this connection, which may have a quarter of buffer_size: read them, or ask for less at a time",
		ErrBusy, mib(has))
}

// free gives back the memory of a chunk. It needs no lock.
func (c *Conn) free(ch chunk) {
	if ch.pooled != nil {
		buffers.Put(ch.pooled)
	}
	if ch.held > 0 {
		c.answers.Add(-ch.held)
		c.account.Give(ForAnswers, ch.held)
	}
}

// sendLocked queues an answer. If there is no memory, BUSY replaces the answer to a
// request that only reads; any other request ends the connection.
func (c *Conn) sendLocked(b []byte, given, reads bool) {
	if c.err != nil {
		return
	}
	// Otherwise b may be BUSY in place of a long answer.
	if n := int64(len(b)); reads && (n > sayBusy || c.blocked.Load() == 0) {
		c.account.expect(n)
	}
	err := c.queueLocked(b, given)
	if err != nil && reads && len(b) > sayBusy {
		if id, ok := wire.PeekID(b[wire.LengthSize:]); ok {
			err = c.queueLocked(wire.AppendError(nil, id, wire.Errorf(wire.Busy, "%v", err)), false)
		}
	}
	if err != nil {
		c.failLocked(err)
	}
}

// send writes the answer b of a task, or leaves it to the goroutine that writes already.
func (c *Conn) send(b []byte, reads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sendLocked(b, true, reads); c.err != nil || c.writing {
		return
	}
	c.writing = true
	c.writeLocked(c.queue.pop(), false)
}

// writeLocked writes a chunk, and then what has been queued meanwhile. The lock is held
// at entry and exit, and released while it writes. The caller has set writing.
func (c *Conn) writeLocked(ch chunk, reader bool) {
	for {
		c.byReader, c.current = reader, ch
		c.mu.Unlock()
		err := c.write(ch.b)
		c.shared.bytesOut.Add(int64(len(ch.b)))
		c.mu.Lock()
		c.writtenLocked(err)
		if c.err != nil || len(c.queue.wait()) == 0 {
			break
		}
		ch = c.queue.pop()
		c.changed.Broadcast()
	}
	c.wroteLocked()
}

// writtenLocked ends the write of the current chunk.
func (c *Conn) writtenLocked(err error) {
	c.free(c.current)
	if c.current.long {
		c.queue.long--
	}
	c.current = chunk{}
	if err != nil {
		c.failLocked(err)
	}
	if q := &c.queue; q.old > 0 && c.err == nil {
		q.old--
	} else {
		q.old = 0
		c.blocked.Store(0)
	}
}

// blocks is called before a write waits, and returns an error if it must not wait. From
// then on the waiting answers are charged, and grow old until all of them are taken.
func (c *Conn) blocks() error {
	first := c.blocked.CompareAndSwap(0, time.Now().UnixNano())
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.killed.Load() && c.err == nil {
		return os.ErrDeadlineExceeded // as after its deadline
	}
	if c.err != nil || !first {
		return c.err
	}
	c.queue.old = len(c.queue.wait())
	if c.byReader {
		c.pinLocked()
	}
	need := func(ch *chunk) {
		if ch.pooled == nil || ch.held > 0 || c.err != nil {
			return
		}
		if err := c.hasAnswers(smallBuffer, forShort); err != nil {
			c.failLocked(err)
			return
		}
		ch.held = smallBuffer
	}
	need(&c.current)
	for i := range c.queue.wait() {
		need(&c.queue.wait()[i])
	}
	return c.err
}

// pins is the memory that a waiting reader keeps from others, in bytes: both its buffers,
// and what its handler has for a batch.
const pins = 2*smallBuffer + 16<<10

// pinLocked charges the memory of a reader that waits, or ends the connection.
func (c *Conn) pinLocked() {
	if err := c.tryPinLocked(); err != nil {
		c.failLocked(err)
	}
}

// tryPinLocked charges the memory of a reader that waits, or returns an error.
func (c *Conn) tryPinLocked() error {
	if c.pinned || c.err != nil {
		return nil
	}
	if err := c.hasAnswers(pins, forShort); err != nil {
		return err
	}
	c.pinned = true
	return nil
}

func (c *Conn) unpinLocked() {
	if c.pinned {
		c.pinned = false
		c.answers.Add(-pins)
		c.account.Give(ForAnswers, pins)
	}
}

// failLocked ends the connection because it cannot be written to.
func (c *Conn) failLocked(err error) {
	if c.err != nil {
		return
	}
	switch {
	case isTimeout(err) && c.squeezed.Load():
		c.shared.overBudget.Add(1)
		err = fmt.Errorf("%w, and others need the memory of its answers", ErrSlowReader)
	case isTimeout(err):
		c.shared.slowReaders.Add(1)
		err = ErrSlowReader
	case errors.Is(err, ErrBusy):
		c.shared.overBudget.Add(1)
		err = fmt.Errorf("%w, and %w", ErrSlowReader, err)
	}
	c.err = err
	if c.over != nil {
		c.over()
	}
	// Wakes the reader and the writer. Close would wait for the reader, and the reader
	// may be the caller.
	_ = c.nc.SetDeadline(time.Unix(1, 0))
}

// wroteLocked ends the turn of the goroutine that wrote.
func (c *Conn) wroteLocked() {
	for len(c.queue.wait()) > 0 { // the connection has ended
		c.free(c.queue.pop())
	}
	c.writing = false
	c.changed.Broadcast()
}
