package engine

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Every request is first tried on this host (Execute, Value). What this host owns, and
// copies of what other hosts own, are answered in place. If that is not possible, the
// answer is MOVED, and the request goes the slow way, within its deadline. A GET of
// another host's key needs no goroutine (see Pending in package session); every other
// request has a goroutine of its own:
//
//	owned here, entries on their way here  → fetch the entry first
//	owned here, missing, has an origin     → load it, once for all readers
//	owned here, missing, a LEASE           → a token, or wait for the FILL
//	owned here, write-through              → the origin first
//	assigned to this host, not owned yet   → wait until it is owned
//	another host's                         → ask the owner, once for all readers
//	without an assigned owner              → wait for a ring
//
// A request of another sidecar goes no further than this host. If it cannot be answered
// here, the answer is MOVED (see peers.go), so that no request goes in circles.

// Moved returns the reply that this host does not answer for a key now.
func Moved() wire.Reply { return wire.Reply{Status: wire.Moved, Message: movedMessage} }

var movedMessage = []byte("this host does not own the key's partition")

// AnswerBefore returns how long before a request's deadline the slow way gives up: the
// answer must arrive before the app gives up.
func AnswerBefore(timeout time.Duration) time.Duration { return min(timeout/10, 20*time.Millisecond) }

// DeadlineOf returns when the slow way of a request gives up, on the boot clock.
func (c *Engine) DeadlineOf(q *wire.Request, now kv.Moment) time.Duration {
	t := c.Timeout(q)
	return now.Boot + t - AnswerBefore(t)
}

// readPatience is how long a read waits for an owner: a slow cache is worse than a miss.
// Fresh reads and writes wait until their deadline.
const readPatience = 250 * time.Millisecond

// patience returns when a request gives up waiting for an owner, on the boot clock. The
// request does not wait if there can be no owner, since too few voters are reached.
func (c *Engine) patience(q *wire.Request, deadline time.Duration) time.Duration {
	now := c.Clock.Read()
	if !c.Node.Quorum() {
		return now.Boot
	}
	if ReadOp(q.Op) && !q.Has(wire.Fresh) {
		return min(deadline, now.Boot+readPatience)
	}
	return deadline
}

// ServeNow answers a request wherever its keys are. deadline is on the boot clock; b is
// released while ServeNow waits. When ServeNow returns, a write with ack=all has been
// executed, but still has to be acknowledged by all hosts (see Acked).
func (c *Engine) ServeNow(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	switch q.Op {
	case wire.OpMGet:
		return c.readMany(ctx, q, b, deadline)
	case wire.OpDelete:
		return c.deleteMany(ctx, q, b, deadline)
	case wire.OpFlush:
		return c.FlushCluster(ctx, q, b, deadline)
	case wire.OpRing:
		return c.ringOfOwner(ctx, q)
	case wire.OpForget:
		return c.ForgetEverywhere(ctx, q)
	}
	r := c.serveKey(ctx, q, b, deadline)
	if Degraded(&r) {
		if loaded, ok := c.loadWithoutOwner(ctx, q, deadline); ok {
			return loaded
		}
	}
	return r
}

// serveKey answers a request of one key.
func (c *Engine) serveKey(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	until := c.patience(q, deadline)
	for {
		changed := c.Node.Changed() // taken before the state that it tells of is read
		now := c.Clock.Read()
		c.Node.CheckPause(now.Boot)
		ns, err := b.Write(q.Namespace)
		if bad := CheckKey(q.Key); bad != nil {
			err = bad
		} else if err != nil && q.Op == wire.OpGet && kv.ValidNamespace(string(q.Namespace)) {
			return c.readSlotless(ctx, q, deadline)
		}
		if err != nil {
			return wire.ErrorReply(err)
		}
		key := ns.Key(q.Key)
		partition := key.Hash.Partition()
		if c.Node.OwnershipEpoch(partition) != 0 {
			if r, done := c.serveLocal(ctx, q, q.Key, b, now, deadline); done {
				return r
			}
		}
		if owner := c.Node.View().Owner(partition); owner != nil && owner.Process != c.Node.Self() {
			b.Release()
			r := c.forward(ctx, owner, q, key, deadline)
			if r.Status != wire.Moved {
				return r
			}
			if c.Node.View().Owner(partition) != owner {
				continue // the view has changed meanwhile
			}
		}
		b.Release()
		if !c.wait(ctx, changed, until) {
			return c.replyNoOwner(q)
		}
	}
}

