package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/strike"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/holding"
)

// How logs are followed: each node asks each other one for what comes after the
// last event that it has applied, and the answer waits until there is something.
// So there is no queue per follower, and a slow one asks later. The answers
// travel with the polls, on a connection that carries no values.

// Bounds of an answer to FOLLOW, and of the calls.
const (
	maxFollowed  = 8192                   // events
	gatherAfter  = time.Millisecond       // since the last time: an event then goes at once
	gatherFor    = 100 * time.Microsecond // else others may join it
	followFailed = 20 * time.Millisecond  // then it asks again
)

// followWait is how long an answer waits for an event.
func (n *Node) followWait() time.Duration { return n.cfg.Bound / 4 }

// follow applies what another process appends to its log, until ctx ends.
func (n *Node) follow(ctx context.Context, id kv.Process) {
	for ctx.Err() == nil {
		if !n.followOnce(ctx, id) {
			sleep(ctx, followFailed)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// followOnce asks once, and says whether there was an answer that counts.
func (n *Node) followOnce(ctx context.Context, id kv.Process) bool {
	n.mu.Lock()
	o := n.owner(id)
	n.mu.Unlock()
	wait := n.followWait()
	body, err := wire.MarshalBody(&wire.Follow{Applied: o.log.Applied(), WaitMS: uint32(wait.Milliseconds())})
	if err != nil {
		n.cfg.Log.Error("follow", "error", err)
		return false
	}
	sent := n.cfg.Clock.Read()
	var a peer.Answer
	defer a.Release()
	if err := n.pool.Do(ctx, id, peer.Poll, wait+n.cfg.Bound/2, &wire.Request{Op: wire.OpFollow, Body: body}, &a); err != nil || a.Status != wire.OK {
		n.cfg.Log.Debug("a log cannot be followed", "node", id.Node, "error", err, "message", string(a.Message))
		return false
	}
	var w wire.Followed
	if err := wire.UnmarshalBody(a.Body, &w); err != nil {
		n.cfg.Log.Warn("a log cannot be followed", "node", id.Node, "error", err)
		return false
	}
	if n.skewed(id, w.WallMS, sent.Wall) {
		return false
	}
	n.cfg.Versions.Observe(kv.Version(w.Clock))
	if w.Reset {
		return n.reset(o, &w)
	}
	events, err := fromEvents(&w.Events)
	gap := w.After != o.log.Applied() && !strike.Out(strike.Gap)
	if err != nil || w.After+uint64(len(events)) != w.To || gap {
		n.counts.gaps.Add(1)
		n.cfg.Log.Warn("events of a log are missing", "node", id.Node, "after", w.After, "to", w.To, "events", len(events), "error", err)
		return false
	}
	if len(events) > 0 {
		n.cfg.Tiers.Apply(id, w.After, events)
		n.counts.applied.Add(int64(len(events)))
		n.lagged(kv.Version(w.Clock), events[0].Version)
	}
	lease, ok := o.log.Advance(w.After, w.To)
	n.leased(o, lease)
	return ok
}

// lagged notes how long the first event of an answer had waited for it.
func (n *Node) lagged(clock, first kv.Version) {
	n.counts.lag.Store(int64(max(0, clock.Wall().Sub(first.Wall()))))
}

func (n *Node) reset(o *Owner, w *wire.Followed) bool {
	var marks []invalidation.Mark
	if err := wire.EachMark(w.Marks, func(p uint16, changed, raised uint64) {
		if p < kv.Partitions {
			marks = append(marks, invalidation.Mark{Partition: p, Changed: changed, Raised: raised})
		}
	}); err != nil {
		n.cfg.Log.Warn("a log cannot be followed", "node", o.Node, "error", err)
		return false
	}
	n.counts.resets.Add(1)
	n.cfg.Log.Debug("a place in a log is gone: all that may have changed since is dropped", "node", o.Node, "partitions", len(marks))
	n.cfg.Tiers.Reset(o.Process, marks, w.Floors, kv.Version(w.Clock))
	n.leased(o, o.log.Reset(w.To))
	return true
}

// leased says that everything up to a moment has been applied of an owner's log.
func (n *Node) leased(o *Owner, at time.Duration) {
	if at == 0 || !later(&o.leasedAt, at) {
		return
	}
	n.step(func(m *holding.Machine, now time.Duration) { m.Leased(now, o.Process, at) })
}

// news is how far followers may be answered.
type news struct {
	mu      sync.Mutex
	place   uint64
	changed chan struct{} // closed when it moves; nil where nobody waits
}

// wait returns when there is something after a place, or ctx ends.
func (n *news) wait(ctx context.Context, place uint64) {
	n.mu.Lock()
	if n.place > place {
		n.mu.Unlock()
		return
	}
	if n.changed == nil {
		n.changed = make(chan struct{})
	}
	changed := n.changed
	n.mu.Unlock()
	select {
	case <-changed:
	case <-ctx.Done():
	}
}

func (n *news) move(place uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.place = place
	if n.changed != nil {
		close(n.changed)
		n.changed = nil
	}
}

// gather lets followers have what is new, until ctx ends: at once, or where they
// have just had something, together with what comes in a moment.
func (n *Node) gather(ctx context.Context) {
	rest := n.cfg.Network.Nap
	if rest == nil {
		nap := newNap()
		defer nap.close()
		rest = nap.sleep
	}
	var last time.Duration
	for place := uint64(0); ctx.Err() == nil; {
		n.cfg.Events.Wait(ctx, place)
		if n.cfg.Clock.Read().Boot-last < gatherAfter {
			rest(gatherFor)
		}
		last, place = n.cfg.Clock.Read().Boot, n.cfg.Events.Head()
		n.news.move(place)
	}
}

// follow answers a FOLLOW when there is something, or its time is over.
func (s *polls) follow(c *rpc.Conn, q *wire.Request) {
	n := s.n
	id := q.ID
	var w wire.Follow
	if err := wire.UnmarshalBody(q.Body, &w); err != nil {
		c.Out = wire.AppendError(c.Out, id, wire.Errorf(wire.BadRequest, "%s: %v", q.Op, err))
		return
	}
	n.readers.applied(s.from, w.Applied)
	n.mu.Lock()
	running := n.running
	n.mu.Unlock()
	c.Go(func() []byte {
		wait := min(time.Duration(w.WaitMS)*time.Millisecond, n.followWait())
		if running != nil && wait > 0 {
			ctx, cancel := context.WithTimeout(running, wait)
			n.news.wait(ctx, w.Applied)
			cancel()
		}
		r := n.followed(w.Applied)
		r.ID = id
		return wire.AppendReply(nil, wire.OpFollow, &r)
	})
}

// followed is what comes after a place in this process's log.
func (n *Node) followed(place uint64) wire.Reply {
	var w wire.Followed
	events, ok := n.cfg.Events.After(place, maxFollowed, nil)
	for !ok && strike.Out(strike.Tail) { // what is still there
		place++
		events, ok = n.cfg.Events.After(place, maxFollowed, nil)
	}
	if ok {
		w.After, w.To, w.Events = place, place+uint64(len(events)), toEvents(events)
	} else {
		r := n.cfg.Events.Reset(place)
		w.Reset, w.To = true, r.Head
		for _, m := range r.Since {
			w.Marks = wire.AppendMark(w.Marks, m.Partition, m.Changed, m.Raised)
		}
		w.Floors = n.cfg.Tiers.Floors()
	}
	now := n.cfg.Clock.Read() // after all that it is to be above of
	w.WallMS, w.Clock = now.Wall, uint64(n.cfg.Versions.Next(now.Wall))
	return body(&w)
}
