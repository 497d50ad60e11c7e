package sidecar

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/strike"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Every door first asks this host (execute, value): what it holds, and copies
// of what others hold, are answered in place. Where that is not possible the
// answer is MOVED, and the request goes the slow way, within its deadline: a GET
// of what another host holds without a goroutine (see pending.go), all else on
// one of its own:
//
//	held here, entries of it on their way  → fetch the entry first
//	held here, missing, has an origin      → load it, once for all who ask
//	held here, missing, a LEASE            → a token, or wait for who has it
//	held here, write_through               → the origin first
//	ours, but not held yet                 → wait until it is
//	another's                              → ask that one, once for all who ask
//	nobody's                               → wait for a ring
//
// Another sidecar's request goes no further than this host: where it cannot be
// answered here, MOVED is its answer (see peers.go), so nothing can go round in
// circles.

// moved says that this host does not answer for a key now.
func moved() wire.Reply { return wire.Reply{Status: wire.Moved, Message: movedMessage} }

var movedMessage = []byte("this host does not hold the key's partition")

// answerBefore is how long before a request's deadline the slow way gives up:
// the answer must arrive before the app does.
func answerBefore(timeout time.Duration) time.Duration { return min(timeout/10, 20*time.Millisecond) }

// deadlineOf is when the slow way of a request gives up, on the boot clock.
func (c *core) deadlineOf(q *wire.Request, now kv.Moment) time.Duration {
	t := c.timeout(q)
	return now.Boot + t - answerBefore(t)
}

// readPatience is how long a read waits for a holder: a cache that is slow is
// worse than one that misses. Fresh reads and writes wait until their deadline.
const readPatience = 250 * time.Millisecond

// patience is when a request gives up waiting for a holder, on the boot clock.
// Where there can be none, since too few voters are reached, it does not wait.
func (c *core) patience(q *wire.Request, deadline time.Duration) time.Duration {
	now := c.clock.Read()
	if !c.node.Quorum() {
		return now.Boot
	}
	if readOp(q.Op) && !q.Has(wire.Fresh) {
		return min(deadline, now.Boot+readPatience)
	}
	return deadline
}

// serveNow answers a request wherever its keys are. deadline is on the boot clock; b
// is released while it waits. A write with ack=all is done, and is still to be
// acknowledged by all.
func (c *core) serveNow(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	switch q.Op {
	case wire.OpMGet:
		return c.readMany(ctx, q, b, deadline)
	case wire.OpDelete:
		return c.deleteMany(ctx, q, b, deadline)
	case wire.OpFlush:
		return c.flushCluster(ctx, q, b, deadline)
	case wire.OpRing:
		return c.ringThere(ctx, q)
	case wire.OpForget:
		return c.forgetEverywhere(ctx, q)
	}
	r := c.serveKey(ctx, q, b, deadline)
	if degraded(&r) {
		if loaded, ok := c.aside(ctx, q, deadline); ok {
			return loaded
		}
	}
	return r
}

// serveKey answers a request of one key.
func (c *core) serveKey(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	until := c.patience(q, deadline)
	for {
		changed := c.node.Changed() // taken before what it is to tell of is looked at
		now := c.clock.Read()
		c.node.Beat(now.Boot)
		ns, err := b.Write(q.Namespace)
		if bad := checkKey(q.Key); bad != nil {
			err = bad
		} else if err != nil && q.Op == wire.OpGet && kv.ValidNamespace(string(q.Namespace)) {
			return c.readSlotless(ctx, q, deadline)
		}
		if err != nil {
			return wire.ErrorReply(err)
		}
		key := ns.Key(q.Key)
		partition := key.Hash.Partition()
		if c.node.Holds(partition) != 0 {
			if r, done := c.here(ctx, q, q.Key, b, now, deadline); done {
				return r
			}
		}
		if owner := c.node.View().Owner(partition); owner != nil && owner.Process != c.node.Self() {
			b.Release()
			r := c.there(ctx, owner, q, key, deadline)
			if r.Status != wire.Moved {
				return r
			}
			if c.node.View().Owner(partition) != owner {
				continue // the view has changed meanwhile
			}
		}
		b.Release()
		if !c.wait(ctx, changed, until) {
			return c.nobody(q)
		}
	}
}

