package loader

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Queue admits a number of callers at once. The other callers wait in order of arrival.
// Both the time and the number of waiting callers are limited.
//
// A queue that does not get empty is of no use: it makes all callers wait, and admits no
// more of them. So a queue that has stood for a tenth of the maximum wait takes another
// caller only if the wait is likely to be short: as long as one admitted caller takes, or
// shortWait; or if fewer callers wait than one request brings. A burst waits as long as it
// must. (Nichols and Jacobson, Controlling Queue
// Delay, 2012, tell a standing queue from a burst by the same sign.)
type Queue struct {
	sem    *semaphore.Weighted
	places int
	most   int64 // waiting callers
	wait   time.Duration

	mu      sync.Mutex
	running int64
	waiting int64
	stands  time.Time     // since when callers have waited; while waiting > 0
	takes   time.Duration // an admitted caller, on average
}

// shortWait is a wait that is always short.
const shortWait = 5 * time.Millisecond

// together is how many keys one request, or a warm-up, loads at a time. One of them alone
// keeps a queue with fewer places standing, and is no overload.
const together = 16

// NewQueue returns a Queue with places for running callers and for waiting callers, and
// a maximum wait.
func NewQueue(running, waiting int, wait time.Duration) *Queue {
	return &Queue{sem: semaphore.NewWeighted(int64(running)), places: running, most: int64(waiting), wait: wait}
}

// Enter returns when the caller is admitted. The caller must call leave at the end. If
// the queue is full or the wait is too long, the error wraps ErrBusy; a wait that is
// likely to be too long is not begun. If ctx is done, Enter returns its cause.
func (q *Queue) Enter(ctx context.Context) (leave func(), err error) {
	if !q.sem.TryAcquire(1) {
		if err := q.queue(ctx); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	q.mu.Lock()
	q.running++
	q.mu.Unlock()
	return func() {
		q.leaveAfter(time.Since(began))
		q.sem.Release(1)
	}, nil
}

// leaveAfter notes how long an admitted caller took.
func (q *Queue) leaveAfter(took time.Duration) {
	const weight = 8 // of the average so far, plus one
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	if q.takes == 0 {
		q.takes = took
	}
	q.takes += (took - q.takes) / weight
}

func (q *Queue) queue(ctx context.Context) error {
	if err := q.line(); err != nil {
		return err
	}
	defer func() {
		q.mu.Lock()
		q.waiting--
		q.mu.Unlock()
	}()
	waitCtx, cancel := context.WithTimeout(ctx, q.wait)
	defer cancel()
	if err := q.sem.Acquire(waitCtx, 1); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: no place within %v", ErrBusy, q.wait)
	}
	return nil
}

// line lets the caller wait, or returns why it may not.
func (q *Queue) line() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	switch {
	case q.waiting >= q.most:
		return fmt.Errorf("%w: %d loads wait already", ErrBusy, q.most)
	case q.waiting == 0:
		q.stands = now
	case q.waiting >= together && now.Sub(q.stands) >= q.wait/10:
		likely := q.takes * time.Duration(q.waiting) / time.Duration(q.places)
		if likely > max(q.takes, shortWait) {
			return fmt.Errorf("%w: %d loads wait already, for %v now, about %v each", ErrBusy,
				q.waiting, now.Sub(q.stands).Round(time.Millisecond), likely.Round(time.Millisecond))
		}
	}
	q.waiting++
	return nil
}

// Len returns the number of admitted callers and of waiting callers.
func (q *Queue) Len() (running, waiting int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running, q.waiting
}
