package server

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// outbox is the answers of a connection that wait to be written, bounded by its share of the
// budget. It has a queue of chunks, and one goroutine at a time writes them, each with one write.
//
// That goroutine holds writing. Whoever finds writing unset may set it, under mu: the reader with the answers of its
// batch (sendBatch) or a descriptor (Conn.Pass), the goroutine of a request with its answer (replies.sendLocked), or
// the reader of another connection, which has come with answers for this one (replies.queueLocked; transport.Answers
// calls WriteNow later). The others queue their answers. The holder writes those too, and unsets writing in
// doneLocked. WriteNow alone passes writing on: a write that would wait goes to a goroutine of its own.
type outbox struct {
	socket *transport.Socket
	sent   *atomic.Int64 // counts bytes
	// onFail is told once, with the lock held, that err ends the connection, and returns the error to keep.
	onFail func(err error) error
	share  quota.AnswerShare

	// Since when the oldest chunks wait for the peer, UnixNano; zero: none wait.
	blocked atomic.Int64

	mu       sync.Mutex
	changed  sync.Cond // the queue is shorter, the writer is done, or a request has ended
	queue    queue
	writing  bool  // some goroutine writes
	current  chunk // being written
	byReader bool  // the reader writes current
	pinned   bool  // the reader waits, and its buffers are charged
	waited   bool  // the reader's own: it has waited in the present batch
	old      int   // leading chunks that wait since blocked
	err      error // ends the connection
}

func (o *outbox) init(s *transport.Socket, a *quota.Account, sent *atomic.Int64, onFail func(error) error) {
	o.socket, o.share.Account, o.sent, o.onFail = s, a, sent, onFail
	o.changed.L = &o.mu
}

// maxQueued is how many bytes of answers may wait for a connection's writer before its reader waits too.
const maxQueued = 256 << 10

// fullLocked says whether the reader must wait before it adds more.
func (o *outbox) fullLocked() bool {
	return o.writing && o.queue.bytes > maxQueued
}

// shortAnswer is the longest answer that shares a pooled buffer with others, in bytes.
const shortAnswer = transport.BufferSize / 4

// pushLocked queues an answer behind those that wait. The bytes of b belong to the caller
// again, unless they are given. An error means that there is no memory.
func (o *outbox) pushLocked(b []byte, given bool) error {
	if len(b) <= shortAnswer {
		if o.queue.join(b) {
			return nil
		}
		ch := chunk{pooled: transport.Buffers.Get().(*[transport.BufferSize]byte)}
		ch.b = append(ch.pooled[:0], b...)
		if o.blocked.Load() != 0 {
			if err := o.chargePooled(&ch); err != nil {
				transport.Buffers.Put(ch.pooled)
				return err
			}
		}
		o.queue.push(ch)
		return nil
	}
	n := int64(cap(b))
	if err := o.share.Take(n, 0); err != nil {
		return err
	}
	if !given {
		b = append([]byte(nil), b...)
		o.share.Force(int64(cap(b)) - n)
		n = int64(cap(b))
	}
	o.queue.push(chunk{b: b, charged: n, long: true})
	return nil
}

// forShort is what a connection may have beyond its quarter of the budget for necessary
// answers such as BUSY, in bytes.
const forShort = 1 << 20

// chargePooled charges the pooled buffer of a chunk.
func (o *outbox) chargePooled(ch *chunk) error {
	err := o.share.Take(transport.BufferSize, forShort)
	if err == nil {
		ch.charged = transport.BufferSize
	}
	return err
}

// free gives back the memory of a chunk. It needs no lock.
func (o *outbox) free(ch chunk) {
	if ch.pooled != nil {
		transport.Buffers.Put(ch.pooled)
	}
	if ch.charged > 0 {
		o.share.Give(ch.charged)
	}
}

// sendBatch writes the answers of a batch, or leaves them to the goroutine that writes
// already. The bytes belong to the reader again, except if they are charged.
func (o *outbox) sendBatch(batch chunk) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waitNotFullLocked()
	o.sendBatchLocked(batch)
	o.unpinLocked()
	return o.err
}

// waitNotFullLocked makes the reader wait while it must not add more. The caller unpins.
func (o *outbox) waitNotFullLocked() {
	for o.err == nil && o.fullLocked() { // the peer is slow
		o.pinLocked()
		if o.err == nil {
			o.waitLocked()
		}
	}
}

func (o *outbox) sendBatchLocked(batch chunk) {
	switch {
	case o.err != nil:
		o.free(batch)
	case o.writing && batch.charged > 0: // its bytes are not shared
		o.queue.push(batch)
	case o.writing:
		if err := o.pushLocked(batch.b, false); err != nil {
			o.failLocked(err)
		}
	default:
		o.writing = true
		o.writeLocked(batch, true)
	}
}

// waitLocked makes the reader wait for a change. The lock is held at entry and exit.
func (o *outbox) waitLocked() {
	o.waited = true
	o.changed.Wait()
}

