package segment

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Store stores entries. It is safe for concurrent use until Close.
type Store struct {
	cfg          Config
	segmentShift uint8 // log2 of the segment size; zero if that is no power of two
	arena        []byte
	meta         []segment
	pool         *pool
	pages        *pages
	shards       []*shard
	namespaces   [kv.MaxNamespaces]namespace
	generations  []atomic.Uint32 // per partition: see generations.go
	kept         []atomic.Uint32 // per partition
	announced    atomic.Pointer[announcement]
	sweep        chan struct{} // capacity 1: a sweep is needed
	turn         atomic.Uint32 // the shard that frees a segment for the next chain
	copied       [copiedGroups]copiedGroup
	memory       memory // with Config.Keep
}

// namespace is what the store must know of a namespace: the seed of its hashes, its quota
// and its limits.
type namespace struct {
	seed  atomic.Uint64
	quota atomic.Int64 // bytes; zero: none
	grace atomic.Int64 // Limits.Grace, milliseconds
	stale atomic.Int64 // Limits.Stale, nanoseconds
	bytes atomic.Int64 // live or not yet swept, in the shards that meter the namespace
}

// Limits says how long GetStale still returns the values of a namespace.
type Limits struct {
	Grace time.Duration // after the deadline; zero: none
	Stale time.Duration // after Soften; zero: Soften deletes
}

// shard is a part of the store under one lock: the entries whose hash ends in the shard's
// number.
type shard struct {
	mu           sync.Mutex // beside the fields that every Get touches: one cache line
	store        *Store
	index        *index
	hits, misses int64
	id           uint32

	queues     [2]queue              // sealed segments and chains, oldest first
	open       [2][classes]segmentID // the segments appended to, or noSegment
	opened     [2]int                // how many of them are not noSegment
	sparse     sparseList            // sealed segments that are less than half alive
	ghosts     ghosts                // of keys that admission dropped
	lost       ghosts                // of keys that the main queue dropped
	share      float64               // of the segments that is for admission
	hitsSeen   int                   // nsCount.hits of all namespaces
	held       int                   // segments that the shard owns
	nextExpiry kv.Deadline           // no segment with entries is due before it
	counts     [kv.MaxNamespaces]nsCount
	quotas     map[kv.NamespaceID]*quotaQueue
	n          counters
}

// nsCount is the account of a namespace in a shard.
//
// A flush hides only what is older than its version. A host may apply a flush late, for
// example because the host was started after it; entries written since the flush stay. To
// avoid a look at every entry, a flush moves the whole account to hidden if all entries
// are older than it. Otherwise the entries that it hides stay in entries and bytes until
// the sweep removes them.
type nsCount struct {
	floor   kv.Version    // entries of older versions are flushed
	served  kv.Version    // entries of older versions are not served; at least floor
	heldAt  time.Duration // boot clock: when that began, if it is above floor
	newest  kv.Version    // no entry is newer
	moved   kv.Version    // entries of older versions count as hidden; at most floor
	entries int64         // until the sweep, may include flushed ones; see above
	bytes   int64
	hidden  int64   // entries that a flush has hidden and the sweep has not removed yet
	all     int64   // bytes, of hidden entries too
	evicted int64   // entries removed for others, since the name has the slot
	over    int64   // entries removed because the namespace was above its quota, since then
	hits    int     // that pass has seen lately
	part    float64 // of the hits of all namespaces, when they were last weighed
	lean    float64 // what its lessons would add to the share of admission if it had all hits
	metered bool    // all is part of namespace.bytes, and the keys are in the quota queue
}

// counters are the counters of one shard, under its lock.
type counters struct {
	cachesidecar.L2Counts
	moves
	// Bytes: of entries in the index, of their keys and values, of their headers and
	// flags; and bytes written.
	live, payload, headers, used int64
	negative                     int64 // entries that have no value
	taken                        int64 // entries taken over from an earlier process
}

