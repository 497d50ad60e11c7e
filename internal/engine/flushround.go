package engine

import (
	"context"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// flushRounds has the flushes of one name that wait made as one. A flush drops what was written before it, so it does
// not join one under way: all that come meanwhile are the next one.
type flushRounds struct {
	mu    sync.Mutex
	names map[string]*flushRound // the last of each name, until it has ended
}

// flushRound is one flush, for all that wait for it.
type flushRound struct {
	before *flushRound // it waits for this one
	begun  bool        // no other flush joins any more; under the lock of flushRounds
	over   chan struct{}
	floor  kv.Version
	bad    *wire.Error
}

// do returns the outcome of a flush that has begun after the call. flush makes it, with the context of one of those
// that wait; if that one's time is over, another one makes the next.
func (rounds *flushRounds) do(
	ctx context.Context, name string, flush func(context.Context) (kv.Version, *wire.Error),
) (kv.Version, *wire.Error) {
	for {
		r, leads := rounds.join(name)
		if leads {
			rounds.lead(ctx, name, r, flush)
			return r.floor, r.bad
		}
		switch {
		case !waitForRound(ctx, r):
			return 0, lateFlush
		case r.bad == nil || r.bad.Status != wire.Timeout || ctx.Err() != nil:
			return r.floor, r.bad
		}
	}
}

var lateFlush = wire.Errorf(wire.Timeout, "another flush of the namespace has taken the request's time: try again")

// join returns the round of a name that has not begun. The caller leads it if it is new.
func (rounds *flushRounds) join(name string) (r *flushRound, leads bool) {
	rounds.mu.Lock()
	defer rounds.mu.Unlock()
	last := rounds.names[name]
	if last != nil && !last.begun {
		return last, false
	}
	if rounds.names == nil {
		rounds.names = map[string]*flushRound{}
	}
	r = &flushRound{before: last, over: make(chan struct{})}
	rounds.names[name] = r
	return r, true
}

// lead makes the flush of a round after the one before it.
func (rounds *flushRounds) lead(
	ctx context.Context, name string, r *flushRound, flush func(context.Context) (kv.Version, *wire.Error),
) {
	inTime := r.before == nil || waitForRound(ctx, r.before)
	rounds.mu.Lock()
	r.begun, r.before = true, nil
	rounds.mu.Unlock()
	if r.bad = lateFlush; inTime {
		r.floor, r.bad = flush(ctx)
	}
	rounds.mu.Lock()
	defer rounds.mu.Unlock()
	if rounds.names[name] == r {
		delete(rounds.names, name)
	}
	close(r.over)
}

// waitForRound waits until a round is over, and reports whether it is in time.
func waitForRound(ctx context.Context, r *flushRound) bool {
	defer inspect.BeginWait(ctx, inspect.Acks, "")()
	select {
	case <-r.over:
		return true
	case <-ctx.Done():
		return false
	}
}
