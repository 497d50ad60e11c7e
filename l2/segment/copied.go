package segment

import (
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Copies of a value that others were sent may be alive elsewhere after the store has evicted the entry. What is then
// filled for the key has a version from the past, which outdates no copy. So the store remembers the hashes of such
// entries, and a fill of one of them is a change: see Fill. If it can remember no more, it forgets the hashes of some
// partitions, and Config.Forgotten says that all copies of their keys must go.

const (
	copiedGroups     = 64   // each of kv.Partitions/copiedGroups partitions
	maxCopiedHashes  = 1024 // hashes of a group
	copiedPartitions = kv.Partitions / copiedGroups
)

// copiedGroup has the hashes of evicted entries that may have copies, of a group of partitions.
// Its lock is taken inside that of a shard.
type copiedGroup struct {
	mu     sync.Mutex
	hashes map[kv.Hash]struct{}
}

func (s *Store) copiedOf(h kv.Hash) *copiedGroup { return &s.copied[h.Partition()/copiedPartitions] }

// rememberCopied is called when an entry goes that a change has not ended.
func (s *Store) rememberCopied(hash kv.Hash, h header) {
	if h.marks&markCopied == 0 || s.cfg.Forgotten == nil {
		return
	}
	g := s.copiedOf(hash)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hashes == nil {
		g.hashes = make(map[kv.Hash]struct{})
	}
	if g.hashes[hash] = struct{}{}; len(g.hashes) <= maxCopiedHashes {
		return
	}
	clear(g.hashes)
	set := kv.NewPartitionSet(kv.Partitions)
	first := hash.Partition() / copiedPartitions * copiedPartitions
	for p := range uint16(copiedPartitions) {
		set.Add(first + p)
	}
	s.cfg.Forgotten(set, s.cfg.Versions.Next(0))
}

// mayBeCopied reports whether copies of an evicted entry may be alive.
func (s *Store) mayBeCopied(hash kv.Hash) bool {
	g := s.copiedOf(hash)
	g.mu.Lock()
	defer g.mu.Unlock()
	_, there := g.hashes[hash]
	return there
}

// endCopies reports a change, which ends the copies of earlier values. It is changed for what has a version
// from the past.
func (s *Store) endCopies(k kv.Key, now kv.Moment) kv.Version {
	g := s.copiedOf(k.Hash)
	g.mu.Lock()
	delete(g.hashes, k.Hash)
	g.mu.Unlock()
	return s.changed(k, now)
}
