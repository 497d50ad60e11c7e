package engine

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

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
	return ReadOp(q.Op) && !q.Has(wire.Fresh)
}

// epoch returns the epoch of the ownership in which an operation on a key may be executed
// here and now. Zero means MOVED: this host does not own the key, or the operation depends
// on an entry that may be on its way here. fetchedEpoch is the ownership epoch in which the entry
// has been asked for; zero is none.
func (b *base) epochFor(q *wire.Request, k kv.Key, fetchedEpoch uint32, now kv.Moment) uint32 {
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
func (b *base) coming(partition uint16) bool { return b.Handoff.Incoming[partition].Load() != nil }

// fetchEntry asks the last owner of a key for its entry, if that may be on its way here. It
// returns false if no entry is coming any more, and an error if the operation cannot be
// executed without the answer. The caller has read the epoch of the ownership before.
func (b *base) fetchEntry(
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
