package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Generations of partitions. Each ownership has a generation, which its entries carry. A partition's
// word has the present one in its low 16 bits and, above them, how many generations before it are of the same
// ownership: those of entries that an earlier process has left and that were adopted.
//
//	31…16 adopted │ 15…0 generation
//
// Entries that an earlier process has left and that are not adopted yet are kept: no read returns them, and the
// sweep leaves them. s.kept has how many generations they reach back. They go with the second ownership.

// begun marks, in s.kept, that an ownership has begun since the entries were left.
const begun = 1 << 16

// maxReach bounds how many generations the entries of a partition reach back.
const maxReach = 1 << 15

// NewOwnership begins a new ownership of a partition. Entries from before become
// unreachable. It returns the generation of the new ownership.
func (s *Store) NewOwnership(partition uint16) (generation uint16) {
	// The reach grows first: the sweep may look between the two.
	kept := &s.kept[partition]
	for k := kept.Load(); k != 0; k = kept.Load() {
		next := k + 1 | begun
		if k&begun != 0 {
			next = 0
		}
		if kept.CompareAndSwap(k, next) { // else they were given up
			break
		}
	}
	at := &s.generations[partition]
	for {
		old := at.Load()
		generation = uint16(old) + 1
		if at.CompareAndSwap(old, uint32(generation)) {
			s.wakeSweep()
			return generation
		}
	}
}

// Drop makes the entries of an ownership unreachable, unless the partition has another
// generation by now.
func (s *Store) Drop(partition, generation uint16) {
	at := &s.generations[partition]
	if old := at.Load(); uint16(old) == generation && at.CompareAndSwap(old, uint32(generation+1)) {
		s.DropKept(partition)
	}
}

// Generation returns the current generation of a partition; see NewOwnership.
func (s *Store) Generation(partition uint16) uint16 {
	return uint16(s.generations[partition].Load())
}

// owned reports whether an entry is of the present ownership of its partition.
func (s *Store) owned(h header, partition uint16) bool {
	w := s.generations[partition].Load()
	return uint32(uint16(w)-h.generation) <= w>>16
}

// isKept reports whether an entry may be adopted. Who asks whether it is owned as well does so afterwards: it may
// be adopted between the two.
func (s *Store) isKept(h header, partition uint16) bool {
	w := s.generations[partition].Load() // before the reach, which grows first when an ownership begins
	k := s.kept[partition].Load()
	back := uint32(uint16(w) - h.generation)
	return back > w>>16 && k != 0 && back <= k&(begun-1)
}

// Adopt makes the kept entries of a partition those of the ownership with a generation, which must be the
// first one since they were left. It reports whether it is, and the present one.
func (s *Store) Adopt(partition, generation uint16) bool {
	k := s.kept[partition].Load()
	if k&begun == 0 || !s.generations[partition].CompareAndSwap(uint32(generation), uint32(generation)|k<<16) {
		return false
	}
	s.kept[partition].Store(0)
	return true
}

// DropKept gives the kept entries of a partition up.
func (s *Store) DropKept(partition uint16) {
	s.kept[partition].Store(0)
	s.wakeSweep()
}

// DropChanged drops the kept entries with a hash. It returns how many there were.
func (s *Store) DropChanged(hash kv.Hash) (n int) {
	sh := s.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	x := sh.index
	page := x.dir[x.dirSlot(hash)]
	for at, w, ok := x.probe(hash, -1, page); ok; {
		h := readHeader(s.at(w.loc()))
		if s.isKept(h, hash.Partition()) && s.hashAt(w.loc()) == hash {
			sh.countHidden(h, hash.Partition())
			sh.removeEntry(hash, at, w, h)
			n++
			page = x.dir[x.dirSlot(hash)] // removing may move words, and merge pages
			at, w, ok = x.probe(hash, -1, page)
			continue
		}
		at, w, ok = x.probe(hash, at.at, page)
	}
	return n
}

// announcement says in which partitions every fill is a change, until a moment of the boot clock.
type announcement struct {
	partitions kv.PartitionSet
	until      time.Duration
}

// AnnounceFills makes every fill in some partitions a change until a moment of the boot clock: the owner
// before has kept its entries, and must learn which of them were replaced meanwhile.
func (s *Store) AnnounceFills(partitions kv.PartitionSet, now, until time.Duration) {
	next := &announcement{partitions: kv.NewPartitionSet(kv.Partitions), until: until}
	lists := []kv.PartitionSet{partitions}
	if old := s.announced.Load(); old != nil && now < old.until {
		lists = append(lists, old.partitions)
		next.until = max(until, old.until)
	}
	for _, list := range lists {
		for p := range list.All() {
			next.partitions.Add(p)
		}
	}
	s.announced.Store(next)
}

// Missed makes the absence of a key a change where fills are announced: the answer to a caller depends on it, and
// the entry that the owner before has kept must not come back. It reports false if this host does not serve the
// partition.
func (s *Store) Missed(k kv.Key, now kv.Moment) bool {
	if !s.announces(k.Hash.Partition(), now.Boot) {
		return true
	}
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !s.serves(k.Hash) {
		return false
	}
	s.endCopies(k, now)
	return true
}

// announces reports whether a fill is a change, whatever it replaces.
func (s *Store) announces(partition uint16, now time.Duration) bool {
	a := s.announced.Load()
	return a != nil && now < a.until && a.partitions.Has(partition) && !failpoint.Out(failpoint.KeptFills)
}
