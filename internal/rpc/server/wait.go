package server

import (
	"errors"
	"time"
)

// How a request waits: it leaves the reader (Begin, Go), or has the reader wait (Wait).

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
	c.turn.release()
	o := &c.outbox
	o.mu.Lock()
	full := func() bool { return c.tasks >= c.server.limits.MaxInFlight || o.fullLocked() }
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
	c.tasks++
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

// Wait has the reader wait in f. Before that it writes what Out has, so that f may take long.
// Meanwhile nothing more is read, and the connection ends if its client goes. last says that the caller needs nothing
// more of the frames at hand, whose memory is given back if nothing has come behind them. An error means that f was
// not called: there is no memory to wait with, or the connection has ended.
func (c *Conn) Wait(last bool, f func()) error {
	if err := c.flush(); err != nil {
		return err
	}
	holds := int64(pins)
	if last = last && c.input.Len() == 0; last {
		holds = Waits
		c.input.Release()
		c.batch.dropBuffer()
		c.Out = nil
	}
	err := c.outbox.waitIn(holds, func() {
		c.server.inFlight.Add(1)
		leave := c.End().watch()
		f()
		leave()
		c.server.inFlight.Add(-1)
	})
	if last {
		c.Out = c.batch.takeBuffer()
	}
	return err
}

// Waits is what a goroutine takes that waits, in bytes: a stack of 16 KiB, and some more for what it
// waits with (measured).
const Waits = 20 << 10

// End is the end of a connection, for requests that wait.
type End Conn

// End returns the end of the connection.
func (c *Conn) End() *End { return (*End)(c) }

// Ended says whether the connection's client has gone, or this host has ended the connection: no answer can come to
// the client any more. It asks the operating system, since the reader may have had no time yet to find out. A client
// that only sends nothing more has not gone. Over TCP a client that has closed its connection looks like that one,
// until it refuses an answer. Any goroutine may call Ended, also after the connection has been closed.
func (end *End) Ended() bool {
	return end.socket.Killed() || end.outbox.failure() != nil || end.socket.HungUp()
}

// goneEvery is how often a reader that waits looks whether its client has gone.
const goneEvery = 100 * time.Millisecond

var errGone = errors.New("the client has gone, and its request waited")

// watch looks whether the client goes, until it is left.
func (end *End) watch() (leave func()) {
	over := make(chan struct{})
	timer := time.AfterFunc(goneEvery, func() {
		for !end.Ended() {
			select {
			case <-over:
				return
			case <-time.After(goneEvery):
			}
		}
		end.outbox.fail(errGone)
	})
	return func() {
		timer.Stop()
		close(over)
	}
}

// Waited says whether the reader has had to wait since it has read the requests at hand. Only the reader calls it.
func (c *Conn) Waited() bool { return c.outbox.waited }

// Lost says whether an answer could not be written. Nothing more is served then. Only the reader calls it.
func (c *Conn) Lost() bool { return c.lost != nil }
