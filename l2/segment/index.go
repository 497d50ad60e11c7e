package segment

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// word is an index entry; the package comment has its layout.
type word uint64

const (
	tagShift   = 38
	hitsShift  = locationBits
	maxHits    = 3
	bucketSize = 8                       // words, a cache line
	wordsAPage = pageSize / 8            // 512
	buckets    = wordsAPage / bucketSize // 64
	splitFill  = wordsAPage * 9 / 10     // words in a page at which it splits
	// Words in a page that cannot split; the next word replaces another.
	fullFill   = wordsAPage * 15 / 16
	mergeFill  = wordsAPage * 35 / 100 // words in two buddies below which they merge
	maxAlike   = 8                     // words of a tag in a page; entries of a hash
	bucketBits = 6                     // of the tag, below the partition
	restBits   = 26 - 14 - bucketBits  // of the tag, below the bucket
	tagOfHash  = 64 - (14 + bucketBits + restBits)
)

func makeWord(h kv.Hash, hits int, loc location) word {
	return word(uint64(h)>>tagOfHash<<tagShift | uint64(hits)<<hitsShift | uint64(loc))
}

func (w word) hits() int         { return int(w >> hitsShift & maxHits) }
func (w word) loc() location     { return location(w & (1<<locationBits - 1)) }
func (w word) partition() uint16 { return uint16(w >> (64 - kv.PartitionBits)) }
func (w word) home() int         { return int(w>>(tagShift+restBits)) & (buckets - 1) }
func (w word) withHits(n int) word {
	return w&^(maxHits<<hitsShift) | word(n)<<hitsShift
}
func (w word) withLoc(l location) word {
	return w&^(1<<locationBits-1) | word(l)
}

// index is the hash table of one shard, under the lock of the shard.
type index struct {
	pages *pages
	directory
	shape    atomic.Pointer[directory] // the directory that Warm reads without the lock
	count    int                       // words in use
	maxWords int                       // words that the directory grows for
	scans    int                       // scans under way; pages do not merge meanwhile
	hand     int                       // where the next search for a victim starts

	// Pages split and merged; words that came to a full page that could not split.
	splits, merges, refused int64
	removals                int // so far; if it changes, a scan looks at its page again
}

// directory finds the page of a hash.
type directory struct {
	base  uint32   // slots at depth zero
	depth uint8    // hash bits beyond base
	dir   []pageID // base << depth slots; a page of less depth fills several
}

// slot names a word: a page and the number of the word in it. It is valid until the next
// insert or remove.
type slot struct {
	page pageID
	at   int
}

func newIndex(p *pages, base, maxWords int) *index {
	return &index{pages: p, maxWords: maxWords, directory: directory{base: uint32(base), dir: make([]pageID, base)}}
}

// beginIndex gives an index its first pages.
func (x *index) beginIndex() {
	for i := range x.dir {
		x.dir[i] = x.pages.get()
	}
	x.publish()
}

// branch returns the part of the hash whose low bits the directory grows by.
func branch(h kv.Hash) uint32 { return uint32(h >> 24) }

// dirSlot returns the directory slot of a hash.
func (dir *directory) dirSlot(h kv.Hash) uint32 {
	root := uint32(h>>8) & 0xffff * dir.base >> 16
	return root + dir.base*(branch(h)&(1<<dir.depth-1))
}

// publish shows the directory to Warm. Its slots go on changing under the lock. A page
// that Warm takes from an old directory may be outdated, but is still a page.
func (x *index) publish() {
	d := x.directory
	x.shape.Store(&d)
}

func getWord(page []byte, i int) word { return word(binary.LittleEndian.Uint64(page[i*8:])) }
func putWord(page []byte, i int, w word) {
	binary.LittleEndian.PutUint64(page[i*8:], uint64(w))
}

func (x *index) word(s slot) word       { return getWord(x.pages.bytes(s.page), s.at) }
func (x *index) setWord(s slot, w word) { putWord(x.pages.bytes(s.page), s.at, w) }

