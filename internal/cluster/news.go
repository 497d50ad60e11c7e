package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// The other side of follow.go: what followers wait for. One goroutine answers all
// followers. So an event is encoded once, however many followers there are, and wakes
// only that goroutine. If a follower has several waiting calls, the oldest is answered
// first, and the next one gets the events after it.

// How events are gathered.
const (
	gatherAfter = 300 * time.Microsecond // after such a pause an event is sent at once
	gatherFor   = 100 * time.Microsecond // otherwise other events may join it
)

// news has the place up to which followers may be answered, and the calls that wait for
// more.
type news struct {
	mu      sync.Mutex
	place   uint64
	urgent  uint64    // place that a caller of Applied waits for all followers to apply
	waiting []waiting // by order of arrival
	ended   bool      // no call waits any more
}

// waiting is a FOLLOW without an answer.
type waiting struct {
	from  *polls
	conn  *rpc.Conn
	id    uint64
	until time.Duration // on the boot clock
}

// gather sends followers the new events, until ctx ends. It sends at once, or, if it
// has just sent some, together with the events of the next moment.
func (n *Node) gather(ctx context.Context) {
	rest := n.cfg.Network.Nap
	if rest == nil {
		nap := newNap()
		defer nap.close()
		rest = nap.sleep
	}
	var last time.Duration
	var a rpc.Answers
	for place := uint64(0); ctx.Err() == nil; {
		n.cfg.Events.Wait(ctx, place)
		if n.cfg.Clock.Read().Boot-last < gatherAfter {
			rest(gatherFor)
		}
		last, place = n.cfg.Clock.Read().Boot, n.cfg.Events.Head()
		n.news.move(place)
		n.answer(&a, false, func(w *waiting) bool { return w.from.sent < place })
	}
	n.news.end()
	n.answer(&a, false, func(*waiting) bool { return true })
}

// move lets followers have the events up to a place.
func (n *news) move(place uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.place = place
}

// end stops all waiting.
func (n *news) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
}

// heartbeats answers followers whose calls have waited long enough without an event,
// until ctx ends.
func (n *Node) heartbeats(ctx context.Context) {
	var a rpc.Answers
	for ctx.Err() == nil {
		now := n.cfg.Clock.Read().Boot
		kv.Sleep(ctx, n.news.next(now+n.followWait())-now)
		now = n.cfg.Clock.Read().Boot
		n.answer(&a, false, func(w *waiting) bool { return w.until <= now })
	}
}

// next returns when the first call has waited long enough; or, if no call waits.
func (n *news) next(or time.Duration) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.waiting) > 0 {
		return n.waiting[0].until
	}
	return or
}

// answer answers the waiting calls that which selects. It does not block.
func (n *Node) answer(a *rpc.Answers, tell bool, which func(*waiting) bool) {
	n.news.mu.Lock()
	n.answerSome(a, tell, which)
	n.news.mu.Unlock()
	a.Write()
}

// answerSome is answer for callers that hold n.news.mu. The lock makes answers leave in
// the order of their places. The caller must write a afterwards.
func (n *Node) answerSome(a *rpc.Answers, tell bool, which func(*waiting) bool) {
	var b batch
	left := n.news.waiting[:0]
	for _, w := range n.news.waiting {
		if which(&w) {
			n.answerOne(a, &b, &w, tell)
		} else {
			left = append(left, w)
		}
	}
	clear(n.news.waiting[len(left):])
	n.news.waiting = left
}

// batch is the last answer. It is reused for the next follower at the same place.
type batch struct {
	after, to uint64
	reply     *wire.Reply // nil: there is none
}

// answerOne answers with the events after the follower's previous answer. n.news.mu is
// held.
func (n *Node) answerOne(a *rpc.Answers, b *batch, w *waiting, tell bool) {
	if b.reply == nil || b.after != w.from.sent {
		b.after = w.from.sent
		b.reply, b.to = n.followed(b.after, tell)
	}
	w.from.sent = b.to
	b.reply.ID = w.id
	a.Frame = wire.AppendReply(a.Frame[:0], wire.OpFollow, b.reply)
	w.conn.Answer(a, true)
}

// urge sends followers at once what they lack up to a place, and asks them to say when
// they have applied it. This includes followers whose next call is on its way.
func (n *Node) urge(place uint64) {
	var a rpc.Answers
	n.news.mu.Lock()
	n.news.urgent = max(n.news.urgent, place)
	n.news.mu.Unlock()
	n.answer(&a, true, func(w *waiting) bool {
		if w.from.applied >= place || w.from.urged >= place {
			return false
		}
		w.from.urged = place
		return true
	})
}

// follow leaves a FOLLOW to the goroutines that answer, or answers it if it need not
// wait.
func (s *polls) follow(c *rpc.Conn, q *wire.Request) {
	n := s.n
	var f wire.Follow
	if err := peer.Read(s.from, q, &f); err != nil {
		c.Out = wire.AppendError(c.Out, q.ID, err)
		return
	}
	wait := min(time.Duration(f.WaitMS)*time.Millisecond, n.followWait())
	w := waiting{from: s, conn: c, id: q.ID, until: n.cfg.Clock.Read().Boot + wait}
	c.Begin(nil)
	var a rpc.Answers
	n.news.mu.Lock()
	if f.Anew { // the answers to earlier calls will be ignored
		n.answerSome(&a, false, func(w *waiting) bool { return w.from == s })
		s.sent = f.Applied
	}
	s.applied = f.Applied
	if tell := s.applied < n.news.urgent; tell || wait <= 0 || n.news.ended || s.sent < n.news.place {
		n.answerOne(&a, &batch{}, &w, tell)
	} else {
		n.news.waiting = append(n.news.waiting, w)
	}
	n.news.mu.Unlock()
	a.Write()
	n.readers.applied(s.from, f.Applied)
}

// followed returns the answer with the events after a place in this process's log, and
// the place that it leads to.
func (n *Node) followed(place uint64, tell bool) (r *wire.Reply, to uint64) {
	w := wire.Followed{Tell: tell}
	events, ok := n.cfg.Events.After(place, maxFollowed, nil)
	for !ok && failpoint.Out(failpoint.Tail) { // what is still there
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
	now := n.cfg.Clock.Read() // after the events: the clock must be above all of them
	w.WallMS, w.Clock = now.Wall, uint64(n.cfg.Versions.Next(now.Wall))
	reply := body(&w)
	return &reply, w.To
}
