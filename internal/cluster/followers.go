package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/sched"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// How events are gathered.
const (
	gatherAfter = 300 * time.Microsecond // after such a pause an event is sent at once
	gatherFor   = 100 * time.Microsecond // otherwise other events may join it
)

// maxFollowed limits the events of an answer to FOLLOW.
const maxFollowed = 8192

// followers serves this process's log to the hosts that follow it: the other side of
// following. One goroutine answers all followers. So an event is encoded once, however
// many followers there are, and wakes only that goroutine. If a follower has several
// waiting calls, the oldest is answered first, and the next one gets the events after
// it.
//
// mu is never held together with the driver's lock.
type followers struct {
	cfg *Config

	mu      sync.Mutex
	place   uint64    // up to which followers may be answered
	urgent  uint64    // that a caller of applied waits for all followers to apply
	waiting []waiting // calls without an answer, by order of arrival
	ended   bool      // no call waits any more
	readers readers
	events  []invalidation.Event // of the latest answer: the next one's come into the same array
	moved   chan struct{}        // closed when a reader has applied more; nil if no caller waits
}

// follower is one connection that follows this process's log. Its places in the log are
// guarded by followers.mu.
type follower struct {
	process kv.Process
	sent    uint64 // up to which it has been answered
	applied uint64 // up to which it has applied, as it has said last
	urged   uint64 // up to which it was asked to say so
}

// waiting is a FOLLOW without an answer.
type waiting struct {
	from  *follower
	conn  *server.Conn
	id    uint64
	until time.Duration // on the boot clock
}

// run sends followers the new events, until ctx ends. It sends at once, or, if it has
// just sent some, together with the events of the next moment.
func (f *followers) run(ctx context.Context) {
	pause := f.cfg.Network.Nap
	if pause == nil {
		nap := sched.NewNap()
		defer nap.Close()
		pause = nap.Sleep
	}
	var last time.Duration
	var a transport.Answers
	for place := uint64(0); ctx.Err() == nil; {
		f.cfg.Events.Wait(ctx, place)
		if f.cfg.Clock.Read().Boot-last < gatherAfter {
			pause(gatherFor)
		}
		last, place = f.cfg.Clock.Read().Boot, f.cfg.Events.Head()
		f.mu.Lock()
		f.place = place
		f.mu.Unlock()
		f.answer(&a, false, func(w *waiting) bool { return w.from.sent < place })
	}
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.answer(&a, false, func(*waiting) bool { return true })
}

// runHeartbeats answers followers whose calls have waited long enough without an event,
// until ctx ends.
func (f *followers) runHeartbeats(ctx context.Context) {
	var a transport.Answers
	for ctx.Err() == nil {
		now := f.cfg.Clock.Read().Boot
		kv.Sleep(ctx, f.nextHeartbeat(now+f.cfg.followWait())-now)
		now = f.cfg.Clock.Read().Boot
		f.answer(&a, false, func(w *waiting) bool { return w.until <= now })
	}
}

// nextHeartbeat returns when the first call has waited long enough; or, if no call
// waits.
func (f *followers) nextHeartbeat(or time.Duration) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiting) > 0 {
		return f.waiting[0].until
	}
	return or
}

// follow leaves a FOLLOW to the goroutines that answer, or answers it if it need not
// wait.
func (f *followers) follow(from *follower, c *server.Conn, q *wire.Request) {
	var call wire.Follow
	if err := peer.Read(from.process, q, &call); err != nil {
		c.Out = wire.AppendError(c.Out, q.ID, err)
		return
	}
	wait := min(time.Duration(call.WaitMS)*time.Millisecond, f.cfg.followWait())
	w := waiting{from: from, conn: c, id: q.ID, until: f.cfg.Clock.Read().Boot + wait}
	c.Begin(nil)
	var a transport.Answers
	f.mu.Lock()
	if call.Anew { // the answers to earlier calls will be ignored
		f.answerLocked(&a, false, func(w *waiting) bool { return w.from == from })
		from.sent = call.Applied
	}
	from.applied = call.Applied
	f.setApplied(from.process, call.Applied)
	if tell := from.applied < f.urgent; tell || wait <= 0 || f.ended || from.sent < f.place {
		f.answerOne(&a, &batch{}, &w, tell)
	} else {
		f.waiting = append(f.waiting, w)
	}
	f.mu.Unlock()
	a.Write()
}

