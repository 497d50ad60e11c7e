package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// How logs are followed: each node asks each other node for the events after the last
// one that it has applied. The answer waits until there is an event. So there is no
// queue per follower, and a slow follower just asks later. The answers travel with the
// polls, on a connection that carries no values.
//
// Under load several such requests wait at the other process, one for each answer. They
// are sent in one write; otherwise each answer would cost a message of its own to ask
// for the next.

// Limits of answers to FOLLOW, and of the calls.
const (
	maxFollowed  = 8192                  // events
	maxAsked     = 16                    // calls in flight
	busyWithin   = 2 * time.Millisecond  // load: the next answer comes this soon
	followFailed = 20 * time.Millisecond // pause before it asks again
)

// followWait returns how long an answer waits for an event.
func (n *Node) followWait() time.Duration { return n.cfg.Bound / 4 }

// follow applies the events that another process appends to its log, until ctx ends.
func (n *Node) follow(ctx context.Context, id kv.Process) {
	for ctx.Err() == nil {
		err := n.followFrom(ctx, id)
		switch {
		case ctx.Err() != nil:
		case errors.Is(err, rpc.ErrRetiring): // there is another connection
			continue
		case err != nil:
			n.cfg.Log.Debug("a log cannot be followed", "node", id.Node, "error", err)
		}
		kv.Sleep(ctx, followFailed)
	}
}

// followed is an answer to FOLLOW, or a call that waits for one.
type followed struct {
	sent  int64 // wall clock, ms
	frame []byte
	err   error
	came  chan<- *followed // has room for all calls in flight
}

// Answered passes the answer to the goroutine that applies answers, in the order of
// their arrival.
func (f *followed) Answered(_ *rpc.Answers, frame []byte, err error) {
	f.frame, f.err = append(f.frame[:0], frame...), err
	f.came <- f
}

// asking has the FOLLOWs of one follower that are in flight.
type asking struct {
	n       *Node
	id      kv.Process
	c       *rpc.Client
	timeout time.Duration
	came    chan *followed // in the order of the answers
	idle    []*followed
	waiting int // calls without an answer yet
}

// followFrom follows a log from the last applied event. It returns when something is
// wrong; the caller must then start again. Calls in flight are given up.
func (n *Node) followFrom(ctx context.Context, id kv.Process) error {
	a := &asking{n: n, id: id, timeout: n.followWait() + n.cfg.Bound/2, came: make(chan *followed, maxAsked)}
	var err error
	if a.c, _, err = n.pool.Connect(ctx, id, peer.Poll, a.timeout); err != nil {
		return err
	}
	if err := a.ask(1, true); err != nil {
		return err
	}
	window, last := 1, n.cfg.Clock.Read().Boot
	for {
		var f *followed
		select {
		case f = <-a.came:
		case <-ctx.Done():
			return ctx.Err()
		}
		w, err := n.followOnce(id, f)
		if err != nil {
			return err
		}
		a.done(f)
		now := n.cfg.Clock.Read().Boot
		if w.Events.Len() > 0 && now-last < busyWithin {
			window = min(2*window, maxAsked)
		} else {
			window = 1
		}
		last = now
		switch {
		case a.waiting <= window/2:
			err = a.ask(window-a.waiting, false)
		case w.Tell:
			err = a.ask(1, false)
		case a.c.Retiring():
			err = rpc.ErrRetiring
		}
		if err != nil {
			return err
		}
	}
}

// ask sends calls in one write. At most maxAsked are in flight.
func (a *asking) ask(calls int, anew bool) error {
	n := a.n
	body, err := wire.MarshalBody(&wire.Follow{Applied: n.ownerOf(a.id).log.Applied(), WaitMS: uint32(n.followWait().Milliseconds()), Anew: anew})
	if err != nil {
		return err
	}
	sent := n.cfg.Clock.Read().Wall
	for range calls {
		f := &followed{came: a.came}
		if last := len(a.idle) - 1; last >= 0 {
			f, a.idle = a.idle[last], a.idle[:last]
		}
		f.sent = sent
		if err := a.c.Start(&wire.Request{Op: wire.OpFollow, Body: body, TimeoutMS: uint32(a.timeout.Milliseconds())}, a.timeout, f); err != nil {
			return err
		}
		a.waiting++
	}
	a.c.Flush()
	return nil
}

