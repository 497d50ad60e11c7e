package engine

import (
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A write with ack=all is answered once no host can serve an older value: every process
// that may have a lease on the key's owner has applied the owner's log up to the write,
// or its lease has lapsed.
//
// The write has two steps. First it is executed like any other write; later requests on
// its connection go on, and see it. Then the owner is asked to wait (APPLIED). Just after
// an ownership has begun, that wait is as long as leases on the owner before it may live.

// Acks waits until all hosts have applied a write.
type Acks struct {
	*deps
}

// Wanted reports whether a request is a write with ack=all that must wait for other
// hosts.
func (acks *Acks) Wanted(q *wire.Request) bool { return q.Has(wire.AckAll) && acks.Log != nil }

// Wait waits until every host has applied what a write has changed. The write has been
// executed, with the reply r. The reply of a key that not every host has applied in time
// becomes an error. If a key goes to another host meanwhile, that one is asked, for no longer
// than leases live.
func (acks *Acks) Wait(ctx context.Context, q *wire.Request, r wire.Reply, deadline time.Duration) wire.Reply {
	answers, keys := []wire.Reply{r}, [][]byte{q.Key}
	if q.Op == wire.OpDelete {
		answers, keys = r.Items, q.Keys
	}
	var left []int
	for i := range answers {
		if s := answers[i].Status; s == wire.OK || s == wire.Miss && q.Op == wire.OpDelete {
			left = append(left, i)
		}
	}
	latest := acks.Clock.Read().Boot + cluster.Margin(acks.Node.Bound()) // no copy from before the write is served then
	for again := minRetryPause; len(left) > 0; again = min(2*again, maxRetryPause) {
		left = acks.round(ctx, q, keys, left, min(deadline, latest))
		now := acks.Clock.Read().Boot
		if now >= latest {
			left = nil
		}
		if len(left) > 0 && (now >= deadline || !kv.Sleep(ctx, min(again, latest-now, deadline-now))) {
			break
		}
	}
	for _, i := range left {
		answers[i] = wire.ErrorReply(notByAll)
	}
	if q.Op == wire.OpDelete {
		return r
	}
	return answers[0]
}

// round asks the owners of some keys, and returns the keys that are left: not every host
// has applied their changes in time, or they have another owner now.
func (acks *Acks) round(
	ctx context.Context, q *wire.Request, keys [][]byte, todo []int, deadline time.Duration,
) (left []int) {
	type group struct {
		partitions []uint16
		of         []int
		all        []bool
	}
	groups := map[*cluster.Host]*group{} // keyed by owner; nil is this host
	for _, i := range todo {
		p := acks.Namespaces.Hash(q.Namespace, keys[i]).Partition()
		var owner *cluster.Host
		if acks.Node.OwnershipEpoch(p) == 0 {
			if owner = acks.Node.View().AssignedOwner(p); owner != nil && owner.Process == acks.Node.Self() {
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
				g.all = acks.Applied(ctx, g.partitions, deadline)
			} else {
				g.all = acks.appliedAtOwner(ctx, owner, g.partitions, deadline)
			}
		})
	}
	wg.Wait()
	for _, g := range groups {
		for n, i := range g.of {
			if !g.all[n] {
				left = append(left, i)
			}
		}
	}
	return left
}

var notByAll = wire.Errorf(wire.Timeout,
	"the write was executed, but not every host has acknowledged it in time: "+
		"old copies are served for max_staleness at most")

// appliedAtOwner asks the owner of some partitions to wait.
func (acks *Acks) appliedAtOwner(
	ctx context.Context, owner *cluster.Host, partitions []uint16, deadline time.Duration,
) []bool {
	none := make([]bool, len(partitions))
	left := deadline - acks.Clock.Read().Boot
	if left <= 0 {
		return none
	}
	body := wire.MarshalBody(&wire.Applied{Partitions: partitions})
	var a peer.Answer
	defer a.Release()
	if err := acks.Node.Do(ctx, owner.Process, left, &wire.Request{Op: wire.OpApplied, Body: body}, &a); err != nil {
		acks.Counts.PeerErrors.Add(1)
		return none
	}
	var by wire.AppliedBy
	if a.Status != wire.OK || wire.UnmarshalBody(a.Body, &by) != nil || len(by.All) != len(partitions) {
		return none
	}
	return by.All
}

// Applied waits until every host has applied this host's log and until leases on earlier
// owners of the partitions have lapsed. The result says, for each partition, whether this
// host owned it throughout. Of any other partition this host does not know whether older
// copies remain.
//
// A write may have been executed in an ownership before the present one, here or on
// another host. Copies from before it are gone all the same once leases on that owner
// have lapsed, and that owner has handed its entries over.
func (acks *Acks) Applied(ctx context.Context, partitions []uint16, deadline time.Duration) []bool {
	now := acks.Clock.Read().Boot
	acks.Node.CheckPause(now)
	all, epochs := make([]bool, len(partitions)), make([]uint32, len(partitions))
	until := now
	for i, p := range partitions {
		if p < kv.Partitions {
			epochs[i] = acks.Node.OwnershipEpoch(p)
		}
		if epochs[i] != 0 {
			until = max(until, acks.Handoff.BegunAt(p)+cluster.Margin(acks.Node.Bound()))
		}
	}
	if !failpoint.Out(failpoint.AckAll) && !acks.appliedBy(ctx, until, deadline) {
		return all
	}
	acks.Node.CheckPause(acks.Clock.Read().Boot)
	for i, p := range partitions {
		all[i] = epochs[i] != 0 && acks.Node.OwnershipEpoch(p) == epochs[i]
	}
	return all
}

// appliedBy waits until every host has applied this host's log and the moment until has
// come. It returns false if the deadline comes first. Both are on the boot clock.
func (acks *Acks) appliedBy(ctx context.Context, until, deadline time.Duration) bool {
	now := acks.Clock.Read().Boot
	latest := now + cluster.Margin(acks.Node.Bound()) // all leases from before have lapsed by then
	until = min(until, latest)
	ctx, cancel := context.WithTimeout(ctx, max(0, deadline-now))
	defer cancel()
	if !acks.Node.Applied(ctx, acks.Log.Head()) {
		return false
	}
	for {
		left := until - acks.Clock.Read().Boot
		if left <= 0 {
			return true
		}
		if ctx.Err() != nil || !kv.Sleep(ctx, left) {
			return false
		}
	}
}