// probe returns the next word of a page with the tag of a hash. The first call has a
// negative from; each further call passes the slot that the last call returned.
func (x *index) probe(h kv.Hash, from int, page pageID) (slot, word, bool) {
	bytes := x.pages.bytes(page)
	want := makeWord(h, 0, 0)
	home := want.home()
	start := 0
	if from >= 0 {
		start = (from/bucketSize-home+buckets)%buckets*bucketSize + from%bucketSize + 1
	}
	first := start % bucketSize
	for n := start / bucketSize; n < buckets; n++ {
		b := (home + n) & (buckets - 1)
		for m := matches(bytes[b*bucketSize*8:][:bucketSize*8], want) >> first << first; m != 0; m &= m - 1 {
			at := b*bucketSize + bits.TrailingZeros8(m)
			if w := getWord(bytes, at); w != 0 {
				return slot{page, at}, w, true
			}
		}
		if used(bytes, b) < bucketSize {
			break
		}
		first = 0
	}
	return slot{}, 0, false
}

// matches returns a bit for each word of a bucket that has the tag of want. An empty word has
// the tag zero. There is no branch, since the processor could not foresee it.
func matches(bucket []byte, want word) (m uint8) {
	for i := range bucketSize {
		other := uint64(getWord(bucket, i)^want) >> tagShift // zero, or less than 1<<63
		m |= uint8((other-1)>>63) << i
	}
	return m
}

// findLocation returns the slot of the word that points to loc.
func (x *index) findLocation(h kv.Hash, loc location) (slot, word, bool) {
	page := x.dir[x.dirSlot(h)]
	s, w, ok := x.probe(h, -1, page)
	for ok && w.loc() != loc {
		s, w, ok = x.probe(h, s.at, page)
	}
	return s, w, ok
}

// splitIfDue splits the page of a hash if a split is due and allowed. It reports whether the
// page has room for a word. hashOf recomputes the hash of an entry.
func (x *index) splitIfDue(h kv.Hash, hashOf func(location) kv.Hash) bool {
	d := x.dirSlot(h)
	for ; x.pages.fill[x.dir[d]] >= splitFill; d = x.dirSlot(h) {
		if !x.maySplit(x.dir[d]) || !x.split(d, hashOf) {
			x.refused++
			break
		}
	}
	return x.pages.fill[x.dir[d]] < fullFill
}

// maySplit reports whether the shard has enough words for pages of one more bit: see the
// package comment.
func (x *index) maySplit(id pageID) bool {
	return min(x.count, x.maxWords) >= splitFill/2*int(x.base<<x.pages.depth[id])
}

// alike calls each, if not nil, for the words with the tag of a hash and returns their
// number.
func (x *index) alike(h kv.Hash, each func(slot, word)) int {
	page, n := x.dir[x.dirSlot(h)], 0
	for at, w, ok := x.probe(h, -1, page); ok; at, w, ok = x.probe(h, at.at, page) {
		if n++; each != nil {
			each(at, w)
		}
	}
	return n
}

// sample calls each for some words of a hash's page, for other words each time.
func (x *index) sample(h kv.Hash, each func(slot, word)) {
	page := x.dir[x.dirSlot(h)]
	for n, left := 0, sampled; n < wordsAPage && left > 0; n++ {
		x.hand = (x.hand + 1) % wordsAPage
		at := slot{page, x.hand}
		if w := x.word(at); w != 0 {
			each(at, w)
			left--
		}
	}
}

// insert adds a word. The caller has called ready before.
func (x *index) insert(h kv.Hash, w word) {
	page := x.dir[x.dirSlot(h)]
	insertWord(x.pages.bytes(page), w)
	x.pages.fill[page]++
	x.count++
}

func insertWord(page []byte, w word) {
	for b := w.home(); ; b = (b + 1) & (buckets - 1) {
		for i := b * bucketSize; i < (b+1)*bucketSize; i++ {
			if getWord(page, i) == 0 {
				putWord(page, i, w)
				return
			}
		}
	}
}

// remove deletes the word in a slot. If the page and its buddy are sparse now, remove
// merges them.
func (x *index) remove(h kv.Hash, s slot) {
	removeWord(x.pages.bytes(s.page), s.at)
	x.pages.fill[s.page]--
	x.count--
	x.removals++
	x.shrink(x.dirSlot(h))
}

