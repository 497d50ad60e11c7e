package cluster

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// ballots sends the requests that ownership begins and lasts with:
//
//	ACQUIRE  asks a member to let partitions go
//	AUTH     under policy consistent: each owner has a majority of the voters
//	         acknowledge the partitions that it owns
//
// The machine asks again if there is no answer. A slow member therefore has a limited
// number of requests in flight, and further ones are dropped. acquire and authorize are
// called under the driver's lock; the answers are taken without it.
type ballots struct {
	cfg       *Config
	driver    *driver
	caller    *caller
	admission *admission
}

// acquire asks a process for partitions. The driver's lock is held.
func (b *ballots) acquire(s ownership.Send) {
	m := b.driver.members.process(s.To)
	if m == nil || !b.reserve(m.acquire) {
		return
	}
	b.start(m.acquire, s.To, wire.OpAcquire, &wire.Acquire{
		Ballot: ToBallot(s.Acquire.Ballot), State: s.Acquire.State, Partitions: toSet(s.Acquire.Partitions),
		Ring: toProcesses(s.Acquire.Ring), Clock: uint64(s.Acquire.Ballot.Clock),
	}, func(ctx context.Context, body []byte) error {
		b.driver.checkPause(b.cfg.Clock.Read().Boot)
		var w wire.Acquired
		if err := b.call(ctx, s.To, wire.OpAcquire, body, &w); err != nil {
			return err
		}
		b.merge(w.Clock, w.Floors)
		b.driver.stepAbout(s.To, func(m *ownership.Machine, now time.Duration) {
			m.Answered(now, s.To, ownership.Answer{
				Ballot: s.Acquire.Ballot, Granted: fromSet(w.Granted), Released: fromSet(w.Released),
				Passed: fromSet(w.Passed), Keeps: w.Keeps,
				In: fromProcesses(w.In), Head: w.Head, Voter: w.Voter, Authorities: fromOwnerships(w.Authorities),
			})
		})
		return nil
	})
}

// authorize asks a voter. The driver's lock is held.
func (b *ballots) authorize(s ownership.SendAuth) {
	m := b.driver.members.process(s.To)
	if m == nil || !b.reserve(m.auth) {
		return
	}
	clock := b.cfg.Versions.Next(b.cfg.Clock.Read().Wall)
	b.start(m.auth, s.To, wire.OpAuth, &wire.Auth{
		Ownerships: toOwnerships(s.Auth.Ownerships), Clock: uint64(clock),
	}, func(ctx context.Context, body []byte) error {
		var w wire.Authorized
		if err := b.call(ctx, s.To, wire.OpAuth, body, &w); err != nil {
			return err
		}
		b.merge(w.Clock, w.Floors)
		sets := make([]kv.PartitionSet, len(w.Acknowledged))
		for i, set := range w.Acknowledged {
			sets[i] = fromSet(set)
		}
		b.driver.stepAbout(s.To, func(m *ownership.Machine, now time.Duration) {
			m.Authorized(now, s.To, s.Round, sets)
		})
		return nil
	})
}

// reserve takes one of a member's slots, if one is free and Run runs.
func (b *ballots) reserve(slots chan struct{}) bool {
	if b.driver.running.ctx == nil {
		return false
	}
	select {
	case slots <- struct{}{}:
		return true
	default:
		return false
	}
}

// start makes the call of a reserved slot in a goroutine of its own. exchange sends the
// body and takes the answer.
func (b *ballots) start(slots chan struct{}, to kv.Process, op wire.Op, message any,
	exchange func(ctx context.Context, body []byte) error) {
	body, err := wire.MarshalBody(message)
	if err != nil {
		b.cfg.Log.Error("a request cannot be sent", "request", op, "error", err)
		<-slots
		return
	}
	ctx := b.driver.running.ctx
	b.driver.running.tasks.Go(func() { // ends with its call
		defer func() { <-slots }()
		if err := exchange(ctx, body); err != nil {
			b.cfg.Log.Debug("a request was not answered", "request", op, "node", to.Node, "error", err)
		}
	})
}

// call makes the call. If it returns an error, nothing in the answer counts.
func (b *ballots) call(ctx context.Context, to kv.Process, op wire.Op, body []byte,
	answer interface{ NewestVersion() uint64 }) error {
	if err := b.caller.call(ctx, to, b.cfg.Bound/2, op, body, answer); err != nil {
		return err
	}
	if b.admission.ahead(to, answer.NewestVersion()) {
		return errSkewed
	}
	return nil
}

// merge merges what an answer says about the clock and about flushes. It comes before
// the machine gets the answer, and an ownership can begin.
func (b *ballots) merge(clock uint64, floors []wire.Floor) {
	b.cfg.Versions.Observe(kv.Version(clock))
	b.cfg.learn(floors)
}
