package rpc

import (
	"sync"
	"time"
)

// expiry is the one timer of all calls of a connection. It is set for the call that
// expires first. When it fires, that call has usually been answered long ago and none is
// due. So a call costs no timer. The Client's lock guards it.
type expiry struct {
	run   func()          // called in a goroutine of its own
	group *sync.WaitGroup // of run
	timer *time.Timer
	due   time.Time // when the timer fires; zero: it is not set
}

// expireBy makes run be called at a time, after in, if not before.
func (e *expiry) expireBy(at time.Time, in time.Duration) {
	if !e.due.IsZero() && !at.Before(e.due) {
		return
	}
	e.stop()
	e.group.Add(1)
	e.due = at
	if e.timer == nil {
		e.timer = time.AfterFunc(in, e.run)
	} else {
		e.timer.Reset(in)
	}
}

// stop stops the timer if it is set. run may be under way.
func (e *expiry) stop() {
	if !e.due.IsZero() && e.timer.Stop() {
		e.group.Done()
	}
	e.due = time.Time{}
}
