package server

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// Go runs a request that must wait. task returns the answer, a whole frame, which is
// written when task returns; its bytes then belong to the connection. Go is for requests
// that only read: if there is no memory for the answer, the answer is BUSY.
func (c *Conn) Go(task func() []byte) {
	c.Begin(nil)
	c.Run(reading(task))
}

// reading returns the task of a request that only reads.
func reading(task func() []byte) func() (answer []byte, reads bool) {
	return func() ([]byte, bool) { return task(), true }
}

// Begin begins a request that must wait; Run or Answer ends it. Begin waits while the
// connection has MaxInFlight requests or too many bytes of answers that the peer does not
// take, so nothing more is read meanwhile. Begin also waits while room returns false,
// until other requests have ended, as long as there is memory to wait; a nil room always
// has room. stands says whether the connection still stands. If it does not, no call
// needs to be made for the request. Only the reader calls Begin.
func (c *Conn) Begin(room func() bool) (stands bool) {
	endCopy(c)
	o := &c.outbox
	o.mu.Lock()
	full := func() bool { return c.replies.tasks >= c.server.limits.MaxInFlight || o.fullLocked() }
	for o.err == nil && (full() || room != nil && !room()) {
		// The peer may wait for the answers and calls that the reader still has.
		if len(c.Out) > 0 || c.batch.calls != nil {
			o.mu.Unlock()
			_ = c.flush()
			o.mu.Lock()
			continue
		}
		if err := o.tryPinLocked(); err != nil {
			if !full() {
				break // the client is not to blame
			}
			o.failLocked(err)
			continue
		}
		switch {
		case full():
			o.wait()
		default:
			o.waitForRoomLocked()
		}
	}
	o.unpinLocked()
	c.replies.tasks++
	stands = o.err == nil
	o.mu.Unlock()
	c.server.inFlight.Add(1)
	return stands
}

// roomAgain is how often a connection that waits for room checks whether other
// connections of its process have left some.
const roomAgain = 5 * time.Millisecond

// waitForRoomLocked waits until something has changed, on this connection or possibly on
// another.
func (o *outbox) waitForRoomLocked() {
	again := time.AfterFunc(roomAgain, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.changed.Broadcast()
	})
	o.wait()
	again.Stop()
}

// Run ends a request that has begun with the answer of task, which says too whether the
// request has only read. If there is no memory for the answer, such a request is answered
// BUSY; after any other request the connection ends. An empty answer writes nothing.
func (c *Conn) Run(task func() (answer []byte, reads bool)) {
	go c.replies.run(task) // owned by the connection: drain waits for it
}

// Long runs a request that has begun and whose answer has about size bytes. It runs task
// when no long answer waits to be written. So all short answers come first, and of the
// long ones the shorter come before much longer ones. Long is for requests that only
// read. A task that would have to wait would delay all tasks behind it: it must hand its
// request on to Run and return nil.
func (c *Conn) Long(size int, task func() []byte) { c.replies.addLong(size, task) }

// Answer ends a request that has begun with the answer a.Frame. It does not wait, so a
// Caller may call it. reads is as in Run.
func (c *Conn) Answer(a *transport.Answers, reads bool) { c.replies.answer(a, reads) }

// Tell answers a request for which Begin was not called: the connection does not wait for
// it at its end, and it counts nowhere. Any goroutine may call Tell until the handler's Gone
// returns; a.Write sends the answer. The bytes of frame stay the caller's.
func (c *Conn) Tell(a *transport.Answers, frame []byte) { c.replies.tell(a, frame) }

// While returns a context that ends once nothing can be written to the connection any
// more, or the connection has ended. Only the reader calls While. The connection keeps
// one such context, the last.
func (c *Conn) While(ctx context.Context) context.Context { return c.replies.while(ctx) }

// Takes returns nil if an answer of n bytes would be accepted now. Otherwise it returns
// the reason: the connection has ended, or the answers that wait for its client fill its
// part of the budget.
func (c *Conn) Takes(n int) error {
	o := &c.outbox
	if err := o.failure(); err != nil || o.blocked.Load() == 0 {
		return err
	}
	return o.share.Fits(int64(n))
}

// Hold charges n bytes for a request that waits, until Free. An error means that there is
// no memory.
func (c *Conn) Hold(n int) error { return c.account.Take(quota.ForRequests, int64(n)) }

// Free gives back n bytes of Hold.
func (c *Conn) Free(n int) { c.account.Give(quota.ForRequests, int64(n)) }

// Account returns the account of the connection.
func (c *Conn) Account() *quota.Account { return c.account }
