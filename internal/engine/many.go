package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A request of many keys goes in rounds. A round answers here what it can. It asks the
// owners of the other keys, all at once and each with one request. Keys that have moved
// meanwhile go into the next round, as long as there is time.

// rounds runs round until no key is left or the time is over; then last answers each key
// that is left. round answers what it can of the keys in todo and returns the rest. n is
// the number of keys.
func (c *Engine) rounds(ctx context.Context, n int, b *namespaces.Pins, deadline time.Duration, round func(todo []int, now kv.Moment) []int, last func(i int)) {
	todo := make([]int, n)
	for i := range todo {
		todo[i] = i
	}
	for {
		changed := c.Node.Changed() // taken before the state that it tells of is read
		now := c.Clock.Read()
		c.Node.CheckPause(now.Boot)
		if todo = round(todo, now); len(todo) == 0 {
			return
		}
		b.Release()
		if !c.wait(ctx, changed, deadline) {
			for _, i := range todo {
				last(i)
			}
			return
		}
	}
}

// fetchesAtOnce bounds how many keys one request fetches, loads or writes through at a
// time.
const fetchesAtOnce = 16

// readMany answers MGET.
func (c *Engine) readMany(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	items := make([]wire.Reply, len(q.Keys))
	until, began := c.patience(q, deadline), c.Clock.Read().Boot
	one := func(i int) *wire.Request {
		return &wire.Request{Op: wire.OpGet, Namespace: q.Namespace, Key: q.Keys[i], Options: q.Options, App: q.App}
	}
	c.rounds(ctx, len(items), b, until, func(todo []int, now kv.Moment) (left []int) {
		type waiting struct {
			i    int
			cl   *Call
			lead bool
		}
		var all []waiting
		var late []int // keys that go the slow way, one by one
		leads := map[*cluster.Owner][]*Call{}
		for _, i := range todo {
			ns, err := b.Write(q.Namespace)
			if bad := CheckKey(q.Keys[i]); bad != nil {
				err = bad
			} else if err != nil && kv.ValidNamespace(string(q.Namespace)) {
				late = append(late, i) // no slot
				continue
			}
			if err != nil {
				items[i] = wire.ErrorReply(err)
				continue
			}
			key := ns.Key(q.Keys[i])
			p := key.Hash.Partition()
			if c.Node.OwnershipEpoch(p) != 0 {
				if items[i] = c.Execute(one(i), b, now, 0); items[i].Status == wire.Moved {
					late = append(late, i)
				}
				continue
			}
			owner := c.Node.View().Owner(p)
			switch {
			case owner == nil || owner.Process == c.Node.Self():
				left = append(left, i)
				continue
			case q.Has(wire.Fresh):
			default:
				if cp := c.CopyOf(key, owner, now); cp != nil {
					items[i] = c.valueOf(q, cp, wire.SourceL1, owner.LeasedAt(), now)
					continue
				}
				if !owner.Answers(now.Boot, c.Node.Bound()) {
					items[i] = wire.Reply{Status: wire.Miss, Why: wire.Degraded}
					continue
				}
			}
			cl, lead := c.Calls.Join(c, owner, key, QuestionOf(q), now, deadline, nil)
			if lead {
				leads[owner] = append(leads[owner], cl)
			}
			all = append(all, waiting{i, cl, lead})
		}
		b.Release()
		var wg sync.WaitGroup
		for owner, list := range leads {
			wg.Go(func() { c.ask(ctx, owner, q.Namespace, list, q.Options&Asked, deadline) })
		}
		group := errgroup.Group{}
		group.SetLimit(fetchesAtOnce)
		for _, i := range late {
			group.Go(func() error {
				b := namespaces.Pins{Table: c.Names, Member: b.Member}
				defer b.Release()
				items[i] = c.serveKey(ctx, one(i), &b, deadline)
				return nil
			})
		}
		wg.Wait()
		for _, w := range all {
			q, owner, key := one(w.i), w.cl.Owner, w.cl.Key
			switch {
			case !w.lead && !c.waitFor(ctx, w.cl, deadline):
				items[w.i] = unanswered(q, owner)
			case w.lead || w.cl.Serves(began):
				items[w.i] = c.Outcome(w.cl, q, began)
			default:
				group.Go(func() error {
					items[w.i] = c.read(ctx, owner, q, key, deadline)
					return nil
				})
			}
		}
		_ = group.Wait() // no function in it fails
		for _, w := range all {
			if items[w.i].Status == wire.Moved {
				left = append(left, w.i)
			}
		}
		return left
	}, func(i int) { items[i] = c.replyNoOwner(one(i)) })
	group := errgroup.Group{}
	group.SetLimit(fetchesAtOnce)
	for i := range items {
		if Degraded(&items[i]) && c.MayLoadWithoutOwner(q) {
			group.Go(func() error {
				if r, ok := c.loadWithoutOwner(ctx, one(i), deadline); ok {
					items[i] = r
				}
				return nil
			})
		}
	}
	_ = group.Wait() // no function in it fails
	total := 0
	for i := range items {
		if total > wire.MaxMGetAnswer {
			items[i] = wire.ErrorReply(wire.Errorf(wire.Busy, "the answer has become too long: ask again for this key"))
		}
		total += len(items[i].Value)
	}
	return wire.Reply{Items: items}
}

