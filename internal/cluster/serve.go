package cluster

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// handler returns the handler for another process, by the connection's purpose.
func (n *Node) handler(from kv.Process, purpose peer.Purpose) rpc.Handler {
	n.met(from)
	switch purpose {
	case peer.Call:
		return n.cfg.Tiers.Calls(from)
	case peer.Meet:
		return idle{}
	}
	return &polls{n: n, from: from}
}

// polls serves the requests that leases and ownership depend on.
type polls struct {
	n    *Node
	from kv.Process

	// Places in this process's log, guarded by n.news.mu.
	sent    uint64 // up to which it has been answered
	applied uint64 // up to which it has applied, by its last word
	urged   uint64 // up to which it was asked to say so
}

// Batch checks for a pause before anything is answered.
func (s *polls) Batch() { s.n.CheckPause(s.n.cfg.Clock.Read().Boot) }

func (s *polls) Served() {}

func (s *polls) Gone() {}

func (s *polls) Oversized(*rpc.Conn, []byte, int, error) {}

func (s *polls) Close(err error) {
	if err != nil {
		s.n.cfg.Log.Debug("a poll connection ended", "from", s.from.Node, "reason", err)
	}
}

func (s *polls) Serve(c *rpc.Conn, frames [][]byte) error {
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
			s.follow(c, &q)
			continue
		}
		r := s.serve(&q)
		r.ID = q.ID
		c.Out = wire.AppendReply(c.Out, q.Op, &r)
	}
	return nil
}

func (s *polls) serve(q *wire.Request) wire.Reply {
	var err *wire.Error
	switch q.Op {
	case wire.OpPoll:
		var w wire.Poll
		if err = peer.Read(s.from, q, &w); err == nil {
			return s.poll(&w)
		}
	case wire.OpAcquire:
		var w wire.Acquire
		if err = peer.Read(s.from, q, &w); err == nil {
			return s.acquire(&w)
		}
	case wire.OpAuth:
		var w wire.Auth
		if err = peer.Read(s.from, q, &w); err == nil {
			return s.authorize(&w)
		}
	case wire.OpNote:
		var w wire.Note
		if err = peer.Read(s.from, q, &w); err == nil {
			return s.note(&w)
		}
	case wire.OpGoodbye:
		var w wire.Goodbye
		if err = peer.Read(s.from, q, &w); err == nil {
			s.n.left(s.from)
			return wire.Reply{}
		}
	case wire.OpPing: // the last call of a connection that is replaced
		return wire.Reply{}
	default:
		err = wire.Errorf(wire.Unsupported, "%s is not served on a poll connection", q.Op)
	}
	return failure(err)
}

// tooFarAhead is the answer to a message with an impossible version; see peer.Identity.
var tooFarAhead = wire.Errorf(wire.Unauthorized, "a version in the message is further ahead than max_clock_skew allows: set the wall clock of its host right and start it anew")

func failure(e *wire.Error) wire.Reply {
	return wire.Reply{Status: e.Status, Message: []byte(e.Message)}
}

func body(v any) wire.Reply {
	b, err := wire.MarshalBody(v)
	if err != nil {
		return failure(wire.Errorf(wire.Internal, "%v", err))
	}
	return wire.Reply{Body: b}
}

// poll answers a poll.
func (s *polls) poll(w *wire.Poll) wire.Reply {
	n := s.n
	now := n.cfg.Clock.Read()
	if n.skewed(s.from, w.WallMS, now.Wall-n.cfg.Bound.Milliseconds()/2) {
		return failure(wire.Errorf(wire.Unauthorized, "this node's clock differs by more than %v", n.cfg.MaxSkew))
	}
	if n.ahead(s.from, w.Newest()) {
		return failure(tooFarAhead)
	}
	n.cfg.Versions.Observe(kv.Version(w.Clock))
	n.from(s.from, func(m *ownership.Machine, now time.Duration) {
		m.PolledBy(now, s.from, fromPoll(w))
		m.Cannot(now, s.from.Node, nodes(w.Cannot))
		n.tells(s.from, w.State, w.Weight, w.In)
		if o := n.members[s.from.Node]; o != nil && o.id == s.from {
			o.toldAt = now
		}
	})
	n.vouched(w.Others)
	if !n.readers.polled(s.from, n.cfg.Clock.Read().Boot, Margin(n.cfg.Bound)) {
		return failure(wire.Errorf(wire.Busy, "more than %d runs of nodes have polled lately", maxReaders))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	b, err := n.pollBody(s.from, n.cfg.Clock.Read())
	if err != nil {
		return failure(wire.Errorf(wire.Internal, "%v", err))
	}
	return wire.Reply{Body: b}
}

// acquire answers an ACQUIRE. What it ends has ended before the answer is made.
func (s *polls) acquire(w *wire.Acquire) wire.Reply {
	n := s.n
	if n.ahead(s.from, w.Newest()) {
		return failure(tooFarAhead)
	}
	n.cfg.Versions.Observe(kv.Version(w.Clock))
	ballot := FromBallot(w.Ballot)
	var a ownership.Answer
	n.from(s.from, func(m *ownership.Machine, now time.Duration) {
		a = m.Asked(now, s.from, ownership.Acquire{Ballot: ballot, State: w.State, Partitions: fromSet(w.Partitions), Ring: fromProcesses(w.Ring)})
		n.carryOut() // ends the ownership before the offer
		if !a.Released.Empty() {
			n.cfg.Tiers.Offer(s.from, ballot, a.Released)
		}
	})
	return body(&wire.Acquired{
		Ballot: w.Ballot, Granted: toSet(a.Granted), Released: toSet(a.Released), In: toProcesses(a.In),
		Clock: uint64(n.cfg.Versions.Next(n.cfg.Clock.Read().Wall)), Head: n.cfg.Events.Head(),
		Voter: a.Voter, Authorities: toOwnerships(a.Authorities), Floors: n.floors(failpoint.FloorsInAcquire),
	})
}

// left takes a goodbye.
func (n *Node) left(id kv.Process) {
	n.step(func(m *ownership.Machine, now time.Duration) {
		m.Left(now, id)
		if o := n.members[id.Node]; o != nil && o.id == id {
			if o.left != id {
				n.cfg.Log.Info("a host has left: it has handed over what it owned", "node", id.Node)
			}
			o.alive, o.left, o.goneAt = false, id, now
			if o.stop != nil {
				o.stop()
			}
			n.pool.Remove(id)
		}
	})
}