// answer answers the waiting calls that which selects. It does not block.
func (f *followers) answer(a *transport.Answers, tell bool, which func(*waiting) bool) {
	f.mu.Lock()
	f.answerLocked(a, tell, which)
	f.mu.Unlock()
	a.Write()
}

// answerLocked is answer for callers that hold f.mu. The lock makes answers leave in the
// order of their places. The caller must write a afterwards.
func (f *followers) answerLocked(a *transport.Answers, tell bool, which func(*waiting) bool) {
	var b batch
	left := f.waiting[:0]
	for _, w := range f.waiting {
		if which(&w) {
			f.answerOne(a, &b, &w, tell)
		} else {
			left = append(left, w)
		}
	}
	clear(f.waiting[len(left):])
	f.waiting = left
}

// batch is the last answer. It is reused for the next follower at the same place.
type batch struct {
	after, to uint64
	reply     *wire.Reply // nil: there is none
}

// answerOne answers with the events after the follower's previous answer. f.mu is held.
func (f *followers) answerOne(a *transport.Answers, b *batch, w *waiting, tell bool) {
	if b.reply == nil || b.after != w.from.sent {
		b.after = w.from.sent
		b.reply, b.to = f.eventsAfter(b.after, tell)
	}
	w.from.sent = b.to
	b.reply.ID = w.id
	a.Frame = wire.AppendReply(a.Frame[:0], wire.OpFollow, b.reply)
	w.conn.Answer(a, true)
}

// eventsAfter returns the answer with the events after a place in this process's log,
// and the place that it leads to.
func (f *followers) eventsAfter(place uint64, tell bool) (r *wire.Reply, to uint64) {
	w := wire.Followed{Tell: tell}
	events, ok := f.cfg.Events.After(place, maxFollowed, f.events[:0])
	for !ok && failpoint.Out(failpoint.Tail) { // what is still there
		place++
		events, ok = f.cfg.Events.After(place, maxFollowed, f.events[:0])
	}
	if f.events = events; ok {
		w.After, w.To, w.Events = place, place+uint64(len(events)), toEvents(events)
	} else {
		r := f.cfg.Events.Reset(place)
		w.Reset, w.To = true, r.Head
		for _, m := range r.Since {
			w.Marks = wire.AppendMark(w.Marks, m.Partition, m.Changed, m.Raised)
		}
		w.Floors = f.cfg.Delegate.Floors()
	}
	now := f.cfg.Clock.Read() // after the events: the clock must be above all of them
	w.WallMS, w.Clock = now.Wall, uint64(f.cfg.Versions.Next(now.Wall))
	reply := wire.BodyReply(&w)
	return &reply, w.To
}

// urge sends followers at once what they lack up to a place, and asks them to say when
// they have applied it. This includes followers whose next call is on its way.
func (f *followers) urge(place uint64) {
	var a transport.Answers
	f.mu.Lock()
	f.urgent = max(f.urgent, place)
	f.mu.Unlock()
	f.answer(&a, true, func(w *waiting) bool {
		if w.from.applied >= place || w.from.urged >= place {
			return false
		}
		w.from.urged = place
		return true
	})
}

// applied waits until every process that may have a lease on this one has applied its
// log up to a place; see Node.Applied.
func (f *followers) applied(ctx context.Context, place uint64) bool {
	lease := Margin(f.cfg.Bound)
	begun := f.cfg.Clock.Read().Boot
	t := time.NewTimer(lease)
	defer t.Stop()
	f.urge(place)
	for {
		now := f.cfg.Clock.Read().Boot
		behind, moved := f.behind(place, now)
		if behind == 0 || now-begun >= lease {
			return true
		}
		select {
		case <-moved:
		case <-t.C:
		case <-ctx.Done():
			return false
		}
	}
}
