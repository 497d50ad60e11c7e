package loader

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
)

// Queue admits a number of callers at once. The other callers wait. Tenants take turns, and so do the processes of a
// tenant; the callers of a process are admitted in order of arrival. Both the time and the number of waiting callers
// are limited. Places and waiting places are in fair shares (quota.Last), unless one process alone has asked lately.
//
// A queue that does not get empty is of no use: it makes all callers wait, and admits no
// more of them. So a process whose callers have waited for a tenth of the maximum wait, and are its part of its
// tenant's, may have another one wait only if that is likely to be short: as long as one admitted caller takes, or
// shortWait; or if fewer callers of the tenant wait than one request brings. A burst waits as long as it must. (Nichols
// and Jacobson, Controlling Queue Delay, 2012, tell a standing queue from a burst by the same sign.)
type Queue struct {
	most [kinds]int64
	wait time.Duration

	mu     sync.Mutex
	askers askers
	lines  quota.FairQueue[string, *asker] // processes with callers that wait, by tenant
}

// shortWait is a wait that is always short.
const shortWait = 5 * time.Millisecond

// together is how many keys one request, or a warm-up, loads at a time. One of them alone
// keeps a queue with fewer places standing, and is no overload.
const together = 16

// NewQueue returns a Queue with places for running callers and for waiting callers, and
// a maximum wait.
func NewQueue(places, line int, wait time.Duration) *Queue {
	return &Queue{most: [kinds]int64{running: int64(places), waiting: int64(line)}, wait: wait}
}

// Enter returns when the caller is admitted. The caller must call leave at the end. If
// the queue is full or the wait is too long, the error wraps ErrBusy; a wait that is
// likely to be too long is not begun. If ctx is done, Enter returns its cause. The
// account of ctx is the caller's.
func (q *Queue) Enter(ctx context.Context) (leave func(), err error) {
	a, admitted, err := q.enterNow(ctx)
	if err == nil && admitted != nil {
		err = q.await(ctx, a, admitted)
	}
	if err != nil {
		return nil, err
	}
	began := time.Now()
	return func() { q.leaveAfter(a, time.Since(began)) }, nil
}

// enterNow admits the caller now, or lets it wait until admitted is closed.
func (q *Queue) enterNow(ctx context.Context) (a *asker, admitted chan struct{}, err error) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	a = q.askers.askNow(ctx, now)
	if len(a.line) == 0 && q.takeLocked(a, running, now) {
		return a, nil, nil
	}
	if err := q.mayWaitLocked(a, now); err != nil {
		return a, nil, err
	}
	admitted = make(chan struct{})
	if a.line = append(a.line, admitted); len(a.line) == 1 {
		q.lines.Push(a.up.name, a)
	}
	return a, admitted, nil
}

// takeLocked takes a place of a kind, if the asker may have it.
func (q *Queue) takeLocked(a *asker, kind int, now time.Time) bool {
	a.count(kind, 1)
	taken := q.askers.all.has[kind]
	if taken <= q.most[kind] && (q.askers.isAlone(now) ||
		quota.LastPlaces.MayHold(q.most[kind], taken, a.up.share(kind), a.share(kind))) {
		return true
	}
	a.count(kind, -1)
	return false
}

// mayWaitLocked lets a caller wait, or returns why it may not.
func (q *Queue) mayWaitLocked(a *asker, now time.Time) error {
	t := a.up
	n := t.has[waiting]
	switch {
	case a.has[waiting] == 0:
		a.stands = now
	case n >= together && now.Sub(a.stands) >= q.wait/10 && a.has[waiting]*t.holders[waiting] >= n:
		tenants := max(1, q.askers.all.holders[running])
		likely := t.takes * time.Duration(n*tenants) / time.Duration(q.most[running])
		if likely > max(t.takes, shortWait) {
			return fmt.Errorf("%w: %d loads%s wait already, for %v now, about %v each", ErrBusy, n, q.ofLocked(t, now),
				now.Sub(a.stands).Round(time.Millisecond), likely.Round(time.Millisecond))
		}
	}
	if q.takeLocked(a, waiting, now) {
		return nil
	}
	if q.askers.isAlone(now) {
		return fmt.Errorf("%w: %d loads wait already", ErrBusy, q.most[waiting])
	}
	return fmt.Errorf("%w: %d loads wait already, %d%s", ErrBusy,
		q.askers.all.has[waiting], a.has[waiting], q.ofLocked(a, now))
}

// ofLocked says whose loads are meant, unless one process alone asks.
func (q *Queue) ofLocked(a *asker, now time.Time) string {
	if q.askers.isAlone(now) {
		return ""
	}
	return " of " + a.String()
}

// await waits for a place.
func (q *Queue) await(ctx context.Context, a *asker, admitted chan struct{}) error {
	waitCtx, cancel := context.WithTimeout(ctx, q.wait)
	defer cancel()
	select {
	case <-admitted:
		return nil
	case <-waitCtx.Done():
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	i := slices.Index(a.line, admitted)
	if i < 0 {
		return nil // it was admitted at that moment
	}
	a.line = slices.Delete(a.line, i, i+1)
	if a.count(waiting, -1); len(a.line) == 0 {
		q.lines.Remove(func(x *asker) bool { return x == a })
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: no place within %v", ErrBusy, q.wait)
}

// leaveAfter notes how long an admitted caller took, and admits those that may have its place.
func (q *Queue) leaveAfter(a *asker, took time.Duration) {
	const weight = 8 // of the average so far, plus one
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	a.count(running, -1)
	t := a.up
	if t.takes == 0 {
		t.takes = took
	}
	t.takes += (took - t.takes) / weight
	for q.admitNextLocked(now) {
	}
}

// admitNextLocked admits the next caller that may have a place.
func (q *Queue) admitNextLocked(now time.Time) bool {
	if q.askers.all.has[running] >= q.most[running] {
		return false
	}
	a, ok := q.lines.PopIf(func(a *asker) bool { return q.takeLocked(a, running, now) })
	if !ok {
		return false
	}
	close(a.line[0])
	a.line = slices.Delete(a.line, 0, 1)
	a.count(waiting, -1)
	if len(a.line) > 0 {
		q.lines.Push(a.up.name, a)
	}
	return true
}

// Len returns the number of admitted callers and of waiting callers.
func (q *Queue) Len() (admitted, line int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.askers.all.has[running], q.askers.all.has[waiting]
}
