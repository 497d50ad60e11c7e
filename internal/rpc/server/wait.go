package server

import (
	"errors"
	"time"
)

// Wait has the reader of a connection wait in f. Before that it writes what Out has, so that f may
// take long. Meanwhile nothing more is read, and the connection ends if its client goes. last says
// that the caller needs nothing more of the frames at hand, whose memory is given back if nothing
// has come behind them. An error means that f was not called: there is no memory to wait with, or
// the connection has ended.
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
	err := leaveFor(c, holds)
	if err == nil {
		c.server.inFlight.Add(1)
		leave := watch(c)
		f()
		leave()
		c.server.inFlight.Add(-1)
		c.outbox.share.Give(holds)
	}
	if last {
		takeBuffer(c)
	}
	return err
}

// Waits is what a goroutine takes that waits, in bytes: a stack of 16 KiB, and some more for what it
// waits with (measured).
const Waits = 20 << 10

// leaveFor prepares the reader for a wait during which it holds so many bytes.
func leaveFor(c *Conn, holds int64) error {
	o := &c.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if err := o.share.Take(holds, forShort); err != nil {
		return err
	}
	o.waited = true
	return nil
}

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