// moves counts, beside L2Counts, the entries that were moved between the queues, the segments evicted and
// expired, the chains written, and the lessons that the share of admission should be longer or shorter.
type moves struct {
	Admitted, Reinserted, SegmentEvictions, SegmentExpirations, Chains, Longer, Shorter int64
}

type segmentID uint32

const noSegment = segmentID(math.MaxUint32)

// New returns a store, which is empty unless it takes over the entries of an earlier process. It starts
// no goroutine; see Run.
func New(cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s, err := build(cfg)
	if why := (unusable{}); errors.As(err, &why) {
		cfg.Keep = &Keep{}
		if s, err = build(cfg); err == nil {
			s.memory.taken.Why = why.error
		}
	}
	if err != nil {
		return nil, fmt.Errorf("l2: %w", err)
	}
	return s, nil
}

func build(cfg Config) (s *Store, err error) {
	segments, budget := cfg.Segments, int64(-1)
	if segments == 0 {
		segments, budget = int(cfg.Size/int64(cfg.SegmentSize)), cfg.Size
	}
	s = &Store{
		cfg: cfg, sweep: make(chan struct{}, 1),
		generations: make([]atomic.Uint32, kv.Partitions), kept: make([]atomic.Uint32, kv.Partitions),
	}
	if cfg.SegmentSize&(cfg.SegmentSize-1) == 0 {
		s.segmentShift = uint8(bits.TrailingZeros(uint(cfg.SegmentSize)))
	}
	// The region of the pages reserves address space only. It has room for the index
	// and ghosts of an arena full of the shortest entries, and for their marks in
	// quota queues, each of which may begin and end within a page.
	pageBytes := 2*cfg.Size + int64(cfg.Shards)*kv.MaxNamespaces*2*pageSize
	region, meta, header, err := s.regions(int64(segments)*int64(cfg.SegmentSize), pageBytes/pageSize*pageSize)
	if err != nil {
		return nil, err
	}
	s.meta = make([]segment, segments)
	s.pool = newPool(s.arena, cfg.SegmentSize, segments, budget)
	s.pages = newPages(region, s.pool)
	if cfg.Keep != nil {
		s.pool.discard = discardKept
	}
	s.makeShards()
	if header == nil {
		for _, sh := range s.shards {
			sh.index.beginIndex()
		}
		return s, nil
	}
	if err := s.takeOver(header, meta); err != nil {
		Forget(s.memory.file)
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// regions makes the arena, and the region of the pages.
func (s *Store) regions(arena, pages int64) (region, meta []byte, header *keptHeader, err error) {
	if s.cfg.Keep != nil {
		return s.keptRegions(arena, pages)
	}
	if s.arena, err = newRegion(arena); err != nil {
		return nil, nil, nil, err
	}
	if region, err = newRegion(pages); err != nil {
		_ = freeRegion(s.arena)
	}
	return region, nil, nil, err
}

func (s *Store) makeShards() {
	cfg := &s.cfg
	s.shards = make([]*shard, cfg.Shards)
	for i := range s.shards {
		sh := &shard{store: s, id: uint32(i), nextExpiry: never}
		// 8 to 15 pages to start with: see the package comment.
		base := int(8 * math.Exp2(float64(i)/float64(cfg.Shards)))
		sh.index = newIndex(s.pages, base, 2*int(cfg.Size/shortest)/cfg.Shards)
		sh.ghosts = ghosts{pages: s.pages, share: ghostShare}
		sh.lost = ghosts{pages: s.pages, share: freshShare}
		sh.share = firstShare
		sh.sparse = sparseList{meta: s.meta, head: noSegment}
		for q := range sh.queues {
			sh.queues[q] = queue{meta: s.meta, head: noSegment, tail: noSegment}
			for c := range sh.open[q] {
				sh.open[q][c] = noSegment
			}
		}
		s.shards[i] = sh
	}
}

// Close frees the memory, but for what Save has left. The caller must have stopped every use of the store.
func (s *Store) Close() error {
	if s.arena == nil {
		return nil
	}
	arena := s.arena
	s.arena = nil
	if s.cfg.Keep != nil {
		return s.freeMemory()
	}
	return errors.Join(freeRegion(arena), freeRegion(s.pages.region))
}

// Config returns the configuration with every default filled in.
func (s *Store) Config() Config { return s.cfg }

// SetNamespace prepares a namespace slot: the seed under which its keys are hashed, its
// quota in bytes (zero means none), and its limits. The slot must be empty. Earlier
// flushes of the slot are forgotten.
func (s *Store) SetNamespace(id kv.NamespaceID, seed uint64, quota int64, l Limits) {
	n := &s.namespaces[id]
	n.seed.Store(seed)
	s.SetLimits(id, 0, Limits{})
	n.bytes.Store(0)
	for _, sh := range s.shards {
		sh.mu.Lock()
		sh.share -= sh.counts[id].lean * sh.counts[id].part
		sh.counts[id] = nsCount{}
		sh.mu.Unlock()
	}
	s.SetLimits(id, quota, l)
}

// SetLimits gives a namespace another quota, zero being none, and other limits of stale
// values. Its entries stay: if they are above the quota, Shrink or the next new keys evict
// the oldest ones. For a namespace with entries and without a quota Meter comes before.
func (s *Store) SetLimits(id kv.NamespaceID, quota int64, l Limits) {
	n := &s.namespaces[id]
	if quota > 0 {
		s.Meter(id)
	}
	n.quota.Store(quota)
	if quota == 0 {
		for _, sh := range s.shards {
			sh.meter(id, false)
		}
	}
	n.grace.Store(l.Grace.Milliseconds())
	n.stale.Store(int64(l.Stale))
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
	default: // a sweep is pending already
	}
}

// visible reports whether an entry may be served: it is not expired, not flushed, not
// stale, not held back, and of the current ownership.
func (sh *shard) visible(h header, partition uint16, now time.Duration) bool {
	return h.marks&markStale == 0 && !h.deadline.Passed(now) &&
		h.version >= sh.counts[h.namespace].served && sh.store.owned(h, partition)
}

// present reports whether an entry has a value that may be served.
func (sh *shard) present(h header, partition uint16, now time.Duration) bool {
	return !h.negative() && sh.visible(h, partition, now)
}

// usable is like visible, but also true for entries that only GetStale returns.
func (sh *shard) usable(h header, partition uint16, now time.Duration) bool {
	return !sh.store.due(h).Passed(now) && sh.current(h, partition)
}

// due returns when an entry becomes useless: at its deadline, or a grace later if the
// entry is a value that reads could return.
func (s *Store) due(h header) kv.Deadline {
	switch {
	case h.deadline == 0:
		return never
	case h.marks&(markStale|markAbsent) != 0:
		return h.deadline
	}
	return min(h.deadline+kv.Deadline(s.namespaces[h.namespace].grace.Load()), kv.MaxDeadline)
}

// current reports whether neither a flush nor a new ownership has hidden an entry.
func (sh *shard) current(h header, partition uint16) bool {
	return h.version >= sh.counts[h.namespace].floor && sh.store.owned(h, partition)
}

// find returns the word of a key, whether or not its entry is visible.
func (sh *shard) find(k kv.Key) (slot, word, header, []byte, bool) {
	x := sh.index
	page := x.dir[x.dirSlot(k.Hash)]
	at, w, ok := x.probe(k.Hash, -1, page)
	for ok {
		b := sh.store.at(w.loc())
		h := readHeader(b)
		if int(h.keyLen) == len(k.Bytes) && h.namespace == k.Namespace && string(h.key(b)) == string(k.Bytes) {
			return at, w, h, b, true
		}
		at, w, ok = x.probe(k.Hash, at.at, page)
	}
	return slot{}, 0, header{}, nil, false
}

func (s *Store) serves(h kv.Hash) bool { return s.cfg.Serves == nil || s.cfg.Serves(h.Partition()) }

// Settle waits for the changes that are being made.
func (s *Store) Settle() {
	for _, sh := range s.shards {
		sh.mu.Lock()
		//lint:ignore SA2001 the critical sections from before are over
		sh.mu.Unlock()
	}
}
