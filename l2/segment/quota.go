package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// A namespace with a quota keeps, per shard, the hashes of its keys in the order of their
// first write. If the namespace is over its quota, its oldest keys are removed and no
// keys of other namespaces. A key that was hit lately is passed over and loses one hit.

// quotaQueue is a FIFO of marks, in pages. A mark stands for one entry. It is the hash of
// the entry with its birth in place of the lowest bits, which all hashes of the shard
// have in common. Births are counted modulo 256, so that the mark of a removed key is not
// taken for the mark of a later one, be it the same key or another one of the same hash.
type quotaQueue struct {
	pages *pages
	held  []pageID // oldest first
	head  int      // position in the first page, for reads
	tail  int      // position in the last page, for writes
	len   int
	born  uint8 // births so far, modulo 256
}

// mark is an element of a quotaQueue.
type mark uint64

const birthBits = 8

func markOf(h kv.Hash, birth uint8) mark { return mark(h)>>birthBits<<birthBits | mark(birth) }

func (qq *quotaQueue) push(m mark) {
	if len(qq.held) == 0 || qq.tail == wordsAPage {
		qq.held = append(qq.held, qq.pages.get())
		qq.tail = 0
	}
	putWord(qq.pages.bytes(qq.held[len(qq.held)-1]), qq.tail, word(m))
	qq.tail++
	qq.len++
}

func (qq *quotaQueue) pop() mark {
	m := mark(getWord(qq.pages.bytes(qq.held[0]), qq.head))
	qq.head++
	qq.len--
	if qq.head == wordsAPage || qq.len == 0 {
		qq.pages.put(qq.held[0])
		qq.held = qq.held[1:]
		qq.head = 0
	}
	return m
}

// meter begins to count a namespace's bytes in this shard against its quota, those of the
// entries that are there included, or ends it. Whether they are counted changes under the
// shard's lock only, and not with the quota: an entry is taken off by the rule by which it
// was added.
func (sh *shard) meter(ns kv.NamespaceID, on bool) (begun bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c, n := &sh.counts[ns], &sh.store.namespaces[ns]
	if c.metered == on {
		return false
	}
	c.metered = on
	if on {
		n.bytes.Add(c.all)
		return true
	}
	n.bytes.Add(-c.all)
	if q := sh.quotas[ns]; q != nil {
		sh.store.pages.putAll(q.held)
		delete(sh.quotas, ns)
	}
	return false
}

// markPage queues the entries of a namespace in the page of directory slot d. An entry that
// is queued already gets a new mark; its old one is then like that of a removed key. It
// reports whether the slot exists.
func (sh *shard) markPage(ns kv.NamespaceID, d int) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	x := sh.index
	if d >= len(x.dir) || !sh.counts[ns].metered {
		return false
	}
	if !x.canonical(d) {
		return true
	}
	page := x.pages.bytes(x.dir[d])
	for i := range wordsAPage {
		w := getWord(page, i)
		if w == 0 {
			continue
		}
		b := sh.store.at(w.loc())
		if h := readHeader(b); h.namespace == ns {
			b[offBirth] = sh.birth(ns)
			sh.queueMark(ns, sh.store.hash(ns, h.key(b)), b[offBirth])
		}
	}
	return true
}

// Meter prepares a namespace for a quota: its bytes are counted from now on, and its keys
// stand in the order in which they are to be removed. The order of those that are there
// already is that of the index. The lock of a shard is held for one page of the index.
func (s *Store) Meter(ns kv.NamespaceID) {
	for _, sh := range s.shards {
		if !sh.meter(ns, true) {
			continue
		}
		sh.hold(1)
		for d := 0; sh.markPage(ns, d); d++ {
		}
		sh.hold(-1)
	}
}

// Shrink removes a namespace's oldest keys, of all shards alike, until it fits its quota.
func (s *Store) Shrink(ns kv.NamespaceID, now time.Duration) {
	for some := true; some && !s.fitsQuota(ns, 0); {
		some = false
		for _, sh := range s.shards {
			some = sh.evictMarked(ns, 0, now) || some
		}
	}
}

// reserve takes size bytes of the quota for a write and reports whether the quota allows
// it. The write replaces an entry of replaced bytes, which are given back when that entry
// is dead.
func (sh *shard) reserve(ns kv.NamespaceID, size, replaced int64) bool {
	if !sh.counts[ns].metered {
		return true
	}
	n := &sh.store.namespaces[ns]
	quota := n.quota.Load()
	if n.bytes.Add(size)-replaced > quota && size > replaced && quota > 0 {
		n.bytes.Add(-size)
		return false
	}
	return true
}

