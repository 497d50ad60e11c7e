package engine

import (
	"context"
	"sync"
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

// fetchesAtOnce bounds how many keys one request fetches, loads or writes through at a
// time.
const fetchesAtOnce = 16

// eachAtOnce calls f for n keys, some at a time: each may wait for an origin, or for its last owner.
func (e *Engine) eachAtOnce(n int, m *quota.Member, f func(i int, pins *namespaces.Pins)) {
	group := errgroup.Group{}
	group.SetLimit(fetchesAtOnce)
	for i := range n {
		group.Go(func() error {
			pins := namespaces.Pins{Table: e.Names, Member: m}
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
	items := make([]wire.Reply, len(q.Keys))
	ns := e.writeThroughOf(q)
	e.rounds(ctx, len(items), pins, e.waitLimit(q, deadline), func(todo []int, now kv.Moment) (left []int) {
		groups := map[*cluster.Owner][]int{}
		var slow []int // keys that are deleted at the origin first, or whose entries are on their way here
		for _, i := range todo {
			partition := e.Names.Hash(q.Namespace, q.Keys[i]).Partition()
			owned := e.Node.OwnershipEpoch(partition) != 0
			if ns == nil || !owned {
				if items[i] = e.Local.Delete(q, q.Keys[i], pins, now, 0); items[i].Status != wire.Moved {
					continue
				}
			}
			owner := e.Node.View().Owner(partition)
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
		e.eachAtOnce(len(slow), pins.Member, func(n int, pins *namespaces.Pins) {
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
