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

// A Node serves the requests of the other nodes that leases and ownership depend on: POLL,
// FOLLOW, ACQUIRE, AUTH, NOTE and GOODBYE; and SETTINGS, which they do not.

// handler returns the handler for another process, by the connection's purpose.
func (n *Node) handler(from kv.Process, purpose peer.Purpose) server.Handler {
	n.acquaintances.meet(from)
	if purpose == peer.Call {
		return n.cfg.Delegate.Calls(from)
	}
	return &polls{node: n, from: from, follower: &follower{process: from}}
}

// polls is one connection for polls from another process, or for its greeting only.
type polls struct {
	node     *Node
	from     kv.Process
	follower *follower
}

// Batch checks for a pause before anything is answered.
func (ps *polls) Batch() { ps.node.driver.checkPause(ps.node.cfg.Clock.Read().Boot) }

func (ps *polls) Served()                                    {}
func (ps *polls) Gone()                                      {}
func (ps *polls) Oversized(*server.Conn, []byte, int, error) {}

func (ps *polls) Close(err error) {
	if err != nil {
		ps.node.cfg.Log.Debug("a poll connection ended", "from", ps.from.Node, "reason", err)
	}
}

func (ps *polls) Serve(c *server.Conn, frames [][]byte) error {
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
			ps.node.followers.follow(ps.follower, c, &q)
			continue
		}
		r := ps.node.answer(ps.from, &q)
		r.ID = q.ID
		c.Out = wire.AppendReply(c.Out, q.Op, &r)
	}
	return nil
}

// answer answers a request, except FOLLOW.
func (n *Node) answer(from kv.Process, q *wire.Request) wire.Reply {
	switch q.Op {
	case wire.OpPoll:
		return readAndAnswer(from, q, n.answerPoll)
	case wire.OpAcquire:
		return readAndAnswer(from, q, n.answerAcquire)
	case wire.OpAuth:
		return readAndAnswer(from, q, n.answerAuth)
	case wire.OpNote:
		return readAndAnswer(from, q, n.answerNote)
	case wire.OpSettings:
		return n.Agreement.answer()
	case wire.OpGoodbye:
		return readAndAnswer(from, q, func(from kv.Process, _ *wire.Goodbye) (r wire.Reply) {
			n.watcher.goodbye(from)
			return r
		})
	case wire.OpPing: // the last call of a connection that is replaced
		return wire.Reply{}
	}
	return wire.ErrorReply(wire.Errorf(wire.Unsupported, "%s is not served on a poll connection", q.Op))
}

// readAndAnswer has a request answered if its message can be read.
func readAndAnswer[M any](from kv.Process, q *wire.Request, answer func(kv.Process, *M) wire.Reply) wire.Reply {
	w := new(M)
	if err := peer.Read(from, q, w); err != nil {
		return wire.ErrorReply(err)
	}
	return answer(from, w)
}

// answerPoll answers a poll.
func (n *Node) answerPoll(from kv.Process, w *wire.Poll) wire.Reply {
	err := n.admission.checkWall(from, w.WallMS)
	if err == nil {
		err = n.admission.admit(from, w.Clock, w.NewestVersion())
	}
	if err != nil {
		return wire.ErrorReply(err)
	}
	n.driver.stepFor(from, func(s *state, now time.Duration) {
		s.machine.PolledBy(now, from, w)
		if m := s.members.process(from); m != nil {
			m.toldAt = now
		}
	})
	n.acquaintances.introduce(w.Others)
	if !n.followers.addReader(from, n.cfg.Clock.Read().Boot) {
		return wire.ErrorReply(wire.Errorf(wire.Busy, "more than %d runs of nodes have polled lately", maxReaders))
	}
	return wire.BodyReply(n.poller.message(from, n.cfg.Clock.Read(), true))
}

// answerAcquire answers an ACQUIRE. What it ends has ended before the answer is made.
func (n *Node) answerAcquire(from kv.Process, w *wire.Acquire) wire.Reply {
	if err := n.admission.admit(from, w.Clock, w.NewestVersion()); err != nil {
		return wire.ErrorReply(err)
	}
	ballot := w.Ballot // a copy: the machine keeps it, and not the request
	var a ownership.Answer
	n.driver.stepFor(from, func(s *state, now time.Duration) {
		a = s.machine.Asked(now, from, ownership.Acquire{
			Ballot: &ballot, State: w.State, Partitions: kv.UnpackedSet(w.Partitions), Ring: w.Ring,
		})
		s.carryOut() // ends the ownership before the offer
		if !a.Released.Empty() {
			n.cfg.Delegate.Offer(from, &ballot, a.Released)
		}
	})
	return wire.BodyReply(&wire.Acquired{
		Ballot: w.Ballot, Granted: a.Granted.Packed(), Released: a.Released.Packed(), In: a.In,
		Clock: uint64(n.cfg.Versions.Next(n.cfg.Clock.Read().Wall)), Head: n.cfg.Events.Head(),
		Voter: a.Voter, Authorities: toOwnerships(a.Authorities), Floors: n.cfg.floors(failpoint.FloorsInAcquire),
		Passed: a.Passed.Packed(), Keeps: !a.Released.Empty() && n.cfg.Delegate.KeepsEntries(),
	})
}

// answerAuth answers an AUTH.
func (n *Node) answerAuth(from kv.Process, w *wire.Auth) wire.Reply {
	if err := n.admission.admit(from, w.Clock, w.NewestVersion()); err != nil {
		return wire.ErrorReply(err)
	}
	var sets []kv.PartitionSet
	n.driver.stepFor(from, func(s *state, now time.Duration) {
		sets = s.machine.Authorize(now, from, ownership.Auth{Ownerships: fromOwnerships(w.Ownerships)})
	})
	answer := wire.Authorized{
		Clock:  uint64(n.cfg.Versions.Next(n.cfg.Clock.Read().Wall)),
		Floors: n.cfg.floors(failpoint.FloorsInAuth),
	}
	for _, set := range sets {
		answer.Acknowledged = append(answer.Acknowledged, set.Packed())
	}
	return wire.BodyReply(&answer)
}

// answerNote answers a NOTE.
func (n *Node) answerNote(from kv.Process, w *wire.Note) wire.Reply {
	if err := n.admission.checkWall(from, w.WallMS); err != nil {
		return wire.ErrorReply(err)
	}
	if n.admission.ahead(from, w.NewestVersion()) {
		return wire.ErrorReply(tooFarAhead)
	}
	a, err := n.flusher.noteHere(w.Floor)
	var refused *wire.Error
	switch {
	case errors.As(err, &refused):
		return wire.ErrorReply(refused)
	case err != nil:
		return wire.ErrorReply(wire.Errorf(wire.Internal, "%v", err))
	}
	return wire.BodyReply(a)
}