func (sh *shard) release(ns kv.NamespaceID, size int64) {
	if sh.counts[ns].metered {
		sh.store.namespaces[ns].bytes.Add(-size)
	}
}

// birth returns the birth of the next key of a namespace, or zero without a quota.
func (sh *shard) birth(ns kv.NamespaceID) uint8 {
	if !sh.counts[ns].metered {
		return 0
	}
	if q := sh.quotas[ns]; q != nil {
		return q.born + 1
	}
	return 1
}

// noteQuota queues a key that is new in a namespace with a quota.
func (sh *shard) noteQuota(k kv.Key, birth uint8, known bool) {
	if !known && sh.counts[k.Namespace].metered {
		sh.queueMark(k.Namespace, k.Hash, birth)
	}
}

func (sh *shard) queueMark(ns kv.NamespaceID, hash kv.Hash, birth uint8) {
	q := sh.quotas[ns]
	if q == nil {
		if sh.quotas == nil {
			sh.quotas = make(map[kv.NamespaceID]*quotaQueue)
		}
		q = &quotaQueue{pages: sh.store.pages}
		sh.quotas[ns] = q
	}
	// Removed keys leave their marks behind. If the queue has more marks than twice
	// the keys, each push looks at two old marks and drops those of removed keys.
	for i := 0; i < 2 && q.len > 2*int(sh.counts[ns].entries)+64; i++ {
		m := q.pop()
		if _, _, _, _, there := sh.marked(ns, m); there {
			q.push(m)
		}
	}
	q.born = birth
	q.push(markOf(hash, birth))
}

// marked finds the entry that a mark stands for.
func (sh *shard) marked(ns kv.NamespaceID, m mark) (kv.Hash, slot, word, header, bool) {
	x := sh.index
	near := kv.Hash(m>>birthBits<<birthBits) | kv.Hash(sh.id) // finds the same words
	page := x.dir[x.dirSlot(near)]
	for at, w, ok := x.probe(near, -1, page); ok; at, w, ok = x.probe(near, at.at, page) {
		b := sh.store.at(w.loc())
		if h := readHeader(b); h.namespace == ns && h.birth == uint8(m) {
			if hash := sh.store.hash(ns, h.key(b)); markOf(hash, h.birth) == m {
				return hash, at, w, h, true
			}
		}
	}
	return 0, slot{}, 0, header{}, false
}

// makeQuota removes a namespace's oldest keys, first in the shard that writes, until size
// bytes fit. It reports whether they do.
func (s *Store) makeQuota(first *shard, ns kv.NamespaceID, size int64, now time.Duration) bool {
	for i := range s.shards {
		sh := s.shards[(int(first.id)+i)%len(s.shards)]
		if sh.evictNamespace(ns, size, now) {
			return true
		}
	}
	return s.fitsQuota(ns, size)
}

func (s *Store) fitsQuota(ns kv.NamespaceID, size int64) bool {
	n := &s.namespaces[ns]
	quota := n.quota.Load()
	return quota == 0 || n.bytes.Load()+size <= quota
}

// quotaStep is how many marks are looked at under one hold of the lock.
const quotaStep = 64

// evictNamespace removes keys of one namespace, oldest first, until size bytes fit or the
// shard has no more keys. It reports whether they fit.
func (sh *shard) evictNamespace(ns kv.NamespaceID, size int64, now time.Duration) bool {
	// Each round takes one hit from every key.
	for rounds := (maxHits + 2) * (sh.marks(ns)/quotaStep + 1); rounds > 0; rounds-- {
		if !sh.evictMarked(ns, size, now) {
			break
		}
	}
	return sh.store.fitsQuota(ns, size)
}

func (sh *shard) marks(ns kv.NamespaceID) int {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if q := sh.quotas[ns]; q != nil {
		return q.len
	}
	return 0
}

// evictMarked looks at the next marks and reports whether to go on.
func (sh *shard) evictMarked(ns kv.NamespaceID, size int64, now time.Duration) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	q := sh.quotas[ns]
	for range quotaStep {
		if q == nil || q.len == 0 || sh.store.fitsQuota(ns, size) {
			return false
		}
		m := q.pop()
		hash, at, w, h, ok := sh.marked(ns, m)
		switch {
		case !ok:
		case !sh.usable(h, hash.Partition(), now):
			sh.countHidden(h, hash.Partition())
			sh.removeEntry(hash, at, w, h)
		case w.hits() > 0:
			sh.index.setWord(at, w.withHits(w.hits()-1))
			q.push(m)
		default:
			sh.n.QuotaEvicted++
			sh.counts[ns].over++
			sh.store.rememberCopied(hash, h)
			sh.removeEntry(hash, at, w, h)
		}
	}
	return true
}