// serveLocal answers from what this host owns. It first fetches an entry that is on its
// way here, and loads a missing value. It returns false if the request must go elsewhere.
func (c *Engine) serveLocal(ctx context.Context, q *wire.Request, k []byte, b *namespaces.Pins, now kv.Moment, deadline time.Duration) (wire.Reply, bool) {
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
	holding := c.Node.OwnershipEpoch(partition) // read before Incoming
	src := c.Handoff.Incoming[partition].Load()
	waits := ReadOp(q.Op) && ns.Waits(q)
	if holding == 0 {
		return r, false // not owned any more
	}
	if src != nil {
		b.Release()
		if err := c.Handoff.Fetch(ctx, src, string(q.Namespace), key, deadline-now.Boot); err != nil && !ReadOp(q.Op) {
			return wire.ErrorReply(wire.Errorf(wire.Unavailable, "%s, which owned the key until now, cannot be asked for it: %v", src.From.Node, err)), true
		}
	}
	if src != nil || !waits { // else all entries on their way have come
		r = c.keyLocally(q, k, b, c.Clock.Read(), holding)
		if r.Status != wire.Miss || r.Why == wire.Absent || !waits {
			return r, r.Status != wire.Moved
		}
	}
	for {
		b.Release() // a namespace that may lose its slot has tokens only, and they name the key
		if ns.Origin == nil {
			r = c.claim(ctx, ns, key, q, deadline)
		} else {
			r = c.Load(ctx, ns, key, q, deadline)
		}
		if r.Status != wire.Moved {
			return r, true
		}
		// Another request has stored the value.
		now := c.Clock.Read()
		if r = c.keyLocally(q, k, b, now, holding); r.Status != wire.Miss || r.Why == wire.Absent || now.Boot >= deadline {
			return r, r.Status != wire.Moved
		}
	}
}

// keyLocally is Execute for one key, also for the deletion of one key.
func (c *Engine) keyLocally(q *wire.Request, k []byte, b *namespaces.Pins, now kv.Moment, fetched uint32) wire.Reply {
	if q.Op == wire.OpDelete {
		return c.DeleteKey(q, k, b, now)
	}
	return c.Execute(q, b, now, fetched)
}

// forward passes a request on to a key's owner.
func (c *Engine) forward(ctx context.Context, owner *cluster.Owner, q *wire.Request, key kv.Key, deadline time.Duration) wire.Reply {
	switch q.Op {
	case wire.OpGet:
		return c.read(ctx, owner, q, key, deadline)
	case wire.OpLease:
		return c.lease(ctx, owner, q, key, deadline)
	}
	return c.write(ctx, owner, q, key, deadline)
}

// replyNoOwner answers a request for which no owner was found in time. The request was
// not executed.
func (c *Engine) replyNoOwner(q *wire.Request) wire.Reply {
	if ReadOp(q.Op) && !q.Has(wire.Fresh) {
		return wire.Reply{Status: wire.Miss, Why: wire.Degraded}
	}
	if why := c.Node.Outcast(); why != "" {
		return wire.ErrorReply(wire.Errorf(wire.Unavailable, "this host is in no cluster: %s", why))
	}
	return wire.ErrorReply(wire.Errorf(wire.Unavailable, "no host owns the key's partition at this moment: try again"))
}

// reaches reports whether it makes sense to pass a write on to an owner. An owner that
// has been silent for the bound has ended its ownerships if it cannot reach a majority of
// the voters either. A write that is sent to it would have an unknown outcome for
// nothing.
func (c *Engine) reaches(owner *cluster.Owner) bool {
	return c.Node.Quorum() || owner.Answers(c.Clock.Read().Boot, c.Node.Bound())
}

