package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// readMany answers MGET.
func (e *Engine) readMany(
	ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	r := mget{
		e: e, ctx: ctx, q: q, pins: pins, deadline: deadline, began: e.Clock.Read().Boot,
		items: make([]wire.Reply, len(q.Keys)),
	}
	noOwner := func(i int) { r.items[i] = e.replyNoOwner(r.one(i)) }
	e.rounds(ctx, len(r.items), pins, e.waitLimit(q, deadline), r.round, noOwner)
	r.loadWithoutOwners()
	total := 0
	for i := range r.items {
		if total > wire.MaxMGetAnswer {
			r.items[i] = wire.ErrorReply(tooLong)
		}
		total += len(r.items[i].Value)
	}
	return wire.Reply{Items: r.items}
}

var tooLong = wire.Errorf(wire.Busy, "the answer has become too long: ask again for this key")

// mget is an MGET under way.
type mget struct {
	e        *Engine
	ctx      context.Context
	q        *wire.Request
	pins     *namespaces.Pins
	deadline time.Duration // deadline and began are on the boot clock
	began    time.Duration
	items    []wire.Reply
	has      atomic.Int64 // bytes of the values that no other host has sent
}

// full says whether the answer has become too long for further values of this host. The first
// key is always answered.
func (r *mget) full(i int) bool { return i > 0 && r.has.Load() > wire.MaxMGetAnswer }

// hold charges a value that was loaded or that another host has sent, since it waits for those
// of the other keys. If there is no memory, the answer about its key is BUSY.
func (r *mget) hold(i int) {
	if err := quota.HeldOf(r.ctx).Take(len(r.items[i].Value)); err != nil {
		r.items[i] = failed(wire.Busy, "%v", err)
	}
}

// mgetRound is what one round cannot answer at once.
type mgetRound struct {
	slow  []int                      // keys that go the slow way, one by one
	left  []int                      // keys for the next round
	calls []mgetCall                 // keys that their owners are asked for
	leads map[*cluster.Owner][]*Call // those of the calls that this round makes
}

type mgetCall struct {
	i    int
	q    *wire.Request
	call *Call
	lead bool
}

// one returns the GET of one key.
func (r *mget) one(i int) *wire.Request {
	q := r.q
	return &wire.Request{
		Op: wire.OpGet, Namespace: q.Namespace, Key: q.Keys[i], Options: q.Options, App: q.App, Region: q.Region,
	}
}

// round answers what it can of the keys in todo and returns the rest.
func (r *mget) round(todo []int, now kv.Moment) (left []int) {
	e := r.e
	of := mgetRound{leads: map[*cluster.Owner][]*Call{}}
	for _, i := range todo {
		r.begin(&of, i, now)
	}
	r.pins.Release()
	var asked sync.WaitGroup
	for _, list := range of.leads {
		asked.Go(func() { e.Remote.ask(r.ctx, r.q.Namespace, list, r.deadline) })
	}
	e.eachAtOnce(len(of.slow), r.pins.Member, func(n int, pins *namespaces.Pins) {
		i := of.slow[n]
		if r.full(i) {
			r.items[i] = wire.ErrorReply(tooLong)
			return
		}
		r.items[i] = e.serve(r.ctx, r.one(i), pins, r.deadline)
		r.has.Add(int64(len(r.items[i].Value)))
		r.hold(i)
	})
	asked.Wait()
	for _, c := range of.calls {
		switch {
		case !c.lead && !e.Remote.waitFor(r.ctx, c.call, r.deadline):
			r.items[c.i] = unanswered(c.q, c.call.owner)
		case !c.lead && !c.call.Serves(r.began): // its maker may have had less time: ask anew
			of.left = append(of.left, c.i)
		default:
			if r.items[c.i] = e.Remote.outcome(c.call, c.q, r.began); r.items[c.i].Status == wire.Moved {
				of.left = append(of.left, c.i)
			}
			r.hold(c.i)
		}
	}
	return of.left
}

// begin answers a key in place, or finds a way to its answer.
func (r *mget) begin(of *mgetRound, i int, now kv.Moment) {
	e, q := r.e, r.one(i)
	ns, key, err := e.named(q, q.Key, r.pins)
	if err != nil {
		r.items[i] = wire.ErrorReply(err)
		return
	}
	p := key.Hash.Partition()
	if e.Node.OwnershipEpoch(p) != 0 {
		if r.full(i) {
			r.items[i] = wire.ErrorReply(tooLong)
			return
		}
		if r.items[i] = e.inPlace(r.ctx, q, q.Key, r.pins, now, 0); r.items[i].Status == wire.Moved {
			of.slow = append(of.slow, i)
		}
		r.has.Add(int64(len(r.items[i].Value)))
		return
	}
	owner := e.Node.View().Owner(p)
	if owner == nil || owner.Process == e.Node.Self() {
		of.left = append(of.left, i)
		return
	}
	call, lead, answer := e.Remote.join(owner, q, ns, key, now, r.deadline)
	if call == nil {
		r.items[i] = answer
		return
	}
	if lead {
		of.leads[owner] = append(of.leads[owner], call)
	}
	of.calls = append(of.calls, mgetCall{i, q, call, lead})
}

// loadWithoutOwners loads the keys for which no owner was found, where that is possible.
func (r *mget) loadWithoutOwners() {
	var left []int
	for i := range r.items {
		if Degraded(&r.items[i]) && r.e.Loads.mayWithoutOwner(r.q) {
			left = append(left, i)
		}
	}
	r.e.eachAtOnce(len(left), nil, func(n int, _ *namespaces.Pins) {
		i := left[n]
		if loaded, ok := r.e.Loads.withoutOwner(r.ctx, r.one(i), r.deadline); ok {
			r.items[i] = loaded
		}
	})
}
