package rpc

import (
	"context"
	"slices"
	"sort"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Go runs a request that must wait. task returns the answer, a whole frame, which is
// written when task returns; its bytes then belong to the connection. Go is for requests
// that only read: if there is no memory for the answer, the answer is BUSY.
func (c *Conn) Go(task func() []byte) {
	c.Begin(nil)
	c.Run(true, task)
}

// Begin begins a request that must wait; Run or Answer ends it. Begin waits while the
// connection has MaxInFlight requests or too many bytes of answers that the peer does not
// take, so nothing more is read meanwhile. Begin also waits while room returns false,
// until other requests have ended, as long as there is memory to wait; a nil room always
// has room. stands says whether the connection still stands. If it does not, no call
// needs to be made for the request. Only the reader calls Begin.
func (c *Conn) Begin(room func() bool) (stands bool) {
	c.mu.Lock()
	full := func() bool {
		return c.tasks >= c.shared.limits.MaxInFlight || c.writing && c.queue.bytes > maxQueued
	}
	for c.err == nil && (full() || room != nil && !room()) {
		// The peer may wait for the answers and calls that the reader still has.
		if len(c.Out) > 0 || c.asked != nil {
			c.mu.Unlock()
			_ = c.flush()
			c.mu.Lock()
			continue
		}
		if err := c.tryPinLocked(); err != nil {
			if !full() {
				break // the client is not to blame
			}
			c.failLocked(err)
			continue
		}
		if full() {
			c.changed.Wait()
		} else {
			c.waitForRoomLocked()
		}
	}
	c.unpinLocked()
	c.tasks++
	stands = c.err == nil
	c.mu.Unlock()
	c.shared.inFlight.Add(1)
	return stands
}

// roomAgain is how often a connection that waits for room checks whether other
// connections of its process have left some.
const roomAgain = 5 * time.Millisecond

// waitForRoomLocked waits until something has changed, on this connection or possibly on
// another.
func (c *Conn) waitForRoomLocked() {
	again := time.AfterFunc(roomAgain, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	c.changed.Wait()
	again.Stop()
}

// Run ends a request that has begun with the answer of task. If there is no memory for
// the answer, a request that only reads is answered BUSY; after any other request the
// connection ends.
func (c *Conn) Run(reads bool, task func() []byte) {
	go func() { // owned by the connection: drain waits for it
		c.send(task(), reads)
		c.mu.Lock()
		c.endLocked()
		c.mu.Unlock()
	}()
}

// longTask is a request of Long.
type longTask struct {
	// due orders the tasks, lowest first; in bytes of long answers sent.
	due  int64
	task func() []byte
}

// longPatience bounds how many bytes of later answers may overtake a long answer, in
// multiples of its own length.
const longPatience = 8

// Long runs a request that has begun and whose answer has about size bytes. It runs task
// when no long answer waits to be written. So all short answers come first, and of the
// long ones the shorter come before much longer ones. Long is for requests that only
// read. A task that would have to wait would delay all tasks behind it: it must hand its
// request on to Run and return nil.
func (c *Conn) Long(size int, task func() []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := longTask{c.sentLong + longPatience*int64(size), task}
	at := sort.Search(len(c.longs), func(i int) bool { return c.longs[i].due > t.due })
	c.longs = slices.Insert(c.longs, at, t)
	if !c.longRuns {
		c.longRuns = true
		go c.runLong() // owned by the connection: drain waits for the requests
	}
}

func (c *Conn) runLong() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.longs) > 0 {
		for c.err == nil && c.queue.long > 0 {
			c.changed.Wait()
		}
		task := c.longs[0].task
		c.longs = slices.Delete(c.longs, 0, 1)
		c.mu.Unlock()
		b := task()
		if b != nil {
			c.send(b, true)
		}
		c.mu.Lock()
		if c.sentLong += int64(len(b)); b != nil {
			c.endLocked()
		}
	}
	c.longs, c.longRuns = nil, false
}

// endLocked counts a request as ended.
func (c *Conn) endLocked() {
	c.shared.inFlight.Add(-1)
	c.tasks--
	c.changed.Broadcast()
}

// Start makes a call for a request that has begun. caller is told the outcome of the
// call, and ends the request. The call is sent, with the calls of other requests, when
// the requests at hand have been served. If Start returns an error, caller is not told
// anything. Only the reader calls Start.
func (c *Conn) Start(to *Client, q *wire.Request, timeout time.Duration, caller Caller) error {
	if c.asked != to {
		c.ask()
		c.asked = to
	}
	return to.queue(q, timeout, caller)
}

// ask sends the calls of Start. No other goroutine sends them, so ask comes before
// anything that the reader may have to wait for.
func (c *Conn) ask() {
	if c.asked != nil {
		c.asked.flush()
		c.asked = nil
	}
}

// Answers collects the answers to calls that came in one read, and the connections whose
// requests they end.
type Answers struct {
	Frame []byte // of the answer; its buffer is reused for the next one

	conns []*Conn // for which Write is the writer
}

// Answer ends a request that has begun with the answer a.Frame. It does not wait, so a
// Caller may call it. reads is as in Run.
func (c *Conn) Answer(a *Answers, reads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	given := len(a.Frame) > shortAnswer
	if c.sendLocked(a.Frame, given, reads); c.err == nil && !c.writing {
		c.writing = true
		a.conns = append(a.conns, c)
	}
	if given {
		a.Frame = nil
	}
	c.endLocked()
}

// While returns a context that ends once nothing can be written to the connection any
// more, or the connection has ended. Only the reader calls While. The connection keeps
// one such context, the last.
func (c *Conn) While(ctx context.Context) context.Context {
	ctx, over := context.WithCancel(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over = over; c.err != nil {
		over()
	}
	return ctx
}

// Takes returns nil if an answer of n bytes would be accepted now. Otherwise it returns
// the reason: the connection has ended, or the answers that wait for its client fill its
// part of the budget.
func (c *Conn) Takes(n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if c.blocked.Load() == 0 {
		return nil
	}
	return c.partFor(c.answers.Load(), int64(n))
}

// Write writes the answers, as far as that is possible without waiting.
func (a *Answers) Write() {
	for _, c := range a.conns {
		c.writeAnswers()
	}
	clear(a.conns)
	a.conns = a.conns[:0]
}

// writeAnswers writes the queue, as far as that is possible without waiting. A goroutine
// writes the rest.
func (c *Conn) writeAnswers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && len(c.queue.wait()) > 0 {
		c.byReader, c.current = false, c.queue.pop()
		ch := c.current
		c.mu.Unlock()
		n, err := c.writeNow(ch.b)
		behind := c.behind()
		c.shared.bytesOut.Add(int64(n))
		c.mu.Lock()
		if err == nil && (n < len(ch.b) || behind) {
			ch = c.current // it may have been charged meanwhile
			ch.b = ch.b[n:]
			c.current = chunk{}
			go func() { // owned by the connection: drain waits until the writer is done
				c.mu.Lock()
				defer c.mu.Unlock()
				c.writeLocked(ch, false)
			}()
			return
		}
		c.writtenLocked(err)
	}
	c.wroteLocked()
}