// here answers from what this host holds: it asks for an entry that is on its
// way first, and has what is missing loaded. It says whether that was possible.
func (c *core) here(ctx context.Context, q *wire.Request, k []byte, b *namespaces.Pins, now kv.Moment, deadline time.Duration) (wire.Reply, bool) {
	if ns := c.through(q); ns != nil {
		b.Release()
		return c.writeThrough(ctx, ns, q, k, deadline)
	}
	r := c.keyLocally(q, k, b, now, 0)
	if r.Status != wire.Moved {
		return r, true
	}
	ns, err := b.Write(q.Namespace)
	if err != nil {
		return wire.ErrorReply(err), true
	}
	key := ns.Key(k)
	partition := key.Hash.Partition()
	holding := c.node.Holds(partition) // before its source
	src := c.handoff.Incoming[partition].Load()
	waits := readOp(q.Op) && ns.Waits(q)
	if holding == 0 {
		return r, false // not held any more
	}
	if src != nil {
		b.Release()
		if err := c.handoff.Fetch(ctx, src, string(q.Namespace), key, deadline-now.Boot); err != nil && !readOp(q.Op) {
			return wire.ErrorReply(wire.Errorf(wire.Unavailable, "%s, which held the key until now, cannot be asked for it: %v", src.From.Node, err)), true
		}
	}
	if src != nil || !waits { // else all that was on its way has come
		r = c.keyLocally(q, k, b, c.clock.Read(), holding)
		if r.Status != wire.Miss || r.Why == wire.Absent || !waits {
			return r, r.Status != wire.Moved
		}
	}
	for {
		b.Release() // what may lose its slot has tokens only, and they name the key
		if ns.Origin == nil {
			r = c.claim(ctx, ns, key, q, deadline)
		} else {
			r = c.load(ctx, ns, key, q, deadline)
		}
		if r.Status != wire.Moved {
			return r, true
		}
		// Somebody else has stored it.
		now := c.clock.Read()
		if r = c.keyLocally(q, k, b, now, holding); r.Status != wire.Miss || r.Why == wire.Absent || now.Boot >= deadline {
			return r, r.Status != wire.Moved
		}
	}
}

// keyLocally is execute for one key, a deleted one too.
func (c *core) keyLocally(q *wire.Request, k []byte, b *namespaces.Pins, now kv.Moment, fetched uint32) wire.Reply {
	if q.Op == wire.OpDelete {
		return c.deleteKey(q, k, b, now)
	}
	return c.execute(q, b, now, fetched)
}

// there passes a request on to a key's owner.
func (c *core) there(ctx context.Context, owner *cluster.Owner, q *wire.Request, key kv.Key, deadline time.Duration) wire.Reply {
	switch q.Op {
	case wire.OpGet:
		return c.read(ctx, owner, q, key, deadline)
	case wire.OpLease:
		return c.lease(ctx, owner, q, key, deadline)
	}
	return c.write(ctx, owner, q, key, deadline)
}

// nobody answers a request that nobody could be found for in time. Nothing was
// executed.
func (c *core) nobody(q *wire.Request) wire.Reply {
	if readOp(q.Op) && !q.Has(wire.Fresh) {
		return wire.Reply{Status: wire.Miss, Why: wire.Degraded}
	}
	if why := c.node.Outcast(); why != "" {
		return wire.ErrorReply(wire.Errorf(wire.Unavailable, "this host is in no cluster: %s", why))
	}
	return wire.ErrorReply(wire.Errorf(wire.Unavailable, "no host holds the key's partition at this moment: try again"))
}

// reaches says whether it makes sense to pass a write on to an owner. One that
// has been silent for the bound has ended its holdings if it cannot reach a
// majority of the voters either: what is sent to it would have an unknown
// outcome for nothing.
func (c *core) reaches(owner *cluster.Owner) bool {
	return c.node.Quorum() || owner.Answers(c.clock.Read().Boot, c.node.Bound())
}

