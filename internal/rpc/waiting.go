package rpc

import (
	"context"
	"slices"
	"sort"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Go runs a request that must wait: task returns its answer, a whole frame,
// which is written when it comes, and whose bytes are the connection's. It is for
// requests that only read: where there is no memory for the answer, BUSY is said.
func (c *Conn) Go(task func() []byte) {
	c.Begin(nil)
	c.Run(true, task)
}

// Begin begins a request that must wait, which Run or Answer ends. While the
// connection has MaxInFlight of them, or too many bytes of answers that it does
// not take, it waits, and so nothing more is read. So it does while room says that there
// is none, until other requests have ended, if there is memory to wait; nil always has.
// It says whether the connection stands: where it does not, nothing need be asked for the
// request's sake. It is the reader's.
func (c *Conn) Begin(room func() bool) (stands bool) {
	c.mu.Lock()
	full := func() bool {
		return c.tasks >= c.shared.limits.MaxInFlight || c.writing && c.queue.bytes > maxQueued
	}
	for c.err == nil && (full() || room != nil && !room()) {
		// Answers that the reader still has, and calls, may be what the peer waits
		// for.
		if len(c.Out) > 0 || c.asked != nil {
			c.mu.Unlock()
			_ = c.flush()
			c.mu.Lock()
			continue
		}
		if err := c.tryPinLocked(); err != nil {
			if !full() {
				break // its client is not to blame
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

// roomAgain is how often a connection that waits for room looks, which others of its
// process may leave.
const roomAgain = 5 * time.Millisecond

// waitForRoomLocked waits until something has changed, or may have elsewhere.
func (c *Conn) waitForRoomLocked() {
	again := time.AfterFunc(roomAgain, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.changed.Broadcast()
	})
	c.changed.Wait()
	again.Stop()
}

// Run ends a request that has begun with what task returns. Where there is no
// memory for the answer a request that only reads is answered BUSY; after any other
// the connection ends.
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
	due  int64 // it comes before those that are due later, in bytes of long answers
	task func() []byte
}

// longPatience is how many times its own length a long answer lets others go first that
// came later.
const longPatience = 8

// Long runs a request that has begun and whose answer is long, of about so many bytes,
// when no long answer waits to be written: so all short ones come before it, and of the
// long ones the shorter before much longer ones. It is for requests that only read. A task
// that would have to wait, with all that are behind it, hands its request on to Run and
// returns nil.
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
	Frame []byte // of the answer, and room for the next one

	conns []*Conn // we write
}

// Answer ends a request that has begun with a.Frame, for a Caller: it does not wait.
// Reads is as in Run.
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
// more, or it has ended. It is the reader's, and for one.
func (c *Conn) While(ctx context.Context) context.Context {
	ctx, over := context.WithCancel(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over = over; c.err != nil {
		over()
	}
	return ctx
}

// Takes says whether an answer of n bytes would be taken now, or why not: the
// connection has ended, or what waits for its client fills its part of the budget.
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

// Write writes what has been answered, as far as that goes without waiting.
func (a *Answers) Write() {
	for _, c := range a.conns {
		c.writeAnswers()
	}
	clear(a.conns)
	a.conns = a.conns[:0]
}

// writeAnswers writes what is queued, as far as that goes without waiting; a
// goroutine does the rest.
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
			ch = c.current // it may be accounted for by now
			ch.b = ch.b[n:]
			c.current = chunk{}
			go func() { // owned by the connection: drain waits until nobody writes
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
