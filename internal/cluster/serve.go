package cluster

import (
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// pollServer serves the requests of the other nodes that leases and ownership depend on:
// POLL, FOLLOW, ACQUIRE, AUTH, NOTE and GOODBYE. It has no state of its own.
type pollServer struct {
	cfg           *Config
	driver        *driver
	admission     *admission
	acquaintances *acquaintances
	followers     *followers
	readers       *readers
	poller        *poller
	flusher       *flusher
	membership    *membership
}

// handler returns the handler for another process, by the connection's purpose.
func (s *pollServer) handler(from kv.Process, purpose peer.Purpose) server.Handler {
	s.acquaintances.meet(from)
	switch purpose {
	case peer.Call:
		return s.cfg.Tiers.Calls(from)
	case peer.Meet:
		return greetingOnly{}
	}
	return s.polls(from)
}

func (s *pollServer) polls(from kv.Process) *polls {
	return &polls{server: s, from: from, follower: &follower{process: from}}
}

// greetingOnly handles a connection that is for the greeting only.
type greetingOnly struct{}

func (greetingOnly) Batch()                                     {}
func (greetingOnly) Served()                                    {}
func (greetingOnly) Gone()                                      {}
func (greetingOnly) Oversized(*server.Conn, []byte, int, error) {}
func (greetingOnly) Close(error)                                {}
func (greetingOnly) Serve(*server.Conn, [][]byte) error {
	return errors.New("a connection to meet has no requests")
}

// polls is one connection for polls from another process.
type polls struct {
	server   *pollServer
	from     kv.Process
	follower *follower
}

// Batch checks for a pause before anything is answered.
func (p *polls) Batch() { p.server.driver.checkPause(p.server.cfg.Clock.Read().Boot) }

func (p *polls) Served() {}

func (p *polls) Gone() {}

func (p *polls) Oversized(*server.Conn, []byte, int, error) {}

func (p *polls) Close(err error) {
	if err != nil {
		p.server.cfg.Log.Debug("a poll connection ended", "from", p.from.Node, "reason", err)
	}
}

func (p *polls) Serve(c *server.Conn, frames [][]byte) error {
	for _, frame := range frames {
		var q wire.Request
		if err := wire.DecodeRequest(frame, &q); err != nil {
			if _, ok := wire.PeekID(frame); !ok {
				return err
			}
			c.Out = wire.AppendError(c.Out, q.ID, err)
			continue
		}
		if q.Op == wire.OpFollow {
			p.server.followers.follow(p.follower, c, &q)
			continue
		}
		r := p.server.answer(p.from, &q)
		r.ID = q.ID
		c.Out = wire.AppendReply(c.Out, q.Op, &r)
	}
	return nil
}

// answer answers a request, except FOLLOW.
func (s *pollServer) answer(from kv.Process, q *wire.Request) wire.Reply {
	var err *wire.Error
	switch q.Op {
	case wire.OpPoll:
		var w wire.Poll
		if err = peer.Read(from, q, &w); err == nil {
			return s.poll(from, &w)
		}
	case wire.OpAcquire:
		var w wire.Acquire
		if err = peer.Read(from, q, &w); err == nil {
			return s.acquire(from, &w)
		}
	case wire.OpAuth:
		var w wire.Auth
		if err = peer.Read(from, q, &w); err == nil {
			return s.authorize(from, &w)
		}
	case wire.OpNote:
		var w wire.Note
		if err = peer.Read(from, q, &w); err == nil {
			return s.note(from, &w)
		}
	case wire.OpGoodbye:
		var w wire.Goodbye
		if err = peer.Read(from, q, &w); err == nil {
			s.membership.goodbye(from)
			return wire.Reply{}
		}
	case wire.OpPing: // the last call of a connection that is replaced
		return wire.Reply{}
	default:
		err = wire.Errorf(wire.Unsupported, "%s is not served on a poll connection", q.Op)
	}
	return failure(err)
}

// poll answers a poll.
func (s *pollServer) poll(from kv.Process, w *wire.Poll) wire.Reply {
	err := s.admission.checkWall(from, w.WallMS)
	if err == nil {
		err = s.admission.admit(from, w.Clock, w.NewestVersion())
	}
	if err != nil {
		return failure(err)
	}
	s.driver.stepFor(from, func(m *ownership.Machine, now time.Duration) {
		m.PolledBy(now, from, fromPoll(w))
		s.poller.record(m, now, from, w)
	})
	s.acquaintances.introduce(w.Others)
	if !s.readers.addPoll(from, s.cfg.Clock.Read().Boot, Margin(s.cfg.Bound)) {
		return failure(wire.Errorf(wire.Busy, "more than %d runs of nodes have polled lately", maxReaders))
	}
	b, _, failed := s.poller.body(from, s.cfg.Clock.Read(), true)
	if failed != nil {
		return failure(wire.Errorf(wire.Internal, "%v", failed))
	}
	return wire.Reply{Body: b}
}

// acquire answers an ACQUIRE. What it ends has ended before the answer is made.
func (s *pollServer) acquire(from kv.Process, w *wire.Acquire) wire.Reply {
	if err := s.admission.admit(from, w.Clock, w.NewestVersion()); err != nil {
		return failure(err)
	}
	ballot := FromBallot(w.Ballot)
	var a ownership.Answer
	s.driver.stepFor(from, func(m *ownership.Machine, now time.Duration) {
		a = m.Asked(now, from, ownership.Acquire{
			Ballot: ballot, State: w.State, Partitions: fromSet(w.Partitions), Ring: fromProcesses(w.Ring),
		})
		s.driver.carryOut() // ends the ownership before the offer
		if !a.Released.Empty() {
			s.cfg.Tiers.Offer(from, ballot, a.Released)
		}
	})
	return replyWith(&wire.Acquired{
		Ballot: w.Ballot, Granted: toSet(a.Granted), Released: toSet(a.Released), In: toProcesses(a.In),
		Clock: uint64(s.cfg.Versions.Next(s.cfg.Clock.Read().Wall)), Head: s.cfg.Events.Head(),
		Voter: a.Voter, Authorities: toOwnerships(a.Authorities), Floors: s.cfg.floors(failpoint.FloorsInAcquire),
		Passed: toSet(a.Passed), Keeps: !a.Released.Empty() && s.cfg.Tiers.KeepsEntries(),
	})
}

// authorize answers an AUTH.
func (s *pollServer) authorize(from kv.Process, w *wire.Auth) wire.Reply {
	if err := s.admission.admit(from, w.Clock, w.NewestVersion()); err != nil {
		return failure(err)
	}
	var sets []kv.PartitionSet
	s.driver.stepFor(from, func(m *ownership.Machine, now time.Duration) {
		sets = m.Authorize(now, from, ownership.Auth{Ownerships: fromOwnerships(w.Ownerships)})
	})
	answer := wire.Authorized{
		Clock:  uint64(s.cfg.Versions.Next(s.cfg.Clock.Read().Wall)),
		Floors: s.cfg.floors(failpoint.FloorsInAuth),
	}
	for _, set := range sets {
		answer.Acknowledged = append(answer.Acknowledged, toSet(set))
	}
	return replyWith(&answer)
}

// note answers a NOTE.
func (s *pollServer) note(from kv.Process, w *wire.Note) wire.Reply {
	if err := s.admission.checkWall(from, w.WallMS); err != nil {
		return failure(err)
	}
	if s.admission.ahead(from, w.NewestVersion()) {
		return failure(tooFarAhead)
	}
	a, err := s.flusher.noteHere(w.Floor)
	var refused *wire.Error
	switch {
	case errors.As(err, &refused):
		return failure(refused)
	case err != nil:
		return failure(wire.Errorf(wire.Internal, "%v", err))
	}
	return replyWith(a)
}
