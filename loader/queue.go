package loader

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Queue admits a number of callers at once. The other callers wait in order of arrival.
// Both the time and the number of waiting callers are limited.
type Queue struct {
	sem     *semaphore.Weighted
	most    int64 // waiting callers
	wait    time.Duration
	running atomic.Int64
	waiting atomic.Int64
}

// NewQueue returns a Queue with places for running callers and for waiting callers, and
// a maximum wait.
func NewQueue(running, waiting int, wait time.Duration) *Queue {
	return &Queue{sem: semaphore.NewWeighted(int64(running)), most: int64(waiting), wait: wait}
}

// Enter returns when the caller is admitted. The caller must call leave at the end. If
// the queue is full or the wait is too long, the error wraps ErrBusy. If ctx is done,
// Enter returns its cause.
func (q *Queue) Enter(ctx context.Context) (leave func(), err error) {
	if !q.sem.TryAcquire(1) {
		if err := q.queue(ctx); err != nil {
			return nil, err
		}
	}
	q.running.Add(1)
	return func() {
		q.running.Add(-1)
		q.sem.Release(1)
	}, nil
}

func (q *Queue) queue(ctx context.Context) error {
	if q.waiting.Add(1) > q.most {
		q.waiting.Add(-1)
		return fmt.Errorf("%w: %d loads wait already", ErrBusy, q.most)
	}
	defer q.waiting.Add(-1)
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

// Len returns the number of admitted callers and of waiting callers.
func (q *Queue) Len() (running, waiting int64) { return q.running.Load(), q.waiting.Load() }