// waitIn has the reader wait in f, and charges what it holds meanwhile, in bytes. An error means that f
// was not called: there is no memory, or the connection has ended.
func (o *outbox) waitIn(holds int64, f func()) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if err := o.share.Take(holds, forShort); err != nil {
		return err
	}
	o.waited = true
	o.mu.Unlock()
	f()
	o.mu.Lock()
	o.share.Give(holds)
	return nil
}

// writeLocked writes a chunk, and then what has been queued meanwhile. The lock is held
// at entry and exit, and released while it writes. The caller has set writing.
func (o *outbox) writeLocked(ch chunk, reader bool) {
	for {
		o.byReader, o.current = reader, ch
		o.mu.Unlock()
		err := o.socket.Write(ch.b)
		o.sent.Add(int64(len(ch.b)))
		o.mu.Lock()
		o.writtenLocked(err)
		if !o.moreLocked() {
			break
		}
		ch = o.queue.pop()
		o.changed.Broadcast()
	}
	o.doneLocked()
}

// WriteNow writes what is queued, as far as that is possible without waiting. A goroutine
// writes the rest, so that the caller is never kept. The caller has set writing.
func (o *outbox) WriteNow() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.writeNowLocked()
}

func (o *outbox) writeNowLocked() {
	for o.moreLocked() {
		o.byReader, o.current = false, o.queue.pop()
		b := o.current.b
		o.mu.Unlock()
		n, behind, err := o.socket.WriteNow(b)
		o.sent.Add(int64(n))
		o.mu.Lock()
		if err == nil && o.err == nil && (n < len(b) || behind) {
			rest := o.current // it may have been charged meanwhile
			rest.b = b[n:]
			o.current = chunk{}
			go func() { // owned by the connection, whose end waits until the writer is done
				o.mu.Lock()
				defer o.mu.Unlock()
				o.writeLocked(rest, false)
			}()
			return
		}
		o.writtenLocked(err)
	}
	o.doneLocked()
}

// moreLocked says whether there is more to write.
func (o *outbox) moreLocked() bool { return o.err == nil && !o.queue.empty() }

// writtenLocked ends the write of the current chunk.
func (o *outbox) writtenLocked(err error) {
	o.free(o.current)
	if o.current.long {
		o.queue.long--
	}
	o.current = chunk{}
	if err != nil {
		o.failLocked(err)
	}
	if o.old > 0 && o.err == nil {
		o.old--
	} else {
		o.old = 0
		o.blocked.Store(0)
	}
}

// doneLocked ends the turn of the goroutine that wrote.
func (o *outbox) doneLocked() {
	for !o.queue.empty() { // the connection has ended
		o.free(o.queue.pop())
	}
	o.writing = false
	o.changed.Broadcast()
}

// beforeWait is called before a write of answers waits, and returns an error if it must not wait. From then on the
// waiting answers are charged, and grow old until all of them are taken.
func (o *outbox) beforeWait() error {
	first := o.blocked.CompareAndSwap(0, time.Now().UnixNano())
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.socket.Killed() && o.err == nil {
		return os.ErrDeadlineExceeded // as after its deadline
	}
	if o.byReader {
		o.waited = true
	}
	if o.err != nil || !first {
		return o.err
	}
	waiting := o.queue.waiting()
	o.old = len(waiting)
	if o.byReader {
		o.pinLocked()
	}
	o.chargeLocked(&o.current)
	for i := range waiting {
		o.chargeLocked(&waiting[i])
	}
	return o.err
}

// chargeLocked charges a chunk that has begun to wait, or ends the connection.
func (o *outbox) chargeLocked(ch *chunk) {
	if ch.pooled == nil || ch.charged > 0 || o.err != nil {
		return
	}
	if err := o.chargePooled(ch); err != nil {
		o.failLocked(err)
	}
}

// pins is the memory that a waiting reader keeps from others, in bytes: both its buffers,
// and what its handler has for a batch.
const pins = 2*transport.BufferSize + 16<<10

// pinLocked charges the memory of a reader that waits, or ends the connection.
func (o *outbox) pinLocked() {
	if err := o.tryPinLocked(); err != nil {
		o.failLocked(err)
	}
}

// tryPinLocked charges the memory of a reader that waits, or returns an error.
func (o *outbox) tryPinLocked() error {
	if o.pinned || o.err != nil {
		return nil
	}
	if err := o.share.Take(pins, forShort); err != nil {
		return err
	}
	o.pinned = true
	return nil
}

func (o *outbox) unpinLocked() {
	if o.pinned {
		o.pinned = false
		o.share.Give(pins)
	}
}

// failLocked ends the connection because of err. What waits is not written.
func (o *outbox) failLocked(err error) {
	if o.err == nil {
		o.err = o.onFail(err)
		// Wakes the reader and the writer. Close would wait for the reader, and the reader may be the caller.
		o.socket.Wake()
	}
}

// fail is failLocked.
func (o *outbox) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failLocked(err)
}

// failure returns why the connection ends, or nil.
func (o *outbox) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}
