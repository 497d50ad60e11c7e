package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// The other side: what followers wait for. One goroutine answers all of them, so
// that an event is encoded once, however many follow, and wakes nobody in this
// process but that one. Of a follower that has several calls waiting the oldest is
// answered, and the next with what comes after that.

// How events gather.
const (
	gatherAfter = 300 * time.Microsecond // since the last time: an event then goes at once
	gatherFor   = 100 * time.Microsecond // else others may join it
)

// news is how far followers may be answered, and who waits for more.
type news struct {
	mu      sync.Mutex
	place   uint64
	urgent  uint64    // place up to which somebody waits for all to have applied
	waiting []waiting // by when they came
	ended   bool      // nobody waits any more
}

// waiting is a FOLLOW that has no answer yet.
type waiting struct {
	from  *polls
	conn  *rpc.Conn
	id    uint64
	until time.Duration // on the boot clock
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

// move says that followers may have what lies up to a place.
func (n *news) move(place uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.place = place
}

// end lets nobody wait any more.
func (n *news) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
}

// heartbeats answers followers that have waited long enough for nothing, until
// ctx ends.
func (n *Node) heartbeats(ctx context.Context) {
	var a rpc.Answers
	for ctx.Err() == nil {
		now := n.cfg.Clock.Read().Boot
		kv.Sleep(ctx, n.news.next(now+n.followWait())-now)
		now = n.cfg.Clock.Read().Boot
		n.answer(&a, false, func(w *waiting) bool { return w.until <= now })
	}
}

// next is when the first one has waited long enough, or else.
func (n *news) next(or time.Duration) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.waiting) > 0 {
		return n.waiting[0].until
	}
	return or
}

// answer answers some of those who wait, without waiting itself.
func (n *Node) answer(a *rpc.Answers, tell bool, which func(*waiting) bool) {
	n.news.mu.Lock()
	n.answerSome(a, tell, which)
	n.news.mu.Unlock()
	a.Write()
}

// answerSome is answer. The lock of the news is held, so that answers leave in the
// order of their places; a is to be written.
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

// batch is what was answered last, which suits whoever is at the same place.
type batch struct {
	after, to uint64
	reply     *wire.Reply // nil: nothing was
}

// answerOne answers with what follows the answer before it. The lock of the news
// is held.
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

// urge lets followers have what they lack up to a place at once, and asks them to
// say when they have applied it; those too that are about to ask.
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

// follow leaves a FOLLOW to whoever answers them, or answers it where it need not
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
	if f.Anew { // and nobody cares for what was asked before
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

// followed is what comes after a place in this process's log, up to another.
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
	now := n.cfg.Clock.Read() // after all that it is to be above of
	w.WallMS, w.Clock = now.Wall, uint64(n.cfg.Versions.Next(now.Wall))
	reply := body(&w)
	return &reply, w.To
}
