package segment

import (
	"fmt"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Store holds entries. It is safe for concurrent use until Close.
type Store struct {
	cfg          Config
	segmentShift uint8 // log2 of the segment size, zero where that is no power of two
	arena        []byte
	meta         []segment
	pool         *pool
	pages        *pages
	shards       []*shard
	namespaces   [kv.MaxNamespaces]namespace
	generations  []atomic.Uint32 // a partition's holding, low 16 bits
	sweep        chan struct{}   // capacity 1: there is something to sweep
	turn         atomic.Uint32   // whose segments pay for the next chain
}

// namespace is what the store must know of one: how its keys are hashed, its
// quota, and its limits.
type namespace struct {
	seed  atomic.Uint64
	quota atomic.Int64 // bytes; zero is none
	grace atomic.Int64 // Limits, in milliseconds and nanoseconds
	stale atomic.Int64
	bytes atomic.Int64 // of a namespace with a quota, live or not yet swept
}

// Limits says how long a namespace's values stay for GetStale alone.
type Limits struct {
	Grace time.Duration // after their deadline; zero: they are gone at once
	Stale time.Duration // after Soften; zero: it deletes
}

// shard is a part of the store under one lock: the entries whose hash ends in
// its number.
type shard struct {
	mu           sync.Mutex // with what every Get touches beside it, in one cache line
	store        *Store
	index        *index
	hits, misses int64
	id           uint32

	queues     [2]queue              // sealed segments and chains, oldest first
	open       [2][classes]segmentID // what is appended to, or none
	opened     [2]int                // how many of them are not none
	sparse     sparseList            // sealed segments that are less than half alive
	ghosts     ghosts
	held       int         // segments that the shard owns
	nextExpiry kv.Deadline // no sealed segment is due before it
	counts     [kv.MaxNamespaces]nsCount
	quotas     map[kv.NamespaceID]*quotaQueue
	n          counters
}

// nsCount is a namespace's account in a shard.
//
// A flush is as old as it is: one that comes late, as to a host that was started
// after it, leaves what was written since. So as not to look at every entry, it
// moves all of them to the hidden ones where none is as new; else those that it
// hides stay among the entries until the sweep has removed them.
type nsCount struct {
	floor   kv.Version // entries of older versions were flushed
	newest  kv.Version // no entry is newer
	moved   kv.Version // entries of older versions are on the hidden ones' account; at most floor
	entries int64      // that no flush has hidden, or a late one, before the sweep
	bytes   int64
	hidden  int64 // entries that a flush has hidden and the sweep not yet removed
}

// counters are a shard's own, under its lock.
type counters struct {
	live, payload, headers, used   int64 // bytes: of entries in the index, of their keys and values, of their headers and flags, written
	negative                       int64 // entries that have no value
	expired, evicted, flushed      int64 // entries removed, by reason
	quotaEvicted, overwritten      int64
	deleted                        int64
	admitted, promoted, reinserted int64
	ghostHits, compacted, chains   int64
	evictions, expirations, noRoom int64 // segments evicted and expired; writes refused
	collided, crowdedOut           int64 // of those evicted: for one of the same hash, and for one in a full page
}

type segmentID uint32

const noSegment = segmentID(math.MaxUint32)

// New returns an empty store. It starts nothing; see Run.
func New(cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	segments, budget := cfg.Segments, int64(-1)
	if segments == 0 {
		segments, budget = int(cfg.Size/int64(cfg.SegmentSize)), cfg.Size
	}
	// The pages' region is address space alone: room for index and ghosts of an
	// arena full of the shortest entries, and for their marks in queues of quotas,
	// of which each may begin and end within a page.
	pageBytes := 2*cfg.Size + int64(cfg.Shards)*kv.MaxNamespaces*2*pageSize
	s := &Store{cfg: cfg, generations: make([]atomic.Uint32, kv.Partitions), sweep: make(chan struct{}, 1)}
	if cfg.SegmentSize&(cfg.SegmentSize-1) == 0 {
		s.segmentShift = uint8(bits.TrailingZeros(uint(cfg.SegmentSize)))
	}
	if s.arena, err = newRegion(int64(segments) * int64(cfg.SegmentSize)); err != nil {
		return nil, fmt.Errorf("l2: %w", err)
	}
	s.meta = make([]segment, segments)
	s.pool = newPool(s.arena, cfg.SegmentSize, segments, budget)
	if s.pages, err = newPages(pageBytes, s.pool); err != nil {
		_ = freeRegion(s.arena)
		return nil, fmt.Errorf("l2: %w", err)
	}
	s.shards = make([]*shard, cfg.Shards)
	for i := range s.shards {
		sh := &shard{store: s, id: uint32(i), nextExpiry: never}
		// 8 to 15 pages to start with: see the package comment.
		base := int(8 * math.Exp2(float64(i)/float64(cfg.Shards)))
		sh.index = newIndex(s.pages, base, 2*int(cfg.Size/shortest)/cfg.Shards)
		sh.ghosts.pages = s.pages
		sh.sparse = sparseList{meta: s.meta, head: noSegment}
		for q := range sh.queues {
			sh.queues[q] = queue{meta: s.meta, head: noSegment, tail: noSegment}
			for c := range sh.open[q] {
				sh.open[q][c] = noSegment
			}
		}
		s.shards[i] = sh
	}
	return s, nil
}

// Close gives the memory back. The caller has stopped every use of the store.
func (s *Store) Close() error {
	if s.arena == nil {
		return nil
	}
	err := freeRegion(s.arena)
	s.arena = nil
	if s.pages != nil {
		if e := freeRegion(s.pages.region); err == nil {
			err = e
		}
	}
	return err
}

// Config returns the configuration with every default filled in.
func (s *Store) Config() Config { return s.cfg }

// SetNamespace makes a namespace slot ready: the seed under which its keys are
// hashed, its quota in bytes (zero is none), and its limits. The slot must be
// empty; what was flushed under it before is forgotten.
func (s *Store) SetNamespace(id kv.NamespaceID, seed uint64, quota int64, l Limits) {
	n := &s.namespaces[id]
	n.seed.Store(seed)
	n.quota.Store(quota)
	n.grace.Store(l.Grace.Milliseconds())
	n.stale.Store(int64(l.Stale))
	n.bytes.Store(0)
	for _, sh := range s.shards {
		sh.mu.Lock()
		sh.counts[id] = nsCount{}
		sh.mu.Unlock()
	}
}

// NewOwnership begins a new holding of a partition: what the store has of it from
// before is unreachable from now on. It returns the holding's generation.
func (s *Store) NewOwnership(partition uint16) (generation uint16) {
	g := s.generations[partition].Add(1)
	s.wakeSweep()
	return uint16(g)
}

// Drop makes what the store has of a holding unreachable, unless the next one
// of the partition has begun.
func (s *Store) Drop(partition, generation uint16) {
	if g := s.generations[partition].Load(); uint16(g) == generation && s.generations[partition].CompareAndSwap(g, g+1) {
		s.wakeSweep()
	}
}

// Generation returns a partition's holding, as Holding has.
func (s *Store) Generation(partition uint16) uint16 {
	return uint16(s.generations[partition].Load())
}

func (s *Store) shard(h kv.Hash) *shard { return s.shards[uint64(h)&uint64(len(s.shards)-1)] }

func (s *Store) hash(ns kv.NamespaceID, key []byte) kv.Hash {
	return kv.HashKey(s.namespaces[ns].seed.Load(), key)
}

// hashAt recomputes the hash of the entry at a location.
func (s *Store) hashAt(loc location) kv.Hash {
	b := s.at(loc)
	h := readHeader(b)
	return s.hash(h.namespace, h.key(b))
}

func (s *Store) wakeSweep() {
	select {
	case s.sweep <- struct{}{}:
	default: // one is pending already
	}
}

// visible says whether an entry may be served: not expired, not flushed, of
// the present holding, and not stale.
func (sh *shard) visible(h header, partition uint16, now time.Duration) bool {
	return h.marks&markStale == 0 && !h.deadline.Passed(now) && sh.current(h, partition)
}

// present says whether there is a value that may be served.
func (sh *shard) present(h header, partition uint16, now time.Duration) bool {
	return !h.negative() && sh.visible(h, partition, now)
}

// kept is visible, and says so of what only GetStale returns too.
func (sh *shard) kept(h header, partition uint16, now time.Duration) bool {
	return !sh.store.due(h).Passed(now) && sh.current(h, partition)
}

// due is when an entry is of no use to anybody: at its deadline, or a grace
// later if it is a value that a read could have had.
func (s *Store) due(h header) kv.Deadline {
	switch {
	case h.deadline == 0:
		return never
	case h.marks&(markStale|markAbsent) != 0:
		return h.deadline
	}
	return min(h.deadline+kv.Deadline(s.namespaces[h.namespace].grace.Load()), kv.MaxDeadline)
}

// current says whether neither a flush nor a new holding has hidden an entry.
func (sh *shard) current(h header, partition uint16) bool {
	return h.version >= sh.counts[h.namespace].floor && h.generation == sh.store.Generation(partition)
}

// find returns the word of a key, whether its entry is visible or not.
func (sh *shard) find(k kv.Key) (slot, word, header, []byte, bool) {
	x := sh.index
	page := x.dir[x.dirSlot(k.Hash)]
	at, w, ok := x.probe(k.Hash, -1, page)
	for ok {
		b := sh.store.at(w.loc())
		h := readHeader(b)
		if h.keyLen == len(k.Bytes) && h.namespace == k.Namespace && string(h.key(b)) == string(k.Bytes) {
			return at, w, h, b, true
		}
		at, w, ok = x.probe(k.Hash, at.at, page)
	}
	return slot{}, 0, header{}, nil, false
}
