package flight

import (
	"container/list"
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/loader"
)

// LeaseWaiter is a caller that waits for the fill of another one, without a goroutine.
type LeaseWaiter struct {
	// Tell is called once, unless Leave comes before it: with the fill, with a token, or with an
	// error. Tell must not wait.
	// What is given to later is called when all callers of the same fill have been told.
	Tell func(g Grant, err error, later func(func()))

	claim Claim
	lease *lease
	place *list.Element // in lease.waiters; nil: it does not wait yet, or not any more
	left  bool
}

// told is a waiter that has its answer and has not been told.
type told struct {
	w     *LeaseWaiter
	grant Grant
	err   error
}

// Claim returns a token, or waits until another caller has filled the key, until this
// caller is next for the token, or until ctx is done.
func (l *Leases) Claim(ctx context.Context, c Claim) (Grant, error) {
	answered := make(chan told, 1)
	w := &LeaseWaiter{Tell: func(g Grant, err error, _ func(func())) { answered <- told{grant: g, err: err} }}
	grant, waits, err := l.Queue(c, w)
	if !waits {
		return grant, err
	}
	var a told
	select {
	case a = <-answered:
	case <-ctx.Done():
		if l.Leave(w) {
			return Grant{}, context.Cause(ctx)
		}
		a = <-answered
	}
	return a.grant, a.err
}

// Queue issues the token of the key. If one is issued already, w waits, and is told the outcome.
func (l *Leases) Queue(c Claim, w *LeaseWaiter) (g Grant, waits bool, err error) {
	l.table.Lock()
	defer l.table.Unlock()
	e, err := l.findLocked(&c)
	switch {
	case err != nil:
		return Grant{}, false, err
	case w.left:
		return Grant{}, false, context.DeadlineExceeded
	case e == nil:
		t, err := l.addLocked(c)
		return Grant{Token: t}, false, err
	case l.stats.Waiting >= maxWaiters:
		l.stats.Shed++
		return Grant{}, false, fmt.Errorf("%w: %d callers wait for fills already", loader.ErrBusy, maxWaiters)
	}
	c.Key = e.claim.Key // the caller may reuse its bytes
	w.claim, w.lease = c, e
	w.place = e.waiters.PushBack(w)
	l.stats.Waiting++
	l.stats.Collapsed++
	return Grant{}, true, nil
}

// Leave makes a caller give up. It returns false if the caller has its answer, and is told.
func (l *Leases) Leave(w *LeaseWaiter) bool {
	l.table.Lock()
	defer l.table.Unlock()
	w.left = true
	if w.place == nil {
		return false
	}
	w.lease.waiters.Remove(w.place)
	w.place = nil
	l.stats.Waiting--
	return true
}

// answerLocked ends the wait of one caller. tellLocked must follow.
func (l *Leases) answerLocked(w *LeaseWaiter, g Grant, err error) {
	w.lease.waiters.Remove(w.place)
	w.place = nil
	l.stats.Waiting--
	l.told = append(l.told, told{w, g, err})
}

// answerAllLocked ends the waits of all callers of a lease. tellLocked must follow.
func (l *Leases) answerAllLocked(e *lease, g Grant, err error) {
	for p := e.waiters.Front(); p != nil; p = e.waiters.Front() {
		l.answerLocked(p.Value.(*LeaseWaiter), g, err)
	}
}

// tellLocked tells the callers that have their answers, on a goroutine of its own.
func (l *Leases) tellLocked() {
	list := l.told
	if l.told = nil; len(list) == 0 {
		return
	}
	l.filling.Go(func() { // Close waits for it
		var after []func()
		for _, t := range list {
			t.w.Tell(t.grant, t.err, func(f func()) { after = append(after, f) })
		}
		for _, f := range after {
			f()
		}
	})
}