// shrink merges the page of directory slot d with its buddy, if both are sparse and no
// scan is under way.
func (x *index) shrink(d uint32) {
	if x.scans == 0 && x.pages.fill[x.dir[d]] < mergeFill {
		x.merge(d)
	}
}

// removeWord empties a slot and moves overflowed words back, so that a probe may end at
// the first bucket with room. The invariant: if a word has home H and lies in L, the
// buckets H to L-1 are full.
func removeWord(page []byte, at int) {
	putWord(page, at, 0)
	hole := at
	bucket := at / bucketSize
	if used(page, bucket) < bucketSize-1 {
		return // the bucket was not full, so nothing overflowed past it
	}
	for n := 1; n < buckets; n++ {
		next := (at/bucketSize + n) & (buckets - 1)
		wasFull := used(page, next) == bucketSize
		for i := next * bucketSize; i < (next+1)*bucketSize; i++ {
			w := getWord(page, i)
			if w == 0 {
				continue
			}
			if (next-w.home())&(buckets-1) >= (next-bucket)&(buckets-1) {
				putWord(page, hole, w)
				putWord(page, i, 0)
				hole, bucket = i, next
				break
			}
		}
		if !wasFull {
			return
		}
	}
}

func used(page []byte, bucket int) int {
	n := 0
	for i := bucket * bucketSize; i < (bucket+1)*bucketSize; i++ {
		if getWord(page, i) != 0 {
			n++
		}
	}
	return n
}

// split divides the page of directory slot d by one more bit of its hashes, if the budget
// has a page for it.
func (x *index) split(d uint32, hashOf func(location) kv.Hash) bool {
	old := x.dir[d]
	depth := x.pages.depth[old]
	fresh, ok := x.pages.tryGet()
	if !ok {
		return false
	}
	x.splits++
	if depth == x.depth {
		x.dir = append(x.dir[:len(x.dir):len(x.dir)], x.dir...)
		x.depth++
		x.publish()
	}
	first := d % (x.base << depth)
	for i := first + x.base<<depth; i < uint32(len(x.dir)); i += x.base << (depth + 1) {
		x.dir[i] = fresh
	}
	x.pages.depth[old], x.pages.depth[fresh] = depth+1, depth+1

	var words [wordsAPage]word
	from, to := x.pages.bytes(old), x.pages.bytes(fresh)
	for i := range words {
		words[i] = getWord(from, i)
	}
	clear(from)
	moved := uint16(0)
	for _, w := range words {
		switch {
		case w == 0:
		case branch(hashOf(w.loc()))>>depth&1 == 1:
			insertWord(to, w)
			moved++
		default:
			insertWord(from, w)
		}
	}
	x.pages.fill[fresh] = moved
	x.pages.fill[old] -= moved
	return true
}

// merge joins the page of directory slot d with its buddy, if both are sparse.
func (x *index) merge(d uint32) {
	page := x.dir[d]
	depth := x.pages.depth[page]
	if depth == 0 {
		return
	}
	stride := x.base << (depth - 1)
	low := d % stride
	buddy := x.dir[low]
	if buddy == page {
		buddy = x.dir[low+stride]
	}
	if x.pages.depth[buddy] != depth || x.pages.fill[page]+x.pages.fill[buddy] >= mergeFill {
		return
	}
	from, to := x.pages.bytes(buddy), x.pages.bytes(page)
	for i := range wordsAPage {
		if w := getWord(from, i); w != 0 {
			insertWord(to, w)
		}
	}
	x.pages.fill[page] += x.pages.fill[buddy]
	x.pages.depth[page] = depth - 1
	for i := low; i < uint32(len(x.dir)); i += stride {
		x.dir[i] = page
	}
	x.pages.put(buddy)
	x.merges++
}

// canonical reports whether directory slot d is the first one of its page.
func (x *index) canonical(d int) bool {
	return uint32(d) < x.base<<x.pages.depth[x.dir[d]]
}
