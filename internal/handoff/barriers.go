package handoff

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// The first answer to PULL tells what the last owner of partitions knows of load barriers.

// Barriers are what hosts know of load barriers.
type Barriers interface {
	// HandOver returns what this host knows of partitions that it has released.
	HandOver(kv.PartitionSet) []wire.Barriers
	// TakeOver notes what the last owner knows of partitions whose ownership has begun here at a
	// time. It is all of those that awaited returns true for.
	TakeOver(b *wire.Barriers, begun time.Duration, awaited func(p uint16) bool) error
}

// takeBarriers notes what the source knows of load barriers. If another process has released a
// partition too, that one may know of other changes.
func (h *Handoff) takeBarriers(src *Source, b *wire.Pulled) error {
	if h.cfg.Barriers == nil || len(b.Barriers) == 0 {
		return nil
	}
	return h.cfg.Barriers.TakeOver(&b.Barriers[0], src.begun, func(p uint16) bool {
		return src.only.Has(p) && h.Incoming[p].Load() == src
	})
}

// partitions returns those of the pull that were released to its ballot.
func (pl *pull) partitions() kv.PartitionSet {
	set := kv.NewPartitionSet(kv.Partitions)
	for p, last := range pl.released {
		if last.end != nil && (pl.set.Empty() || pl.set.Has(p)) {
			set.Add(p)
		}
	}
	return set
}
