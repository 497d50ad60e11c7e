package cluster

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
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
// number of requests in flight, and further ones are dropped. The answers are taken without
// the driver's lock.
type ballots struct {
	cfg       *Config
	driver    *driver
	pool      *peer.Pool
	admission *admission
}

// acquire asks a process for partitions.
func (b *ballots) acquire(s *state, a ownership.Send) {
	m := s.members.process(a.To)
	if m == nil {
		return
	}
	q, w := a.Acquire, &wire.Acquired{}
	b.sendRequest(s, m.acquire, a.To, wire.OpAcquire, &wire.Acquire{
		Ballot: *q.Ballot, State: q.State, Partitions: q.Partitions.Packed(), Ring: q.Ring,
		Clock: uint64(q.Ballot.Clock),
	}, w, func() {
		b.merge(w.Clock, w.Floors)
		b.driver.stepAbout(a.To, func(s *state, now time.Duration) {
			s.machine.Answered(now, a.To, ownership.Answer{
				Ballot: q.Ballot, Granted: kv.UnpackedSet(w.Granted), Released: kv.UnpackedSet(w.Released),
				Passed: kv.UnpackedSet(w.Passed), Keeps: w.Keeps,
				In: w.In, Head: w.Head, Voter: w.Voter, Authorities: fromOwnerships(w.Authorities),
			})
		})
	})
}

// authorize asks a voter.
func (b *ballots) authorize(s *state, a ownership.SendAuth) {
	m := s.members.process(a.To)
	if m == nil {
		return
	}
	clock, w := b.cfg.Versions.Next(b.cfg.Clock.Read().Wall), &wire.Authorized{}
	b.sendRequest(s, m.auth, a.To, wire.OpAuth, &wire.Auth{
		Ownerships: toOwnerships(a.Auth.Ownerships), Clock: uint64(clock),
	}, w, func() {
		b.merge(w.Clock, w.Floors)
		sets := make([]kv.PartitionSet, len(w.Acknowledged))
		for i, set := range w.Acknowledged {
			sets[i] = kv.UnpackedSet(set)
		}
		b.driver.stepAbout(a.To, func(s *state, now time.Duration) {
			s.machine.Authorized(now, a.To, a.Round, sets)
		})
	})
}

// sendRequest makes a call in a goroutine of its own, if one of the member's slots is free and Run
// runs. It calls take once the answer is there and counts.
func (b *ballots) sendRequest(s *state, slots chan struct{}, to kv.Process, op wire.Op,
	message any, answer interface{ NewestVersion() uint64 }, take func()) {
	ctx := s.running.ctx
	if ctx == nil {
		return
	}
	select {
	case slots <- struct{}{}:
	default:
		return
	}
	s.running.tasks.Go(func() { // ends with its call
		defer func() { <-slots }()
		b.driver.checkPause(b.cfg.Clock.Read().Boot)
		err := b.pool.Ask(ctx, to, b.cfg.Bound/2, op, message, answer)
		if err == nil && b.admission.ahead(to, answer.NewestVersion()) {
			err = errSkewed
		}
		if err != nil {
			b.cfg.Log.Debug("a request was not answered", "request", op, "node", to.Node, "error", err)
			return
		}
		take()
	})
}

// merge merges what an answer says about the clock and about flushes. It comes before
// the machine gets the answer, and an ownership can begin.
func (b *ballots) merge(clock uint64, floors []wire.Floor) {
	b.cfg.Versions.Observe(kv.Version(clock))
	b.cfg.learn(floors)
}
