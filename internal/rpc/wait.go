package rpc

import (
	"errors"
	"time"
)

// Wait has the reader of a connection wait in f. Before that it writes what Out has, so that f may
// take long. Meanwhile nothing more is read, and the connection ends if its client goes. An error
// means that f was not called: there is no memory to wait with, or the connection has ended.
func Wait(c *Conn, f func()) error {
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.pin(); err != nil {
		return err
	}
	c.server.inFlight.Add(1)
	leave := c.watch()
	f()
	leave()
	c.server.inFlight.Add(-1)
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	c.outbox.unpinLocked()
	return nil
}

// pin charges what the reader holds while it waits.
func (c *Conn) pin() error {
	o := &c.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.tryPinLocked(); err != nil {
		return err
	}
	if !o.leaveLocked() {
		o.unpinLocked()
	}
	return o.err
}

// goneEvery is how often a reader that waits looks whether its client has gone.
const goneEvery = 100 * time.Millisecond

var errGone = errors.New("the client has gone, and its request waited")

// watch looks whether the client goes, until it is left.
func (c *Conn) watch() (leave func()) {
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
