package loader

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Queue lets a number of callers in at once. The others wait in the order in
// which they came, for at most a while, and not more than a number of them.
type Queue struct {
	sem     *semaphore.Weighted
	most    int64 // that wait
	wait    time.Duration
	running atomic.Int64
	waiting atomic.Int64
}

// NewQueue returns a queue of running places, waiting places, and the longest
// wait.
func NewQueue(running, waiting int, wait time.Duration) *Queue {
	return &Queue{sem: semaphore.NewWeighted(int64(running)), most: int64(waiting), wait: wait}
}

// Enter returns once the caller is in, with what it calls when it leaves.
// Where the queue is full, or the wait too long, the error wraps ErrBusy.
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

// Len returns how many are in and how many wait.
func (q *Queue) Len() (running, waiting int64) { return q.running.Load(), q.waiting.Load() }
