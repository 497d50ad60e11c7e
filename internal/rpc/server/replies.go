package server

import (
	"context"
	"slices"
	"sort"

	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// replies are the requests of a connection that have left its reader, and the way of their answers into the outbox.
// It is a part of Conn, so that handlers call Conn.Answer. Any goroutine may use it. The outbox's lock guards it.
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

// Run ends a request that has begun with the answer of task, which says too whether the
// request has only read. If there is no memory for the answer, such a request is answered
// BUSY; after any other request the connection ends. An empty answer writes nothing.
func (r *replies) Run(task func() (answer []byte, reads bool)) {
	go func() { // owned by the connection: drain waits for it
		b, reads := task()
		r.outbox.mu.Lock()
		defer r.outbox.mu.Unlock()
		r.sendLocked(b, reads)
		r.endLocked()
	}()
}

// Long runs a request that has begun and whose answer has about size bytes. It runs task when no long answer waits to
// be written. So all short answers come first, and of the long ones the shorter come before much longer ones. Long is
// for requests that only read. A task that waits delays all tasks behind it. So it waits for a turn to copy at most,
// or hands its request on to Run and returns nil.
func (r *replies) Long(size int, task func() []byte) {
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
func (r *replies) Answer(a *transport.Answers, reads bool) {
	r.outbox.mu.Lock()
	defer r.outbox.mu.Unlock()
	given := len(a.Frame) > shortAnswer
	r.queueLocked(a, a.Frame, given, reads)
	if given {
		a.Frame = nil
	}
	r.endLocked()
}

// Tell answers a request for which Begin was not called: the connection does not wait for
// it at its end, and it counts nowhere. Any goroutine may call Tell until the handler's Gone
// returns; a.Write sends the answer. The bytes of frame stay the caller's.
func (r *replies) Tell(a *transport.Answers, frame []byte) {
	r.outbox.mu.Lock()
	defer r.outbox.mu.Unlock()
	r.queueLocked(a, frame, false, true)
}

// While returns a context that ends once nothing can be written to the connection any more, or the connection has
// ended. Only the reader calls While. The connection keeps one such context, the last.
func (r *replies) While(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	r.outbox.mu.Lock()
	defer r.outbox.mu.Unlock()
	if r.cancel = cancel; r.outbox.err != nil {
		cancel()
	}
	return ctx
}
