package rpc

import (
	"sync"
	"time"
)

// calls are the calls of a connection that wait for their answers, each in a slot. The
// id of a call is its slot's index + 1 in the low 32 bits, and a turn above. The
// Client's lock guards them.
type calls struct {
	slots []*slot
	free  []uint32
	used  []*slot // in no order
}

// slot is the place of a call. It is reused once the answer has come, even if its caller
// has given up.
type slot struct {
	id     uint64
	turn   uint32
	at     int    // in calls.used
	caller Caller // nil once the caller has been told, or has given up
	until  time.Time
	unsent bool // the peer reads no more, and has not got the request
}

// inFlight returns the number of slots in use.
func (s *calls) inFlight() int { return len(s.used) }

// full says whether as many calls are in flight as may be.
func (s *calls) full(most int) bool { return len(s.free) == 0 && len(s.slots) >= most }

// add gives a call a slot and returns its id.
func (s *calls) add(caller Caller, until time.Time) (id uint64) {
	at := uint32(len(s.slots))
	if n := len(s.free); n > 0 {
		at = s.free[n-1]
		s.free = s.free[:n-1]
	} else {
		s.slots = append(s.slots, &slot{})
	}
	c := s.slots[at]
	c.turn++
	c.id = uint64(c.turn)<<32 | uint64(at+1)
	c.caller, c.until, c.unsent = caller, until, false
	c.at = len(s.used)
	s.used = append(s.used, c)
	return c.id
}

// find returns the slot of a call, or nil if the call has none any more.
func (s *calls) find(id uint64) *slot {
	at := uint32(id) - 1
	if int64(at) >= int64(len(s.slots)) || s.slots[at].id != id {
		return nil
	}
	return s.slots[at]
}

// endCall frees a call's slot, and returns its caller, or nil.
func (s *calls) endCall(c *slot) Caller {
	caller := c.caller
	s.free = append(s.free, uint32(c.id)-1)
	c.id, c.caller = 0, nil
	n := len(s.used) - 1
	s.used[c.at], s.used[n].at = s.used[n], c.at
	s.used = s.used[:n]
	return caller
}

// anyWaits says whether any caller waits for an answer.
func (s *calls) anyWaits() bool {
	for _, c := range s.used {
		if c.caller != nil {
			return true
		}
	}
	return false
}

// notSent notes that the request of a call was not sent.
func (s *calls) notSent(id uint64) {
	if c := s.find(id); c != nil {
		c.unsent = true
	}
}

// giveUpUnsent removes the callers of calls whose requests were not sent.
func (s *calls) giveUpUnsent() (left []Caller) {
	for _, c := range s.used {
		if c.caller != nil && c.unsent {
			left = append(left, c.caller)
			c.caller = nil
		}
	}
	return left
}

// giveUp removes the callers of all calls that have expired at now, or of all calls for
// zero. Their slots stay taken. next is when the next call expires; zero: there is none.
func (s *calls) giveUp(now time.Time) (left []Caller, next time.Time) {
	for _, c := range s.used {
		switch {
		case c.caller == nil:
		case now.IsZero() || !now.Before(c.until):
			left = append(left, c.caller)
			c.caller = nil
		case next.IsZero() || c.until.Before(next):
			next = c.until
		}
	}
	return left, next
}

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
