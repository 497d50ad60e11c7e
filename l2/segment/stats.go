package segment

import (
	"math"
	"slices"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Stats is the account of a store. The byte counts of Memory add up to what the store has
// taken of Config.Size. Some of the entries may be expired or flushed and not yet removed.
type Stats struct {
	cachesidecar.L2Stats

	moves

	Negative     int64 // of Entries: negative entries
	Hits, Misses int64

	OpenSegments             int64
	IndexSplits, IndexMerges int64 // of index pages
	BusiestShard             int64 // entries of the shard that has most
}

// NamespaceStats is the account of one namespace.
type NamespaceStats struct {
	Entries int64 // until the sweep, may include some that a flush has hidden
	Bytes   int64 // headers and padding included
	Hidden  int64 // flushed, and not yet removed by the sweep
	Quota   int64 // bytes; zero: none

	// Since CountAnew: entries removed for others, and because the namespace was above its quota.
	Evicted, QuotaEvicted int64
}

// Stats adds up the accounts of all shards. It reads one shard after another.
func (s *Store) Stats() Stats {
	var t Stats
	var c counters
	var held int64
	var shares []float64
	size := int64(s.cfg.SegmentSize)
	for _, sh := range s.shards {
		sh.mu.Lock()
		t.Entries += int64(sh.index.count)
		t.BusiestShard = max(t.BusiestShard, int64(sh.index.count))
		t.Memory.Ghosts += int64(len(sh.ghosts.held)+len(sh.lost.held)) * pageSize
		for _, q := range sh.quotas {
			t.Memory.Quotas += int64(len(q.held)) * pageSize
		}
		held += int64(sh.held)
		shares = append(shares, math.Round(1000*sh.share)/1000)
		t.Hits += sh.hits
		t.Misses += sh.misses
		t.IndexSplits += sh.index.splits
		t.IndexMerges += sh.index.merges
		t.SplitsRefused += sh.index.refused
		for q := range sh.open {
			for _, id := range sh.open[q] {
				if id != noSegment {
					t.OpenSegments++
					t.Memory.Open += size - int64(s.meta[id].used)
				}
			}
		}
		n := sh.n
		sh.mu.Unlock()
		c.add(&n) // by reflection, so not under the lock
	}
	_, free, pages := s.pool.counts()
	t.Shards = int64(len(s.shards))
	t.Negative = c.negative
	t.Segments, t.FreeSegments = held, int64(free)
	m := &t.Memory
	m.Payload, m.Headers = c.payload, c.headers
	m.Alignment = c.live - c.payload - c.headers
	m.Dead = c.used - c.live
	m.Tails = held*size - c.used - m.Open
	m.Index = pages - m.Ghosts - m.Quotas
	m.Used = held*size + pages
	m.Limit = s.cfg.Size
	slices.Sort(shares)
	t.Admission = cachesidecar.ShardShares{Least: shares[0], Median: shares[len(shares)/2], Most: shares[len(shares)-1]}
	t.L2Counts, t.moves = c.L2Counts, c.moves
	t.EvictedForRoom = t.Evicted - t.Collided - t.CrowdedOut
	if t.Entries > 0 {
		t.Overhead = math.Round(10*float64(m.Used-m.Payload)/float64(t.Entries)) / 10
	}
	return t
}

func (cs *counters) add(o *counters) {
	cs.L2Counts.Add(&o.L2Counts)
	cs.Admitted += o.Admitted
	cs.Reinserted += o.Reinserted
	cs.SegmentEvictions += o.SegmentEvictions
	cs.SegmentExpirations += o.SegmentExpirations
	cs.Chains += o.Chains
	cs.Longer += o.Longer
	cs.Shorter += o.Shorter
	cs.live += o.live
	cs.payload += o.payload
	cs.headers += o.headers
	cs.used += o.used
	cs.negative += o.negative
}

// NamespaceStats returns the account of one namespace.
func (s *Store) NamespaceStats(ns kv.NamespaceID) NamespaceStats {
	t := NamespaceStats{Quota: s.namespaces[ns].quota.Load()}
	for _, sh := range s.shards {
		sh.mu.Lock()
		c := &sh.counts[ns]
		t.Entries += c.entries
		t.Bytes += c.bytes
		t.Hidden += c.hidden
		t.Evicted += c.evicted
		t.QuotaEvicted += c.over
		sh.mu.Unlock()
	}
	return t
}

// CountAnew begins the counts of a slot's removed entries for a namespace that takes it.
func (s *Store) CountAnew(ns kv.NamespaceID) {
	for _, sh := range s.shards {
		sh.mu.Lock()
		sh.counts[ns].evicted, sh.counts[ns].over = 0, 0
		sh.mu.Unlock()
	}
}