func unreached(owner *cluster.Owner) *wire.Error {
	return wire.Errorf(wire.Unavailable, "neither %s, which owns the key, nor a majority of the voters answers: try again", owner.Node)
}

// ReadOp reports whether an operation reads: GET, MGET or LEASE.
func ReadOp(op wire.Op) bool { return op == wire.OpGet || op == wire.OpMGet || op == wire.OpLease }

// wait waits for a change and reports whether there is time left. It does not wait if
// this host is in no cluster, since nothing then changes until an operator acts.
func (c *Engine) wait(ctx context.Context, changed <-chan struct{}, deadline time.Duration) bool {
	left := deadline - c.Clock.Read().Boot
	if left <= 0 || c.Node.Outcast() != "" {
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

// write passes a write on to a key's owner. It notes the change before the app hears of
// it, so that no later read through this host returns an older value.
func (c *Engine) write(ctx context.Context, owner *cluster.Owner, q *wire.Request, key kv.Key, deadline time.Duration) wire.Reply {
	left := deadline - c.Clock.Read().Boot
	if left <= 0 {
		return wire.ErrorReply(wire.Errorf(wire.Unavailable, "no time was left to ask %s, which owns the key: try again", owner.Node))
	}
	if !c.reaches(owner) {
		return wire.ErrorReply(unreached(owner))
	}
	out := *q
	out.UntilNS = until(owner, q, deadline)
	out.Options &^= wire.AckAll // asked for once the write is executed
	var a peer.Answer
	defer a.Release()
	if err := c.Node.Do(ctx, owner.Process, left, &out, &a); err != nil {
		c.Counts.PeerErrors.Add(1)
		if errors.Is(err, rpc.ErrFull) {
			return wire.ErrorReply(wire.Errorf(wire.Busy, "too many requests to %s, which owns the key, are under way: try again (%v)", owner.Node, err))
		}
		if peer.NotExecuted(err) {
			return wire.ErrorReply(wire.Errorf(wire.Unavailable, "%s, which owns the key, cannot be reached: %v", owner.Node, err))
		}
		c.unknown(key)
		return wire.ErrorReply(wire.Errorf(wire.Timeout, "%s, which owns the key, did not answer in time; the outcome is unknown", owner.Node))
	}
	r := owned(&a.Reply)
	c.wrote(key, &r)
	return r
}

// wrote notes the owner's answer to a write.
func (c *Engine) wrote(key kv.Key, r *wire.Reply) {
	switch {
	case r.Status == wire.Moved, r.Status == wire.Unavailable, r.Status == wire.Busy, r.Status == wire.BadRequest, r.Status == wire.TooLarge, r.Status == wire.NotStored:
	case r.Status == wire.Timeout:
		c.unknown(key)
	case r.Event != 0 && !failpoint.Out(failpoint.TouchEvent):
		c.Outdated(key, kv.Version(r.Event))
	default:
		c.Outdated(key, kv.Version(r.Version))
	}
}

// unknown notes a write that may have been executed.
func (c *Engine) unknown(key kv.Key) {
	if !failpoint.Out(failpoint.Unknown) {
		c.Outdated(key, 0)
	}
}

// Outdated notes that copies of a key from before version v must not be served any more;
// zero stands for now.
func (c *Engine) Outdated(key kv.Key, v kv.Version) {
	if v == 0 {
		v = c.HLC.Next(c.Clock.Read().Wall)
	}
	c.HLC.Observe(v)
	if failpoint.Out(failpoint.OwnWrites) {
		return
	}
	c.Note(key.Hash, v)
	c.L1.Outdate(key.Hash, v)
}

// owned copies a reply out of its frame, without its attestation.
func owned(r *wire.Reply) wire.Reply {
	n := *r
	n.Value, n.Message, n.Token, n.Body, n.Owner = slices.Clone(r.Value), slices.Clone(r.Message), slices.Clone(r.Token), slices.Clone(r.Body), nil
	n.Attested = false
	n.Items = nil
	for i := range r.Items {
		n.Items = append(n.Items, owned(&r.Items[i]))
	}
	return n
}

// read asks a key's owner, once for all readers at the same time.
func (c *Engine) read(ctx context.Context, owner *cluster.Owner, q *wire.Request, key kv.Key, deadline time.Duration) wire.Reply {
	began := c.Clock.Read().Boot
	for {
		now := c.Clock.Read()
		if !q.Has(wire.Fresh) {
			if cp := c.CopyOf(key, owner, now); cp != nil {
				return c.valueOf(q, cp, wire.SourceL1, owner.LeasedAt(), now)
			}
			if !owner.Answers(now.Boot, c.Node.Bound()) {
				return wire.Reply{Status: wire.Miss, Why: wire.Degraded} // not worth the wait
			}
		}
		cl, lead := c.Calls.Join(c, owner, key, QuestionOf(q), now, deadline, nil)
		if lead {
			c.ask(ctx, owner, q.Namespace, []*Call{cl}, q.Options&Asked, deadline)
			return c.Outcome(cl, q, began)
		}
		left := deadline - now.Boot
		t := time.NewTimer(max(left, 0))
		select {
		case <-cl.Done:
			t.Stop()
			// The caller that made the call may have had less time than this one.
			if cl.Serves(began) || c.Clock.Read().Boot >= deadline {
				return c.Outcome(cl, q, began)
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
		return wire.ErrorReply(wire.Errorf(wire.Unavailable, "%s, which owns the key, did not answer in time", owner.Node))
	}
	return wire.Reply{Status: wire.Miss, Why: wire.Degraded}
}

// Outcome returns the result of a call for a read that began at the given moment.
func (c *Engine) Outcome(cl *Call, q *wire.Request, began time.Duration) wire.Reply {
	switch {
	case !cl.Serves(began):
		if errors.Is(cl.Err, rpc.ErrNoRoom) {
			return wire.ErrorReply(wire.Errorf(wire.Busy, "%v", cl.Err))
		}
		if cl.Err != nil {
			c.Counts.PeerErrors.Add(1)
		}
		return unanswered(q, cl.Owner)
	case cl.copy != nil:
		// The value was alive when the read began; the copy may have ended since.
		return c.valueOf(q, cl.copy, wire.SourcePeer, 0, c.Clock.Read())
	case cl.reply.Status == wire.Unavailable:
		return unanswered(q, cl.Owner)
	}
	return cl.reply
}

// Asked are the options of a read that its owner is told of.
const Asked = wire.Fresh | wire.StaleOK | wire.NoLoad

// ask makes one request for the keys of some calls to their owner, and ends the calls.
func (c *Engine) ask(ctx context.Context, owner *cluster.Owner, ns []byte, list []*Call, options wire.Options, deadline time.Duration) {
	q := &wire.Request{Op: wire.OpGet, Namespace: ns, Key: list[0].Key.Bytes, Options: options | wire.Attest}
	if len(list) > 1 {
		q.Op, q.Key = wire.OpMGet, nil
		for _, cl := range list {
			q.Keys = append(q.Keys, cl.Key.Bytes)
		}
	}
	var a peer.Answer
	defer a.Release()
	err := errNoTime
	if left := deadline - c.Clock.Read().Boot; left > 0 {
		err = c.Node.Do(ctx, owner.Process, left, q, &a)
	}
	for i, cl := range list {
		r := &a.Reply
		if err == nil && len(list) > 1 && r.Status == wire.OK {
			r = &a.Items[i]
		}
		if cl.Err = err; err == nil {
			c.Take(cl, r)
		}
		c.Ended(cl)
	}
}

// Ended ends a call and answers all reads that have joined it.
func (c *Engine) Ended(cl *Call) {
	var a rpc.Answers
	for _, p := range c.Calls.End(cl) {
		p.Tell(&a, cl)
	}
	a.Write()
}

var errNoTime = errors.New("no time was left")
