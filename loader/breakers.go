package loader

import (
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"
)

// A Guard has breakers at three levels: for a process, for its tenant, and for all. That of a process opens after
// failures in a row of its own; the others only if at least two processes, or two tenants, have failed since the last
// success. A failure counts at a higher level only if the breaker below was closed when its call began. So a process
// that asks for keys at which the origin fails opens its own breaker, and keeps no other one open. A success counts at
// all levels.

// breakerOf returns the breaker of an asker. The lock of the queue is held.
func (g *Guard) breakerOf(a *asker) *gobreaker.TwoStepCircuitBreaker[struct{}] {
	if a.breaker != nil {
		return a.breaker
	}
	cfg := &g.Config.Breaker
	a.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: uint32(cfg.Probes),
		Timeout:     cfg.Open,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= uint32(cfg.Failures) && (a.below == nil || len(a.failed) > 1)
		},
		IsSuccessful: Answered,
		// A load that was cancelled says nothing about the origin.
		IsExcluded: func(err error) bool { return errors.Is(err, errGone) },
		// The breaker holds its lock here.
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				g.Counts.Opened.Add(1)
			}
		},
	})
	return a.breaker
}

// errGone tells a breaker that the call was cancelled, or does not concern it.
var errGone = errors.New("the caller has gone")

// state returns the state of the asker's own breaker.
func (a *asker) state() gobreaker.State {
	if a.breaker == nil {
		return gobreaker.StateClosed
	}
	return a.breaker.State()
}

// noteOutcome notes which of those below have failed since the last success.
func (a *asker) noteOutcome(below string, err error) {
	switch {
	case Answered(err):
		a.failed = nil
	case !errors.Is(err, errGone) && len(a.failed) < 2 && (len(a.failed) == 0 || a.failed[0] != below):
		a.failed = append(a.failed, below)
	}
}

// checkOpen returns an error if a breaker is open for an asker.
func (g *Guard) checkOpen(a *asker, now time.Time) error {
	for ; a != nil; a = a.up {
		switch {
		case a.state() != gobreaker.StateOpen:
		case a.up == nil || g.queue.askers.isAlone(now):
			return g.shed("its breaker is open after %d failures", g.Config.Breaker.Failures)
		default:
			return g.shed("its breaker is open for %v after %d failures in a row", a, g.Config.Breaker.Failures)
		}
	}
	return nil
}

// allow asks the breakers of an asker whether a call may begin. The caller calls done at its end.
func (g *Guard) allow(a *asker) (done func(outcome error), err error) {
	var tell []func(error)
	q := g.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	closed := true
	for at := a; at != nil; at = at.up {
		b, below := g.breakerOf(at), a.name
		if at.up == nil {
			below = a.up.name
		}
		counts := closed
		closed = closed && b.State() == gobreaker.StateClosed
		over, err := b.Allow()
		if err != nil {
			for _, end := range tell {
				end(errGone)
			}
			if openErr := g.checkOpen(at, time.Now()); openErr != nil {
				return nil, openErr
			}
			return nil, g.shed("its breaker lets %d calls try", g.Config.Breaker.Probes)
		}
		tell = append(tell, func(outcome error) {
			if !counts && !Answered(outcome) {
				outcome = errGone
			}
			at.noteOutcome(below, outcome)
			over(outcome)
		})
	}
	return func(outcome error) {
		q.mu.Lock()
		defer q.mu.Unlock()
		for _, end := range tell {
			end(outcome)
		}
	}, nil
}

// Breaker returns the state of the breaker now: "closed", "open" or "half-open". That is the state of the breaker for
// all; but if it lets calls begin, and the breakers of all that have asked lately do not, it is theirs. A
// breaker is half-open as soon as its open time is over, with or without a call.
func (g *Guard) Breaker() string {
	q := g.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	list, now := &q.askers, time.Now()
	all := list.all.state()
	worst := all
	for _, t := range list.all.below {
		for _, a := range t.below {
			if a != list.last && list.last != nil && (t.name == "" || now.Sub(a.used) >= lately) {
				continue
			}
			state := max(t.state(), a.state())
			if state == gobreaker.StateClosed {
				return all.String()
			}
			worst = max(worst, state)
		}
	}
	return worst.String()
}
