package engine

import (
	"cmp"
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Which process owns a key at this moment, the wait for an owner, and the entries that may be on their way here.

// caughtUp returns nil once this host has applied all changes that other hosts had made
// before the call. It returns the error of ctx if ctx ends first.
func (b *deps) caughtUp(ctx context.Context) error {
	begun := b.Clock.Read().Boot
	for !b.leasedSince(begun) {
		if !kv.Sleep(ctx, b.Node.Bound()/8) {
			return ctx.Err()
		}
	}
	return nil
}

func (b *deps) leasedSince(begun time.Duration) bool {
	v := b.Node.View()
	for _, o := range v.Others() {
		if o.LeasedAt() <= begun {
			return false
		}
	}
	return v.AssignedOwner(0) != nil // false: there is no ring yet
}

// stillOwner reports whether an ownership that was found before a write was stored has
// lasted until after it. Only then no other host can have accepted another write.
func (b *deps) stillOwner(partition uint16, epoch uint32) bool {
	if !b.Node.SingleNode() {
		b.Node.CheckPause(b.Clock.Read().Boot)
	}
	return b.Node.OwnershipEpoch(partition) == epoch || failpoint.Out(failpoint.SecondCheck)
}

// attest attests an answer of this host as of a moment; zero: it does not.
func (b *deps) attest(r *wire.Reply, asOf kv.Version) {
	if asOf != 0 {
		r.Attested, r.AsOf, r.Owner, r.Epoch = true, uint64(asOf), b.self, uint64(b.Node.Self().Epoch)
	}
}

// readPatience is how long a read waits for an owner: a slow cache is worse than a miss.
// Fresh reads and writes wait until their deadline. A test may set another.
const readPatience = 250 * time.Millisecond

// waitLimit is how long a request may wait for owners yet, and until when. Waits for other
// things, as for the caller that has a key's token, take nothing of it.
type waitLimit struct{ left, deadline time.Duration }

// waitLimit returns that of a request which comes now. The request does not wait if there
// can be no owner, since too few voters are reached.
func (b *deps) waitLimit(q *wire.Request, deadline time.Duration) *waitLimit {
	switch left := deadline - b.Clock.Read().Boot; {
	case !b.Node.Quorum():
		return &waitLimit{0, deadline}
	case q.Op.Lookup() && !q.Has(wire.Fresh):
		left -= deadline - b.patience(b.Namespaces.Lookup(q.Namespace), q, deadline)
		return &waitLimit{min(left, cmp.Or(b.Config.ReadPatience, readPatience)), deadline}
	default:
		return &waitLimit{left, deadline}
	}
}

// replyNoOwner answers a request for which no owner was found in time. The request was
// not executed.
func (b *deps) replyNoOwner(q *wire.Request) wire.Reply {
	why := "no host owns the key's partition at this moment: try again"
	if out := b.Node.Outcast(); out != "" {
		why = "this host is in no cluster: " + out
	}
	if q.Op.Lookup() {
		return degraded(q, "%s", why)
	}
	return failed(wire.Unavailable, "%s", why)
}

// patience returns until when a request waits for other hosts that say nothing. A read that may be loaded without
// an owner keeps half of its time for the load, unless the owner is known to live.
func (b *deps) patience(ns *namespaces.Namespace, q *wire.Request, deadline time.Duration) time.Duration {
	if mayWithoutOwner(ns, q) && !q.Heard {
		return b.Deadlines.halfOf(q, deadline)
	}
	return deadline
}

// reaches reports whether it makes sense to pass a write on to an owner. An owner that
// has been silent for the bound has ended its ownerships if it cannot reach a majority of
// the voters either. A write that is sent to it would have an unknown outcome for
// nothing.
func (b *deps) reaches(owner *cluster.Host) bool {
	return b.Node.Quorum() || owner.Answers(b.Clock.Read().Boot, b.Node.Bound())
}

// minRetryPause is how long a request waits before it asks the assigned owner again, if that
// one did not know yet that it is the owner. The wait doubles up to maxRetryPause.
const (
	minRetryPause = 2 * time.Millisecond
	maxRetryPause = 32 * time.Millisecond
)

// wait waits for a change, or for the time again if that is not zero, and reports whether
// there is time left. It does not wait if this host is in no cluster, since nothing then
// changes until an operator acts.
func (b *deps) awaitOwner(ctx context.Context, changed <-chan struct{}, limit *waitLimit, again time.Duration) bool {
	now := b.Clock.Read().Boot
	defer func() { limit.left -= b.Clock.Read().Boot - now }()
	left := min(limit.left, limit.deadline-now)
	if left <= 0 || b.Node.Outcast() != "" {
		return false
	}
	repeats := again > 0 && again < left && b.Node.View().AssignedOwner(0) != nil // without a ring no host is asked
	if repeats {
		left = again
	}
	defer inspect.BeginWait(ctx, inspect.Ownership, "")()
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-changed:
		return true
	case <-t.C:
		return repeats
	case <-ctx.Done():
	}
	return false
}

