package server

import (
	"context"
	"errors"
	"slices"
	"sort"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// replies are the requests of a connection that have left its reader, and the way of
// their answers into the outbox. Any goroutine may use it. The outbox's lock guards it.
type replies struct {
	server *shared
	outbox *outbox

	tasks  int        // requests that have begun and not ended
	cancel func()     // of the context of Conn.While; nil: none
	longs  []longTask // not begun, in their order
	runs   bool       // runLong runs
	sent   int64      // bytes of long answers so far
}

// sayBusy is the longest answer that is never replaced by BUSY, in bytes.
const sayBusy = 4 << 10

// pushLocked queues an answer. If there is no memory, BUSY replaces the answer to a
// request that only reads; any other request ends the connection.
func (r *replies) pushLocked(b []byte, given, reads bool) {
	o := r.outbox
	if o.err != nil || len(b) == 0 {
		return
	}
	// Otherwise b may be BUSY in place of a long answer.
	if n := int64(len(b)); reads && (n > sayBusy || o.blocked.Load() == 0) {
		o.share.Account.Expect(n)
	}
	err := o.pushLocked(b, given)
	if err != nil && reads && len(b) > sayBusy {
		if id, ok := wire.PeekID(b[wire.LengthSize:]); ok {
			err = o.pushLocked(wire.AppendError(nil, id, wire.Errorf(wire.Busy, "%v", err)), false)
		}
	}
	if err != nil {
		o.failLocked(err)
	}
}

// sendLocked writes the answer b of a task, or leaves it to the goroutine that writes already.
func (r *replies) sendLocked(b []byte, reads bool) {
	r.pushLocked(b, true, reads)
	if o := r.outbox; o.err == nil && !o.writing && !o.queue.empty() {
		o.writing = true
		o.writeLocked(o.queue.pop(), false)
	}
}

// queueLocked queues an answer that a.Write writes, unless a goroutine writes already.
func (r *replies) queueLocked(a *transport.Answers, b []byte, given, reads bool) {
	r.pushLocked(b, given, reads)
	if o := r.outbox; o.err == nil && !o.writing && !o.queue.empty() {
		o.writing = true
		a.Add(o)
	}
}

// endLocked counts a request as ended.
func (r *replies) endLocked() {
	r.server.inFlight.Add(-1)
	r.tasks--
	r.outbox.changed.Broadcast()
}

// longTask is a request of Conn.Long.
type longTask struct {
	// due orders the tasks, lowest first; in bytes of long answers sent.
	due  int64
	task func() []byte
}

// longPatience bounds how many bytes of later answers may overtake a long answer, in multiples of its own length.
const longPatience = 8

// runLong runs the long tasks, each when no long answer waits to be written.
func (r *replies) runLong() {
	o := r.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(r.longs) > 0 {
		for o.err == nil && o.queue.long > 0 {
			o.changed.Wait()
		}
		task := r.longs[0].task
		r.longs = slices.Delete(r.longs, 0, 1)
		o.mu.Unlock()
		b := task()
		o.mu.Lock()
		if b == nil { // handed on to Run
			continue
		}
		r.sendLocked(b, true)
		r.sent += int64(len(b))
		r.endLocked()
	}
	r.longs, r.runs = nil, false
}

// waitForAll waits until all requests are answered and everything is written. It returns why
// the connection has ended, or nil.
func (r *replies) waitForAll() error {
	o := r.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	for r.tasks > 0 || o.writing {
		o.changed.Wait()
	}
	r.cancelContext()
	return o.err
}

// cancelContext ends the context of while.
func (r *replies) cancelContext() {
	if r.cancel != nil {
		r.cancel()
	}
}

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

// Begin begins a request that must wait; Run or Answer ends it. Begin waits while the connection has MaxInFlight
// requests or too many bytes of answers that the peer does not take, so nothing more is read meanwhile. Begin also
// waits while room returns false, until other requests have ended, as long as there is memory to wait; a nil room
// always has room. stands says whether the connection still stands. If it does not, no call needs to be made for the
// request. Only the reader calls Begin.
func (c *Conn) Begin(room func() bool) (stands bool) {
	endTurn(c)
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
			o.waitLocked()
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

// waitForRoomLocked waits until something has changed, on this connection or possibly on another.
func (o *outbox) waitForRoomLocked() {
	again := time.AfterFunc(roomAgain, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.changed.Broadcast()
	})
	o.waitLocked()
	again.Stop()
}

// Run ends a request that has begun with the answer of task, which says too whether the
// request has only read. If there is no memory for the answer, such a request is answered
// BUSY; after any other request the connection ends. An empty answer writes nothing.
func (c *Conn) Run(task func() (answer []byte, reads bool)) {
	go func() { // owned by the connection: drain waits for it
		b, reads := task()
		c.outbox.mu.Lock()
		defer c.outbox.mu.Unlock()
		c.replies.sendLocked(b, reads)
		c.replies.endLocked()
	}()
}

// Long runs a request that has begun and whose answer has about size bytes. It runs task when no long answer waits to
// be written. So all short answers come first, and of the long ones the shorter come before much longer ones. Long is
// for requests that only read. A task that waits delays all tasks behind it. So it waits for a turn to copy at most,
// or hands its request on to Run and returns nil.
func (c *Conn) Long(size int, task func() []byte) {
	r := &c.replies
	r.outbox.mu.Lock()
	defer r.outbox.mu.Unlock()
	t := longTask{r.sent + longPatience*int64(size), task}
	at := sort.Search(len(r.longs), func(i int) bool { return r.longs[i].due > t.due })
	r.longs = slices.Insert(r.longs, at, t)
	if !r.runs {
		r.runs = true
		go r.runLong() // owned by the connection: waitForAll waits for the requests
	}
}

// Answer ends a request that has begun with the answer a.Frame. It does not wait, so a
// Caller may call it. reads is as in Run.
func (c *Conn) Answer(a *transport.Answers, reads bool) {
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	given := len(a.Frame) > shortAnswer
	c.replies.queueLocked(a, a.Frame, given, reads)
	if given {
		a.Frame = nil
	}
	c.replies.endLocked()
}

// Tell answers a request for which Begin was not called: the connection does not wait for
// it at its end, and it counts nowhere. Any goroutine may call Tell until the handler's Gone
// returns; a.Write sends the answer. The bytes of frame stay the caller's.
func (c *Conn) Tell(a *transport.Answers, frame []byte) {
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	c.replies.queueLocked(a, frame, false, true)
}

// While returns a context that ends once nothing can be written to the connection any more, or the connection has
// ended. Only the reader calls While. The connection keeps one such context, the last.
func (c *Conn) While(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	if c.replies.cancel = cancel; c.outbox.err != nil {
		cancel()
	}
	return ctx
}

// Hold charges n bytes for a request that waits, until Free. An error means that there is no memory.
func (c *Conn) Hold(n int) error { return c.account.Take(quota.ForRequests, int64(n)) }

// Free gives back n bytes of Hold.
func (c *Conn) Free(n int) { c.account.Give(quota.ForRequests, int64(n)) }

// Account returns the account of the connection.
func (c *Conn) Account() *quota.Account { return c.account }

// Wait has the reader of a connection wait in f. Before that it writes what Out has, so that f may take long.
// Meanwhile nothing more is read, and the connection ends if its client goes. last says that the caller needs nothing
// more of the frames at hand, whose memory is given back if nothing has come behind them. An error means that f was
// not called: there is no memory to wait with, or the connection has ended.
func Wait(c *Conn, last bool, f func()) error {
	if err := c.flush(); err != nil {
		return err
	}
	holds := int64(pins)
	if last = last && c.input.Len() == 0; last {
		holds = Waits
		c.input.Release()
		c.dropBuffer()
	}
	err := c.outbox.waitIn(holds, func() {
		c.server.inFlight.Add(1)
		leave := watch(c)
		f()
		leave()
		c.server.inFlight.Add(-1)
	})
	if last {
		takeBuffer(c)
	}
	return err
}

// Waits is what a goroutine takes that waits, in bytes: a stack of 16 KiB, and some more for what it
// waits with (measured).
const Waits = 20 << 10

// goneEvery is how often a reader that waits looks whether its client has gone.
const goneEvery = 100 * time.Millisecond

var errGone = errors.New("the client has gone, and its request waited")

// watch looks whether the client goes, until it is left.
func watch(c *Conn) (leave func()) {
	over := make(chan struct{})
	timer := time.AfterFunc(goneEvery, func() {
		for !EndOf(c).Ended() {
			select {
			case <-over:
				return
			case <-time.After(goneEvery):
			}
		}
		c.outbox.fail(errGone)
	})
	return func() {
		timer.Stop()
		close(over)
	}
}

// End is the end of a connection, for requests that wait: see EndOf.
type End Conn

// EndOf returns the end of a connection.
func EndOf(c *Conn) *End { return (*End)(c) }

// Ended says whether the connection's client has gone, or this host has ended the connection: no answer can come to
// the client any more. It asks the operating system, since the reader may have had no time yet to find out. A client
// that only sends nothing more has not gone. Over TCP a client that has closed its connection looks like that one,
// until it refuses an answer. Any goroutine may call Ended, also after the connection has been closed.
func (end *End) Ended() bool {
	return end.socket.Killed() || end.outbox.failure() != nil || end.socket.HungUp()
}

// Waited says whether the reader of a connection has had to wait since it has read the
// requests at hand. Only the reader calls it.
func Waited(c *Conn) bool { return c.outbox.waited }

// Lost says whether an answer of a connection could not be written. Nothing more is served then.
// Only the reader calls it.
func Lost(c *Conn) bool { return c.lost != nil }
