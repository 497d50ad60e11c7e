package rpc

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// A Client with ClientConfig.Direct lets a call that is alone on its connection read its
// answer itself: no goroutine changes for it. A caller whose answer has come while a few
// other calls are in flight makes one of their callers read next, for itself and the others.
// If many calls are in flight, the reader reads for all of them, and does so until none is
// left.
//
// A goroutine has to notice what the peer sends on its own, and the end of the connection. So
// the reader reads too when the connection has been idle for a moment.

// leader says which goroutine reads. The Client's lock guards it.
type leader struct {
	c    *Client
	by   readBy
	err  error         // with which a caller's reading has ended
	wake chan struct{} // of the reader; has room for one

	ownFn func(n int) error // deliverOwn

	// The call whose caller reads, or has just been told to; nil: no caller does. That caller
	// may ask without the lock whether it is its own call.
	call atomic.Pointer[Call]

	calls uint64 // that have read for themselves
	seen  uint64 // calls when the timer was set
	armed bool
	timer *time.Timer
}

// readBy is which goroutine reads.
type readBy uint8

const (
	byReader readBy = iota
	byCaller
	byNobody
)

// fewOthers is how many calls may be in flight for a caller to hand the reading over to one
// of their callers. With more, one read has answers for several, and the reader wakes them
// all and goes on.
const fewOthers = 3

// rooms is the room of Call.over: the caller is told to read, and that the call is over.
const rooms = 2

// idleAfter is how long a connection may be idle before its reader reads again.
const idleAfter = 20 * time.Millisecond

var (
	errRests = errors.New("no call is in flight")
	errOver  = errors.New("the call is over")
)

// readAll reads answers until the connection ends. It is the reader's part.
func (l *leader) readAll() error {
	c := l.c
	if !c.cfg.Direct || !c.socket.HasDescriptor() {
		return c.input.ReadEach(c.deliverBatch)
	}
	for {
		err := c.input.ReadEach(l.deliverAndRest)
		switch {
		case err == errRests:
			if err := l.rest(); err != nil {
				return err
			}
		case !transport.IsTimeout(err) || !l.goOn():
			return err
		}
	}
}

// rest lets others read until they need the reader, which is at once if a call is in flight.
// An error means that the connection ends.
func (l *leader) rest() error {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.busyLocked() {
		return nil
	}
	l.restLocked()
	for l.by != byReader {
		c.mu.Unlock()
		<-l.wake
		c.mu.Lock()
	}
	return l.err
}

// goOn lets the next read wait, after a wake-up that was meant for another read. It returns
// false if the connection ends.
func (l *leader) goOn() bool {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil && c.socket.Conn.SetReadDeadline(time.Time{}) == nil
}

// deliverAndRest is deliverBatch for the reader, which rests once no call is in flight.
func (l *leader) deliverAndRest(n int) error {
	c := l.c
	if err := c.deliverBatch(n); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.busyLocked() {
		return nil
	}
	return errRests
}

// busyLocked reports whether somebody must go on reading.
func (l *leader) busyLocked() bool {
	c := l.c
	return c.err != nil || c.calls.inFlight() > 0 || c.input.Len() > 0 || c.input.Skips()
}

// restLocked leaves the connection unread until the next call, or until it has been idle.
func (l *leader) restLocked() {
	c := l.c
	l.by = byNobody
	if l.armed {
		return
	}
	l.armed, l.seen = true, l.calls
	c.background.Add(1)
	if l.timer == nil {
		l.timer = time.AfterFunc(idleAfter, l.idle)
	} else {
		l.timer.Reset(idleAfter)
	}
}

// idle makes the reader read if the connection has been idle since the timer was set.
func (l *leader) idle() {
	c := l.c
	defer c.background.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch l.armed = false; {
	case l.by != byNobody || c.err != nil:
	case l.calls != l.seen:
		l.restLocked()
	default:
		l.readLocked()
	}
}

// readLocked makes the reader read.
func (l *leader) readLocked() {
	l.by = byReader
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// wakeReader wakes the reader at the end of the connection. The lock is held.
func (l *leader) wakeReader() {
	c := l.c
	if l.armed && l.timer.Stop() {
		l.armed = false
		c.background.Done()
	}
	if l.by == byNobody {
		l.readLocked()
	}
}

// takeLocked reports whether the caller of a call is to read its answer.
func (l *leader) takeLocked(call *Call) bool {
	c := l.c
	if !c.cfg.Direct || l.by != byNobody || c.calls.inFlight() != 1 || c.err != nil {
		return false
	}
	l.by = byCaller
	l.call.Store(call)
	l.calls++
	return true
}

// readFor reads until a call is over, or ctx has ended. The caller has the lead. After an
// error the call is abandoned.
func (l *leader) readFor(ctx context.Context, call *Call, id uint64) error {
	c := l.c
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, c.socket.WakeReader)()
	}
	for {
		err := c.input.ReadEach(l.ownFn)
		switch {
		case err == errOver:
			l.leave(nil)
			<-call.over
			return nil
		case !transport.IsTimeout(err) || !l.goOn():
			l.leave(err) // the reader tells all callers
			<-call.over
			return nil
		case len(call.over) > 0: // it has expired
			l.leave(nil)
			<-call.over
			return nil
		case ctx.Err() != nil && c.abandon(id):
			l.leave(nil)
			return context.Cause(ctx)
		}
	}
}

// deliverOwn is deliverBatch for a caller, which reads until its own call is over.
func (l *leader) deliverOwn(n int) error {
	call := l.call.Load()
	if err := l.c.deliverBatch(n); err != nil {
		return err
	}
	if len(call.over) > 0 {
		return errOver
	}
	return nil
}

// leave ends a caller's reading. If it has failed, or other calls are in flight, another
// caller or the reader goes on.
func (l *leader) leave(err error) {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil && l.handOverLocked() {
		return
	}
	l.call.Store(nil)
	l.err = err
	if err != nil || l.busyLocked() {
		l.readLocked()
	} else {
		l.restLocked()
	}
}

// handOverLocked makes the caller of another call read, if few calls are in flight. It
// prefers the call that expires last, which was probably made last: its caller reads
// longest.
func (l *leader) handOverLocked() bool {
	c := l.c
	if c.err != nil || c.calls.inFlight() > fewOthers {
		return false
	}
	var next *Call
	var until time.Time
	for _, s := range c.calls.used {
		if call, ok := s.caller.(*Call); ok && (next == nil || s.until.After(until)) {
			next, until = call, s.until
		}
	}
	if next == nil {
		return false
	}
	l.call.Store(next)
	l.calls++
	next.over <- struct{}{} // does not wait: the call is not over
	return true
}

// told is called by a caller that has been woken, or has given up its call. It reports
// whether that caller is to read.
func (l *leader) told(call *Call) bool { return l.call.Load() == call }
