package segment

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Config sizes a Store. For every field but Size and Versions, zero means the default.
type Config struct {
	// Size bounds all memory of the store, in bytes: segments, index, ghosts. At
	// least MinSize, at most MaxSize.
	Size int64

	// MaxValue is the longest value accepted, in bytes. Default: 8 MiB or Size/16,
	// the lesser. A MaxValue above Size/16 is refused, because a few such values
	// would push out everything else.
	MaxValue int

	// SegmentSize is in bytes, a multiple of 4. Default: Size/2048 rounded down to a
	// power of two, at least 16 KiB and at most 128 KiB. Larger segments waste less
	// at their ends; smaller ones evict more finely, and the shard's lock is held for
	// less time.
	SegmentSize int

	// Shards is a power of two, at most 256. Default: as many as leave each shard 128
	// segments or more, so that the open segments take at most 5 %.
	Shards int

	// Segments, if set, is the exact number of segments for entries. Index and ghosts
	// come on top, and Size is ignored. It is for simulations of a cache of a given
	// number of entries.
	Segments int

	// Keep, if set, lets another process take the entries over. It needs Linux.
	Keep *Keep

	// Versions stamps writes. Required.
	Versions *kv.HLC

	// Overdue, if set, reports whether the moment until has come, at which the caller
	// of a write gives it up. The store asks for each write that has an ExecuteBefore, in the
	// critical section that would stamp and store the write, before anything else.
	Overdue func(until time.Duration) bool

	// Serves, if set, reports whether this host serves a partition. The store asks for
	// each change but a fill, in the critical section that would stamp and make it: so
	// no change follows a Settle that follows the end of a partition.
	Serves func(partition uint16) bool

	// Changed, if set, is called for every write, touch and deletion of a key (also
	// for the deletion of an absent key), and for a fill as Fill says. The call comes
	// in the critical section that stamps the version and makes the change, so a
	// record that Changed keeps is in step with the store. Changed must be quick and
	// must not call the store. Evictions and expiries are not changes.
	Changed func(k kv.Key, v kv.Version)

	// Written, if set, is called before Changed, in the same way, for every write that gives a
	// key a value: not for a touch, a deletion, a fill or a restored entry. now is the write's.
	Written func(k kv.Key, now time.Duration)

	// Forgotten, if set, is called in the same way when all copies of the keys of some
	// partitions must go: see copied.go. Without it the store remembers nothing there.
	Forgotten func(set kv.PartitionSet, v kv.Version)
}

// Bounds of a store.
const (
	MinSize         = 8 << 20
	MaxSize         = 256 << 30 // what an index word can address
	DefaultMaxValue = 8 << 20
	maxShards       = 256
	segmentsAShard  = 128 // at least; 5 % of it are the open segments
	maxOpenShare    = 20  // at most one of this many segments is open
)

// withDefaults returns a checked copy with every field set.
func (cfg Config) withDefaults() (Config, error) {
	if cfg.Versions == nil {
		return cfg, fmt.Errorf("l2: no version clock given")
	}
	if cfg.Segments > 0 {
		if cfg.SegmentSize < 64 || cfg.SegmentSize%4 != 0 {
			return cfg, fmt.Errorf("l2: segment size %d: give a multiple of 4 of at least 64 bytes", cfg.SegmentSize)
		}
		cfg.Size = int64(cfg.Segments) * int64(cfg.SegmentSize)
		cfg.Shards = max(cfg.Shards, 1)
		cfg.MaxValue = max(cfg.MaxValue, cfg.SegmentSize/2)
	}
	if cfg.Segments == 0 && cfg.Size < MinSize || cfg.Size > MaxSize {
		return cfg, fmt.Errorf("l2 size %d B: give %d MiB to %d GiB", cfg.Size, MinSize>>20, int64(MaxSize)>>30)
	}
	if cfg.MaxValue == 0 {
		cfg.MaxValue = int(min(DefaultMaxValue, cfg.Size/16))
	}
	if cfg.MaxValue < 1 || cfg.Segments == 0 && int64(cfg.MaxValue) > cfg.Size/16 {
		return cfg, fmt.Errorf("max value %d B is above 1/16 of the l2 size of %d B: "+
			"raise l2_size to at least %d B or lower max_value",
			cfg.MaxValue, cfg.Size, int64(cfg.MaxValue)*16)
	}
	if cfg.SegmentSize == 0 {
		cfg.SegmentSize = min(max(floorPow2(cfg.Size/2048), 16<<10), 128<<10)
	}
	if cfg.Shards == 0 {
		cfg.Shards = min(max(floorPow2(cfg.Size/int64(cfg.SegmentSize)/segmentsAShard), 1), maxShards)
	}
	if cfg.Shards < 1 || cfg.Shards > maxShards || cfg.Shards&(cfg.Shards-1) != 0 {
		return cfg, fmt.Errorf("l2: %d shards: give a power of two up to %d", cfg.Shards, maxShards)
	}
	return cfg, nil
}

func floorPow2(n int64) int {
	if n < 1 {
		return 0
	}
	return 1 << (bits.Len64(uint64(n)) - 1)
}