func unreached(owner *cluster.Owner) *wire.Error {
	return wire.Errorf(wire.Unavailable, "neither %s, which owns the key, nor a majority of the voters answers: try again", owner.Node)
}

func readOp(op wire.Op) bool { return op == wire.OpGet || op == wire.OpMGet || op == wire.OpLease }

// wait waits for a change, and says whether there is time left: none where
// nothing will change until somebody sees to it.
func (c *core) wait(ctx context.Context, changed <-chan struct{}, deadline time.Duration) bool {
	left := deadline - c.clock.Read().Boot
	if left <= 0 || c.node.Outcast() != "" {
		return false
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-changed:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// write passes a write on to a key's owner, and notes what has changed before
// the app hears of it: no later read through this host returns an older value.
func (c *core) write(ctx context.Context, owner *cluster.Owner, q *wire.Request, key kv.Key, deadline time.Duration) wire.Reply {
	left := deadline - c.clock.Read().Boot
	if left <= 0 {
		return wire.ErrorReply(wire.Errorf(wire.Unavailable, "no time was left to ask %s, which holds the key: try again", owner.Node))
	}
	if !c.reaches(owner) {
		return wire.ErrorReply(unreached(owner))
	}
	out := *q
	out.UntilNS = until(owner, q, deadline)
	out.Options &^= wire.AckAll // which is asked for once it is done
	var a peer.Answer
	defer a.Release()
	if err := c.node.Do(ctx, owner.Process, left, &out, &a); err != nil {
		c.counts.peerErrors.Add(1)
		if errors.Is(err, rpc.ErrFull) {
			return wire.ErrorReply(wire.Errorf(wire.Busy, "too many requests to %s, which holds the key, are under way: try again (%v)", owner.Node, err))
		}
		if peer.NotExecuted(err) {
			return wire.ErrorReply(wire.Errorf(wire.Unavailable, "%s, which holds the key, cannot be reached: %v", owner.Node, err))
		}
		c.unknown(key)
		return wire.ErrorReply(wire.Errorf(wire.Timeout, "%s, which holds the key, did not answer in time; the outcome is unknown", owner.Node))
	}
	r := owned(&a.Reply)
	c.wrote(key, &r)
	return r
}

// wrote notes what a key's owner has answered to a write.
func (c *core) wrote(key kv.Key, r *wire.Reply) {
	switch {
	case r.Status == wire.Moved, r.Status == wire.Unavailable, r.Status == wire.Busy, r.Status == wire.BadRequest, r.Status == wire.TooLarge, r.Status == wire.NotStored:
	case r.Status == wire.Timeout:
		c.unknown(key)
	case r.Event != 0 && !strike.Out(strike.TouchEvent):
		c.outdated(key, kv.Version(r.Event))
	default:
		c.outdated(key, kv.Version(r.Version))
	}
}

// unknown notes a write that may have been executed.
func (c *core) unknown(key kv.Key) {
	if !strike.Out(strike.Unknown) {
		c.outdated(key, 0)
	}
}

// outdated notes that copies of a key from before a version are to be served
// no more; zero stands for now.
func (c *core) outdated(key kv.Key, v kv.Version) {
	if v == 0 {
		v = c.hlc.Next(c.clock.Read().Wall)
	}
	c.hlc.Observe(v)
	if strike.Out(strike.OwnWrites) {
		return
	}
	c.note(key.Hash, v)
	c.l1.Outdate(key.Hash, v)
}

// owned copies an answer out of its frame.
func owned(r *wire.Reply) wire.Reply {
	n := *r
	n.Value, n.Message, n.Token, n.Body, n.Owner = slices.Clone(r.Value), slices.Clone(r.Message), slices.Clone(r.Token), slices.Clone(r.Body), nil
	n.Vouched = false
	n.Items = nil
	for i := range r.Items {
		n.Items = append(n.Items, owned(&r.Items[i]))
	}
	return n
}

// read asks a key's owner, once for all who ask at the same time.
func (c *core) read(ctx context.Context, owner *cluster.Owner, q *wire.Request, key kv.Key, deadline time.Duration) wire.Reply {
	began := c.clock.Read().Boot
	for {
		now := c.clock.Read()
		if !q.Has(wire.Fresh) {
			if cp := c.copyOf(key, owner, now); cp != nil {
				return c.valueOf(q, cp, wire.SourceL1, owner.LeasedAt(), now)
			}
			if !owner.Answers(now.Boot, c.node.Bound()) {
				return wire.Reply{Status: wire.Miss, Why: wire.Degraded} // not worth the wait
			}
		}
		cl, lead := c.calls.join(c, owner, key, questionOf(q), now, deadline, nil)
		if lead {
			c.ask(ctx, owner, q.Namespace, []*call{cl}, q.Options&asked, deadline)
			return c.outcome(cl, q, began)
		}
		left := deadline - now.Boot
		t := time.NewTimer(max(left, 0))
		select {
		case <-cl.done:
			t.Stop()
			// The caller that asked first may have had less time than this one has.
			if cl.serves(began) || c.clock.Read().Boot >= deadline {
				return c.outcome(cl, q, began)
			}
		case <-t.C:
			return unanswered(q, owner)
		case <-ctx.Done():
			t.Stop()
			return unanswered(q, owner)
		}
	}
}

func unanswered(q *wire.Request, owner *cluster.Owner) wire.Reply {
	if q.Has(wire.Fresh) {
		return wire.ErrorReply(wire.Errorf(wire.Unavailable, "%s, which holds the key, did not answer in time", owner.Node))
	}
	return wire.Reply{Status: wire.Miss, Why: wire.Degraded}
}

// outcome is what a call brought for a read that began at a moment.
func (c *core) outcome(cl *call, q *wire.Request, began time.Duration) wire.Reply {
	switch {
	case !cl.serves(began):
		if errors.Is(cl.err, rpc.ErrNoRoom) {
			return wire.ErrorReply(wire.Errorf(wire.Busy, "%v", cl.err))
		}
		if cl.err != nil {
			c.counts.peerErrors.Add(1)
		}
		return unanswered(q, cl.owner)
	case cl.copy != nil:
		// It was alive when the read began; its copy may have ended since.
		return c.valueOf(q, cl.copy, wire.SourcePeer, 0, c.clock.Read())
	case cl.reply.Status == wire.Unavailable:
		return unanswered(q, cl.owner)
	}
	return cl.reply
}

// asked are the options of a read that its owner is told of.
const asked = wire.Fresh | wire.StaleOK | wire.NoLoad

// ask makes one request for the keys of some calls to their owner, and ends the
// calls.
func (c *core) ask(ctx context.Context, owner *cluster.Owner, ns []byte, list []*call, options wire.Options, deadline time.Duration) {
	q := &wire.Request{Op: wire.OpGet, Namespace: ns, Key: list[0].key.Bytes, Options: options | wire.Vouch}
	if len(list) > 1 {
		q.Op, q.Key = wire.OpMGet, nil
		for _, cl := range list {
			q.Keys = append(q.Keys, cl.key.Bytes)
		}
	}
	var a peer.Answer
	defer a.Release()
	err := errNoTime
	if left := deadline - c.clock.Read().Boot; left > 0 {
		err = c.node.Do(ctx, owner.Process, left, q, &a)
	}
	for i, cl := range list {
		r := &a.Reply
		if err == nil && len(list) > 1 && r.Status == wire.OK {
			r = &a.Items[i]
		}
		if cl.err = err; err == nil {
			c.take(cl, r)
		}
		c.ended(cl)
	}
}

// ended answers all who have asked for what a call has brought.
func (c *core) ended(cl *call) {
	var a rpc.Answers
	for _, p := range c.calls.end(cl) {
		p.Tell(&a, cl)
	}
	a.Write()
}

var errNoTime = errors.New("no time was left")