// waitFor waits until a call has ended, and reports whether it has in time.
func (c *Engine) waitFor(ctx context.Context, cl *Call, deadline time.Duration) bool {
	t := time.NewTimer(max(deadline-c.Clock.Read().Boot, 0))
	defer t.Stop()
	select {
	case <-cl.Done:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// deleteMany answers DELETE.
func (c *Engine) deleteMany(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	items := make([]wire.Reply, len(q.Keys))
	ns := c.through(q)
	c.rounds(ctx, len(items), b, c.patience(q, deadline), func(todo []int, now kv.Moment) (left []int) {
		groups := map[*cluster.Owner][]int{}
		var slow []int // keys that are deleted at the origin first
		for _, i := range todo {
			if ns != nil && c.Node.OwnershipEpoch(c.Hash(q.Namespace, q.Keys[i]).Partition()) != 0 {
				slow = append(slow, i)
				continue
			}
			if items[i] = c.DeleteKey(q, q.Keys[i], b, now); items[i].Status != wire.Moved {
				continue
			}
			owner := c.Node.View().Owner(c.Hash(q.Namespace, q.Keys[i]).Partition())
			if owner == nil || owner.Process == c.Node.Self() {
				left = append(left, i)
			} else {
				groups[owner] = append(groups[owner], i)
			}
		}
		b.Release()
		var wg sync.WaitGroup
		for owner, list := range groups {
			wg.Go(func() { c.forwardDelete(ctx, owner, q, list, items, deadline) })
		}
		group := errgroup.Group{}
		group.SetLimit(fetchesAtOnce)
		for _, i := range slow {
			group.Go(func() error {
				items[i], _ = c.writeThrough(ctx, ns, q, q.Keys[i], deadline)
				return nil
			})
		}
		wg.Wait()
		_ = group.Wait() // no function in it fails
		for _, i := range slow {
			if items[i].Status == wire.Moved {
				left = append(left, i)
			}
		}
		for _, list := range groups {
			for _, i := range list {
				if items[i].Status == wire.Moved {
					left = append(left, i)
				}
			}
		}
		return left
	}, func(i int) { items[i] = c.replyNoOwner(q) })
	return wire.Reply{Items: items}
}

// forwardDelete passes the deletion of some keys on to their owner.
func (c *Engine) forwardDelete(ctx context.Context, owner *cluster.Owner, q *wire.Request, list []int, items []wire.Reply, deadline time.Duration) {
	out := &wire.Request{Op: wire.OpDelete, Namespace: q.Namespace, Options: q.Options &^ wire.AckAll, ReplicaLagMS: q.ReplicaLagMS, UntilNS: until(owner, q, deadline)}
	for _, i := range list {
		out.Keys = append(out.Keys, q.Keys[i])
	}
	fail := func(e *wire.Error) {
		for _, i := range list {
			items[i] = wire.ErrorReply(e)
		}
	}
	left := deadline - c.Clock.Read().Boot
	if left <= 0 {
		fail(wire.Errorf(wire.Unavailable, "no time was left to ask %s, which owns the key: try again", owner.Node))
		return
	}
	if !c.reaches(owner) {
		fail(unreached(owner))
		return
	}
	var a peer.Answer
	defer a.Release()
	switch err := c.Node.Do(ctx, owner.Process, left, out, &a); {
	case errors.Is(err, rpc.ErrFull):
		fail(wire.Errorf(wire.Busy, "too many requests to %s, which owns the key, are under way: try again (%v)", owner.Node, err))
	case err != nil && peer.NotExecuted(err):
		c.Counts.PeerErrors.Add(1)
		fail(wire.Errorf(wire.Unavailable, "%s, which owns the key, cannot be reached: %v", owner.Node, err))
	case err != nil:
		c.Counts.PeerErrors.Add(1)
		for _, i := range list { // they may have been executed
			c.unknown(kv.Key{Hash: c.Hash(q.Namespace, q.Keys[i])})
		}
		fail(wire.Errorf(wire.Timeout, "%s, which owns the key, did not answer in time; the outcome is unknown", owner.Node))
	case a.Status != wire.OK:
		fail(&wire.Error{Status: a.Status, Message: string(a.Message)})
	default:
		for n, i := range list {
			items[i] = owned(&a.Items[n])
			c.wrote(kv.Key{Hash: c.Hash(q.Namespace, q.Keys[i])}, &items[i])
		}
	}
}

// Hash returns the hash of a key, whether its namespace has a slot or not.
func (c *Engine) Hash(namespace, key []byte) kv.Hash {
	return kv.HashKey(kv.NamespaceSeed(c.Config.Seed, string(namespace)), key)
}