// done takes a call back after its answer was applied.
func (a *asking) done(f *followed) {
	a.waiting--
	if cap(f.frame) > maxIdleFrame {
		f.frame = nil
	}
	a.idle = append(a.idle, f)
}

// maxIdleFrame limits the buffer that is kept for the next answer, in bytes.
const maxIdleFrame = 4 << 10

// ownerOf is owner for callers without the lock.
func (n *Node) ownerOf(id kv.Process) *Owner {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.owner(id)
}

// followOnce applies an answer. If it returns an error, the answer does not count.
func (n *Node) followOnce(id kv.Process, f *followed) (w wire.Followed, err error) {
	if f.err != nil {
		return w, f.err
	}
	var r wire.Reply
	if err := wire.DecodeReply(wire.OpFollow, f.frame, &r); err != nil {
		return w, err
	}
	if err := r.Err(); err != nil {
		return w, err
	}
	if err := wire.UnmarshalBody(r.Body, &w); err != nil {
		n.unread(id.Node, err)
		return w, err
	}
	if n.skewed(id, w.WallMS, f.sent) || n.ahead(id, w.Newest()) {
		return w, errSkewed
	}
	o := n.ownerOf(id)
	n.cfg.Versions.Observe(kv.Version(w.Clock))
	if w.Reset {
		return w, n.reset(o, &w)
	}
	events, err := fromEvents(&w.Events)
	gap := w.After != o.log.Applied() && !failpoint.Out(failpoint.Gap)
	if err != nil || w.After+uint64(len(events)) != w.To || gap {
		n.counts.gaps.Add(1)
		if err != nil {
			n.unread(id.Node, err)
		} else if n.line("gap", id.Node) {
			n.cfg.Log.Warn("changes of a host are missing: all that it owns is read anew", "node", id.Node, "after", w.After, "to", w.To, "events", len(events))
		}
		return w, errGap
	}
	if len(events) > 0 {
		n.cfg.Tiers.Apply(id, w.After, events)
		n.counts.applied.Add(int64(len(events)))
		n.lagged(kv.Version(w.Clock), events[0].Version)
	}
	lease, ok := o.log.Advance(w.After, w.To)
	n.leased(o, lease)
	if !ok {
		return w, errGap
	}
	return w, nil
}

// unread logs that a host's events cannot be decoded.
func (n *Node) unread(node kv.NodeID, err error) {
	if n.line("unread", node) {
		n.cfg.Log.Warn("the changes of a host cannot be read: its version may be another", "node", node, "error", err)
	}
}

var (
	errSkewed = errors.New("its clock is off")
	errGap    = errors.New("events are missing")
)

// lagged records how long the first event of an answer had waited for it.
func (n *Node) lagged(clock, first kv.Version) {
	n.counts.lag.Store(int64(max(0, clock.Wall().Sub(first.Wall()))))
}

func (n *Node) reset(o *Owner, w *wire.Followed) error {
	var marks []invalidation.Mark
	if err := wire.EachMark(w.Marks, func(p uint16, changed, raised uint64) {
		if p < kv.Partitions {
			marks = append(marks, invalidation.Mark{Partition: p, Changed: changed, Raised: raised})
		}
	}); err != nil {
		n.unread(o.Node, err)
		return err
	}
	n.counts.resets.Add(1)
	n.cfg.Log.Debug("a place in a log is gone: all that may have changed since is dropped", "node", o.Node, "partitions", len(marks))
	n.cfg.Tiers.Reset(o.Process, marks, w.Floors, kv.Version(w.Clock))
	n.leased(o, o.log.Reset(w.To))
	return nil
}

// leased notes that everything in an owner's log up to a moment has been applied.
func (n *Node) leased(o *Owner, at time.Duration) {
	if at == 0 || !later(&o.leasedAt, at) {
		return
	}
	n.about(o.Process, func(m *ownership.Machine, now time.Duration) { m.Leased(now, o.Process, at) })
}
