package segment

import (
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Copies of a value that was given out may be alive elsewhere after the store has evicted
// the entry. What is then filled for the key has a version from the past, which outdates no
// copy. So the store remembers the hashes of such entries, and a fill of one of them is a
// change: see Fill. If it can remember no more, it forgets the hashes of some partitions,
// and Config.Forgotten says that all copies of their keys must go.

const (
	givenGroups    = 64   // each of kv.Partitions/givenGroups partitions
	givenRemember  = 1024 // hashes of a group
	givenPartition = kv.Partitions / givenGroups
)

// given are hashes of evicted entries that were given out, of a group of partitions. The
// lock is taken inside that of a shard.
type given struct {
	mu     sync.Mutex
	hashes map[kv.Hash]struct{}
}

func (s *Store) givenOf(h kv.Hash) *given { return &s.given[h.Partition()/givenPartition] }

// remember is called when an entry goes that a change has not ended.
func (s *Store) remember(hash kv.Hash, h header) {
	if h.marks&markGiven == 0 || s.cfg.Forgotten == nil {
		return
	}
	g := s.givenOf(hash)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hashes == nil {
		g.hashes = make(map[kv.Hash]struct{})
	}
	if g.hashes[hash] = struct{}{}; len(g.hashes) <= givenRemember {
		return
	}
	clear(g.hashes)
	set := kv.NewPartitionSet(kv.Partitions)
	first := hash.Partition() / givenPartition * givenPartition
	for p := range uint16(givenPartition) {
		set.Add(first + p)
	}
	s.cfg.Forgotten(set, s.cfg.Versions.Next(0))
}

// remembers reports whether copies of an evicted entry may be alive.
func (s *Store) remembers(hash kv.Hash) bool {
	g := s.givenOf(hash)
	g.mu.Lock()
	defer g.mu.Unlock()
	_, there := g.hashes[hash]
	return there
}

// outdate is changed for what has a version from the past.
func (s *Store) outdate(k kv.Key, now kv.Moment) kv.Version {
	g := s.givenOf(k.Hash)
	g.mu.Lock()
	delete(g.hashes, k.Hash)
	g.mu.Unlock()
	return s.changed(k, now)
}
