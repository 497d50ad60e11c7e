package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A request of many keys goes in rounds. A round answers here what it can. It asks the
// owners of the other keys, all at once and each with one request. Keys that have moved
// meanwhile go into the next round, as long as there is time.

// rounds runs round until no key is left or the time is over; then last answers each key
// that is left. round answers what it can of the keys in todo and returns the rest. n is
// the number of keys.
func (e *Engine) rounds(
	ctx context.Context, n int, pins *namespaces.Pins, limit *waitLimit,
	round func(todo []int, now kv.Moment) []int, last func(i int),
) {
	todo := make([]int, n)
	for i := range todo {
		todo[i] = i
	}
	for again := minRetryPause; ; again = min(2*again, maxRetryPause) {
		changed := e.Node.Changed() // taken before the state that it tells of is read
		now := e.Clock.Read()
		e.Node.CheckPause(now.Boot)
		if todo = round(todo, now); len(todo) == 0 {
			return
		}
		pins.Release()
		if !e.awaitOwner(ctx, changed, limit, again) {
			for _, i := range todo {
				last(i)
			}
			return
		}
	}
}

// itemArrays has arrays of items of earlier answers, all zero. Without it those of a flood of DELETEs are most of what
// the garbage collector finds.
var itemArrays sync.Pool

// newItems returns n items, all zero.
func newItems(n int) []wire.Reply {
	if a, _ := itemArrays.Get().(*[]wire.Reply); a != nil && cap(*a) >= n {
		return (*a)[:n]
	}
	return make([]wire.Reply, n)
}

// FreeItems takes the items of an answer of Serve back, once it has been encoded.
func FreeItems(r *wire.Reply) {
	if len(r.Items) == 0 {
		return
	}
	clear(r.Items)
	items := r.Items[:0]
	itemArrays.Put(&items)
	r.Items = nil
}

// fetchesAtOnce bounds how many keys one request fetches, loads or writes through at a
// time.
const fetchesAtOnce = 16

// eachAtOnce calls f for n keys, some at a time: each may wait for an origin, or for its last owner.
func (e *Engine) eachAtOnce(n int, by *quota.Account, f func(i int, pins *namespaces.Pins)) {
	group := errgroup.Group{}
	group.SetLimit(fetchesAtOnce)
	for i := range n {
		group.Go(func() error {
			pins := namespaces.Pins{Table: e.Namespaces, By: by}
			defer pins.Release()
			f(i, &pins)
			return nil
		})
	}
	_ = group.Wait() // no function in it fails
}

// deleteMany answers DELETE.
func (e *Engine) deleteMany(
	ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	items := newItems(len(q.Keys))
	ns, named := e.writeThroughOf(q), kv.ValidNamespace(string(q.Namespace))
	e.rounds(ctx, len(items), pins, e.waitLimit(q, deadline), func(todo []int, now kv.Moment) (left []int) {
		groups := map[*cluster.Host][]int{}
		var slow []int // keys that are deleted at the origin first, or whose entries are on their way here
		for _, i := range todo {
			partition := e.Namespaces.Hash(q.Namespace, q.Keys[i]).Partition()
			owned := e.Node.OwnershipEpoch(partition) != 0
			if items[i] = Moved(); ns == nil && owned || !named || !kv.ValidKey(q.Keys[i]) {
				if items[i] = e.Local.Delete(q, q.Keys[i], pins, now, 0); items[i].Status != wire.Moved {
					continue
				}
			}
			owner := e.Node.View().AssignedOwner(partition)
			switch {
			case owned:
				slow = append(slow, i)
			case owner != nil && owner.Process != e.Node.Self():
				groups[owner] = append(groups[owner], i)
			}
		}
		pins.Release()
		var wg sync.WaitGroup
		for owner, list := range groups {
			wg.Go(func() { e.Remote.delete(ctx, owner, q, list, items, deadline) })
		}
		e.eachAtOnce(len(slow), pins.By, func(n int, pins *namespaces.Pins) {
			i := slow[n]
			items[i], _ = e.local(ctx, q, q.Keys[i], pins, now, deadline)
		})
		wg.Wait()
		for _, i := range todo {
			if items[i].Status == wire.Moved {
				left = append(left, i)
			}
		}
		return left
	}, func(i int) { items[i] = e.replyNoOwner(q) })
	return wire.Reply{Items: items}
}

