package segment

import (
	"math"
	"math/bits"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Info is what an entry carries besides its value.
type Info struct {
	kv.Facts
	Size int // of the value, bytes
}

// NoLimit lets Get append a value of any length.
const NoLimit = math.MaxInt

// Get is Read for a reader that keeps no copy.
func (s *Store) Get(dst []byte, k kv.Key, limit int, now time.Duration) ([]byte, Info, bool) {
	return s.Read(dst, k, limit, false, now)
}

// Read appends the value of a key to dst. If the value is longer than limit bytes, Read
// returns dst unchanged, and Info.Size has the length of the value. With give, the reader may
// keep a copy.
func (s *Store) Read(dst []byte, k kv.Key, limit int, give bool, now time.Duration) ([]byte, Info, bool) {
	marks := uint8(markRead)
	if give {
		marks |= markCopied
	}
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	at, w, h, b, found := sh.find(k)
	if !found {
		sh.misses++
		sh.mu.Unlock()
		return dst, Info{}, false
	}
	if partition := k.Hash.Partition(); !sh.visible(h, partition, now) {
		if !sh.store.isKept(h, partition) && !sh.usable(h, partition, now) {
			sh.countHidden(h, partition)
			sh.removeEntry(k.Hash, at, w, h)
		}
		sh.misses++
		sh.mu.Unlock()
		return dst, Info{}, false
	}
	sh.hits++
	if n := w.hits(); n < maxHits {
		sh.index.setWord(at, w.withHits(n+1))
	}
	if h.marks&marks != marks {
		b[offMarks] = h.marks | marks
	}
	info := h.info(b)
	switch {
	case h.valueLen > limit:
	case h.marks&markChain != 0:
		dst = sh.appendPinned(dst, w.loc(), h)
	default:
		dst = append(dst, h.value(b)...)
	}
	sh.mu.Unlock()
	return dst, info, true
}

// appendPinned appends the value of a chain. It gives the lock up while it copies; the pin
// keeps the chain.
func (sh *shard) appendPinned(dst []byte, loc location, h header) []byte {
	seg, _ := sh.store.split(loc)
	sh.store.meta[seg].pins++
	sh.mu.Unlock()
	dst = sh.store.appendChain(dst, seg, h)
	sh.mu.Lock()
	sh.unpin(seg)
	return dst
}

// Peek returns what Get would, without the value, and does not count as a hit.
func (s *Store) Peek(k kv.Key, now time.Duration) (Info, bool) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, _, h, b, found := sh.find(k)
	if !found || !sh.visible(h, k.Hash.Partition(), now) {
		return Info{}, false
	}
	return h.info(b), true
}

// Length returns how many bytes a value has that a read or a change of the key may copy: a
// stale one, too.
func (s *Store) Length(k kv.Key) int {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, _, h, _, _ := sh.find(k) // without an entry all is zero
	return h.valueLen
}

// Still is Peek if the entry still has a version. With give, a reader may keep a copy of it.
func (s *Store) Still(k kv.Key, version kv.Version, give bool, now time.Duration) (Info, bool) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, _, h, b, found := sh.find(k)
	if !found || h.version != version || !sh.visible(h, k.Hash.Partition(), now) {
		return Info{}, false
	}
	if give {
		b[offMarks] = h.marks | markCopied
	}
	return h.info(b), true
}

// Touched counts a hit of a key that was served elsewhere, so that the entry is not evicted
// as an unused one.
func (s *Store) Touched(k kv.Key) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if at, w, h, b, found := sh.find(k); found {
		b[offMarks] = h.marks | markRead
		if n := w.hits(); n < maxHits {
			sh.index.setWord(at, w.withHits(n+1))
		}
	}
}

func (h header) info(b []byte) Info { return Info{h.facts(b), h.valueLen} }

// MaxWarm is the largest number of keys that Warm looks at.
const MaxWarm = 64

// Warm brings what Get will need for the keys into the processor's cache: first all their
// index buckets and generations, then all their entries, so that the cache misses of
// different keys overlap. It takes no lock and decides nothing, so what it reads may be out
// of date. It pays from four keys on. The result has no meaning; a caller that keeps it
// prevents the compiler from removing the reads.
//
// The three loops are short, and no branch depends on what they read: so the processor has
// the reads of many keys under way at a time. Prefetch instructions in place of the reads
// were measured to bring less: lines that they had named were still missing later.
func (s *Store) Warm(hashes []kv.Hash) (sum uint64) {
	if heapArena {
		return 0 // the race detector would see reads without a lock
	}
	var lines, entries [MaxWarm]int
	hashes = hashes[:min(len(hashes), MaxWarm)]
	region, arena := s.pages.region, s.arena
	for i, h := range hashes {
		d := s.shard(h).index.shape.Load()
		lines[i] = int(d.dir[d.dirSlot(h)])*pageSize + makeWord(h, 0, 0).home()*bucketSize*8
		sum += uint64(region[lines[i]]) + uint64(s.generations[h.Partition()].Load())
	}
	for i, h := range hashes {
		bucket := region[lines[i]:][:bucketSize*8]
		// If there is no match, the first word is as good as any.
		w := getWord(bucket, bits.TrailingZeros8(matches(bucket, makeWord(h, 0, 0)))%bucketSize)
		entries[i] = int(uint64(w.loc())-1) * align
	}
	last := uint64(len(arena) - 1) // a word that is out of date may point anywhere
	for _, at := range entries[:len(hashes)] {
		// The header, and the two lines behind it.
		sum += uint64(arena[min(uint64(at), last)])
		sum += uint64(arena[min(uint64(at+64), last)])
		sum += uint64(arena[min(uint64(at+128), last)])
	}
	return sum
}
