package engine

import (
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A write with ack=all is answered once no host can serve what was before it:
// every process that may have a lease on the holder has applied the holder's log
// up to the write, or its lease has lapsed.
//
// It goes in two steps. The write is done like any other; from then on whatever is
// behind it on its connection goes on, and sees it. Then its holder is asked to wait
// (APPLIED), which just after a holding has begun takes as long as leases on the
// holder before it may live.

// WantsAll says whether a request is such a write.
func (c *Engine) WantsAll(q *wire.Request) bool { return q.Has(wire.AckAll) && c.Log != nil }

// Acked waits until everybody has what a write has changed, which is done and
// answered with r. The answers of those of its keys that not all have in time become
// errors.
func (c *Engine) Acked(ctx context.Context, q *wire.Request, r wire.Reply, deadline time.Duration) wire.Reply {
	answers, keys := []wire.Reply{r}, [][]byte{q.Key}
	if q.Op == wire.OpDelete {
		answers, keys = r.Items, q.Keys
	}
	type group struct {
		partitions []uint16
		of         []int
		all        []bool
	}
	groups := map[*cluster.Owner]*group{} // this host's under nil
	for i := range answers {
		if s := answers[i].Status; s != wire.OK && (s != wire.Miss || q.Op != wire.OpDelete) {
			continue
		}
		p := c.Hash(q.Namespace, keys[i]).Partition()
		var owner *cluster.Owner
		if c.Node.OwnershipEpoch(p) == 0 {
			if owner = c.Node.View().Owner(p); owner != nil && owner.Process == c.Node.Self() {
				owner = nil
			}
		}
		g := groups[owner]
		if g == nil {
			g = &group{}
			groups[owner] = g
		}
		g.partitions = append(g.partitions, p)
		g.of = append(g.of, i)
	}
	var wg sync.WaitGroup
	for owner, g := range groups {
		wg.Go(func() {
			if owner == nil {
				g.all = c.Applied(ctx, g.partitions, deadline)
			} else {
				g.all = c.appliedAtOwner(ctx, owner, g.partitions, deadline)
			}
		})
	}
	wg.Wait()
	for _, g := range groups {
		for n, i := range g.of {
			if !g.all[n] {
				answers[i] = wire.ErrorReply(notByAll)
			}
		}
	}
	if q.Op == wire.OpDelete {
		return r
	}
	return answers[0]
}

var notByAll = wire.Errorf(wire.Timeout, "the write was executed, but not every host has acknowledged it in time: old copies are served for max_staleness at most")

// appliedAtOwner asks a holder to wait.
func (c *Engine) appliedAtOwner(ctx context.Context, owner *cluster.Owner, partitions []uint16, deadline time.Duration) []bool {
	none := make([]bool, len(partitions))
	left := deadline - c.Clock.Read().Boot
	body, err := wire.MarshalBody(&wire.Applied{Partitions: partitions})
	if err != nil || left <= 0 {
		return none
	}
	var a peer.Answer
	defer a.Release()
	if err := c.Node.Do(ctx, owner.Process, left, &wire.Request{Op: wire.OpApplied, Body: body}, &a); err != nil {
		c.Counts.PeerErrors.Add(1)
		return none
	}
	var by wire.AppliedBy
	if a.Status != wire.OK || wire.UnmarshalBody(a.Body, &by) != nil || len(by.All) != len(partitions) {
		return none
	}
	return by.All
}

// Applied waits until everybody has applied this host's log, and leases on earlier
// holders of some partitions have lapsed. It says of which this host was the holder
// throughout: of no other it knows that nobody else's copies are about.
//
// A write may have been done in a holding before this one, here or elsewhere. Copies
// from before it are gone all the same once leases on that holder have lapsed, and
// what it had it has handed over.
func (c *Engine) Applied(ctx context.Context, partitions []uint16, deadline time.Duration) []bool {
	now := c.Clock.Read().Boot
	c.Node.CheckPause(now)
	all, holdings := make([]bool, len(partitions)), make([]uint32, len(partitions))
	until := now
	for i, p := range partitions {
		if p < kv.Partitions {
			holdings[i] = c.Node.OwnershipEpoch(p)
		}
		if holdings[i] != 0 {
			until = max(until, time.Duration(c.Handoff.BegunAt[p].Load())+cluster.Margin(c.Node.Bound()))
		}
	}
	if !failpoint.Out(failpoint.AckAll) && !c.appliedBy(ctx, until, deadline) {
		return all
	}
	c.Node.CheckPause(c.Clock.Read().Boot)
	for i, p := range partitions {
		all[i] = holdings[i] != 0 && c.Node.OwnershipEpoch(p) == holdings[i]
	}
	return all
}

// appliedBy waits until everybody has applied this host's log and a moment has come,
// within the request's time.
func (c *Engine) appliedBy(ctx context.Context, until, deadline time.Duration) bool {
	now := c.Clock.Read().Boot
	latest := now + cluster.Margin(c.Node.Bound()) // by then all leases from before have lapsed
	until = min(until, latest)
	ctx, cancel := context.WithTimeout(ctx, max(0, deadline-now))
	defer cancel()
	if !c.Node.Applied(ctx, c.Log.Head()) {
		return false
	}
	for {
		left := until - c.Clock.Read().Boot
		if left <= 0 {
			return true
		}
		if ctx.Err() != nil || !kv.Sleep(ctx, left) {
			return false
		}
	}
}