// begun returns true once partitions are assigned to this host and it owns all of them.
// It returns false if ctx ends first.
func (b *deps) ownsAssigned(ctx context.Context) bool {
	for {
		changed := b.Node.Changed() // taken before the state that it tells of is read
		assigned, begun := 0, 0
		v := b.Node.View()
		for p := range uint16(kv.Partitions) {
			if v.Own(p) {
				assigned++
				if b.Node.OwnershipEpoch(p) != 0 {
					begun++
				}
			}
		}
		if assigned > 0 && begun == assigned {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// An ownership begins without entries. They come from the last owner, and meanwhile a key
// that is absent here may have an acknowledged value that is on its way. An operation whose
// answer or effect depends on the present entry must not take that key for absent. All of
// them pass one gate, epochFor, or for the hits of reads, whose value may be here,
// coming. The gate sends them the slow way, which asks the last owner for the entry
// (fetchEntry). If that owner cannot be asked:
//
//	GET, MGET, LEASE              go on: a miss proves nothing
//	DELETE without a condition    goes on: what comes after it is refused
//	the same reads with fresh     UNAVAILABLE
//	everything else               UNAVAILABLE
//
// A last owner that ends, and keeps its entries, does not wait until all are fetched. What does not come from it
// is absent, and stays so: see segment.Store.Missed.
//
// A SET without a condition and a FILL replace whatever comes, and ask for nothing.

// depends reports whether the answer or the effect of an operation depends on the present
// entry of its key. A deletion that settles a write has an answer that no client needs.
func depends(q *wire.Request) bool {
	switch q.Op {
	case wire.OpSet:
		return q.Mode != wire.ModeSet
	case wire.OpDelete:
		return !q.Has(wire.LateWrite)
	}
	return q.Op != wire.OpFill
}

// mayGuess reports whether an operation that depends on the present entry may take an
// absent key for absent, although its entry may be on its way here.
func mayGuess(q *wire.Request) bool {
	if q.Op == wire.OpDelete {
		return q.Compare == 0
	}
	return q.Op.Lookup() && !q.Has(wire.Fresh)
}

// epoch returns the epoch of the ownership in which an operation on a key may be executed
// here and now. Zero means MOVED: this host does not own the key, or the operation depends
// on an entry that may be on its way here. fetchedEpoch is the ownership epoch in which the entry
// has been asked for; zero is none.
func (b *deps) epochFor(q *wire.Request, k kv.Key, fetchedEpoch uint32, now kv.Moment) uint32 {
	partition := k.Hash.Partition()
	epoch := b.Node.OwnershipEpoch(partition)
	if epoch == fetchedEpoch || !depends(q) || !b.coming(partition) {
		return epoch
	}
	if _, present := b.Store.Peek(k, now.Boot); !present {
		return 0
	}
	return epoch
}

// coming reports whether entries of a partition are on their way here. A caller reads the
// epoch of the ownership before, and looks into the store after: if no entry is coming, all
// are there.
func (b *deps) coming(partition uint16) bool { return b.Handoff.Incoming[partition].Load() != nil }

// fetchEntry asks the last owner of a key for its entry, if that may be on its way here. It
// returns false if no entry is coming any more, and an error if the operation cannot be
// executed without the answer. The caller has read the epoch of the ownership before.
func (b *deps) fetchEntry(
	ctx context.Context, q *wire.Request, k kv.Key, timeout time.Duration,
) (asked bool, bad *wire.Error) {
	src := b.Handoff.Incoming[k.Hash.Partition()].Load()
	if src == nil {
		return false, nil
	}
	waited := inspect.BeginWait(ctx, inspect.Handoff, string(src.From.Node))
	err := b.Handoff.Fetch(ctx, src, string(q.Namespace), k, timeout)
	if waited(); err != nil && !mayGuess(q) && !src.Keeps {
		return true, wire.Errorf(wire.Unavailable, "%s, which owned the key until now, cannot be asked for it",
			src.From.Node)
	}
	return true, nil
}