// readMany answers MGET.
func (e *Engine) readMany(
	ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	r := mget{
		e: e, ctx: ctx, q: q, pins: pins, began: e.Clock.Read().Boot, items: newItems(len(q.Keys)),
		heard: make([]bool, len(q.Keys)),
		wait:  patience{e.patience(e.Namespaces.Lookup(q.Namespace), q, deadline), deadline},
	}
	noOwner := func(i int) { r.items[i] = e.replyNoOwner(r.one(i)) }
	e.rounds(ctx, len(r.items), pins, e.waitLimit(q, deadline), r.round, noOwner)
	r.loadUnsaid()
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
	e     *Engine
	ctx   context.Context
	q     *wire.Request
	pins  *namespaces.Pins
	wait  patience
	began time.Duration // on the boot clock
	items []wire.Reply
	heard []bool       // the owner of the key has answered, but must be asked anew
	has   atomic.Int64 // bytes of the values that no other host has sent
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
	slow  []int               // keys that go the slow way, one by one
	left  []int               // keys for the next round
	calls []mgetCall          // keys that their owners are asked for
	leads map[mgetAsk][]*Call // those of the calls that this round makes
}

type mgetAsk struct {
	owner *cluster.Host
	wait  patience
}

type mgetCall struct {
	i    int
	q    *wire.Request
	call *Call
	lead bool
	wait patience
}

// one returns the GET of one key.
func (r *mget) one(i int) *wire.Request {
	q := r.q
	return &wire.Request{
		Op: wire.OpGet, Namespace: q.Namespace, Key: q.Keys[i], Options: q.Options, App: q.App, Region: q.Region,
		TimeoutMS: q.TimeoutMS, By: q.By,
	}
}

// round answers what it can of the keys in todo and returns the rest.
func (r *mget) round(todo []int, now kv.Moment) (left []int) {
	e := r.e
	of := mgetRound{leads: map[mgetAsk][]*Call{}}
	for _, i := range todo {
		r.beginKey(&of, i, now)
	}
	r.pins.Release()
	var asked sync.WaitGroup
	for to, list := range of.leads {
		asked.Go(func() { e.Remote.askOwner(r.ctx, r.q.Namespace, list, to.wait) })
	}
	e.eachAtOnce(len(of.slow), r.pins.By, func(n int, pins *namespaces.Pins) {
		i := of.slow[n]
		if r.full(i) {
			r.items[i] = wire.ErrorReply(tooLong)
			return
		}
		r.items[i] = e.serve(r.ctx, r.one(i), pins, r.wait.deadline)
		r.has.Add(int64(len(r.items[i].Value)))
		r.hold(i)
	})
	asked.Wait()
	for _, c := range of.calls {
		switch {
		case !c.lead && !e.Remote.waitFor(r.ctx, c.call, c.wait):
			r.items[c.i] = unanswered(c.q, c.call.owner)
		case !c.lead && (!c.call.Serves(r.began) || c.call.ofOne()): // its maker may have had less time: ask anew
			of.left, r.heard[c.i] = append(of.left, c.i), c.call.err == nil
		default:
			if r.items[c.i] = e.Remote.outcome(c.call, c.q, r.began); r.items[c.i].Status == wire.Moved {
				of.left = append(of.left, c.i)
			}
			r.hold(c.i)
		}
	}
	return of.left
}

// beginKey answers a key in place, or finds a way to its answer.
func (r *mget) beginKey(of *mgetRound, i int, now kv.Moment) {
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
	owner := e.Node.View().AssignedOwner(p)
	if owner == nil || owner.Process == e.Node.Self() {
		of.left = append(of.left, i)
		return
	}
	wait := r.wait
	if r.heard[i] {
		wait.silent = wait.deadline
	}
	call, lead, answer := e.Remote.join(owner, q, ns, key, now, wait)
	if call == nil {
		r.items[i] = answer
		return
	}
	if lead {
		to := mgetAsk{owner, wait}
		of.leads[to] = append(of.leads[to], call)
	}
	of.calls = append(of.calls, mgetCall{i, q, call, lead, wait})
}

// loadUnsaid loads the keys that no owner has answered for, where that is possible.
func (r *mget) loadUnsaid() {
	var left []int
	for i := range r.items {
		if r.e.Loads.unsaid(r.q, &r.items[i]) {
			left = append(left, i)
		}
	}
	r.e.eachAtOnce(len(left), nil, func(n int, _ *namespaces.Pins) {
		i := left[n]
		r.items[i] = r.e.Loads.loadUnsaid(r.ctx, r.one(i), &r.items[i], r.wait.deadline)
	})
}
