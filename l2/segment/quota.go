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

func (q *quotaQueue) push(m mark) {
	if len(q.held) == 0 || q.tail == wordsAPage {
		q.held = append(q.held, q.pages.get())
		q.tail = 0
	}
	putWord(q.pages.bytes(q.held[len(q.held)-1]), q.tail, word(m))
	q.tail++
	q.len++
}

func (q *quotaQueue) pop() mark {
	m := mark(getWord(q.pages.bytes(q.held[0]), q.head))
	q.head++
	q.len--
	if q.head == wordsAPage || q.len == 0 {
		q.pages.put(q.held[0])
		q.held = q.held[1:]
		q.head = 0
	}
	return m
}

// reserve takes size bytes of the quota for a write and reports whether the quota allows
// it. The write replaces an entry of replaced bytes, which are given back when that entry
// is dead.
func (n *namespace) reserve(size, replaced int64) bool {
	quota := n.quota.Load()
	if quota == 0 {
		return true
	}
	if n.bytes.Add(size)-replaced > quota && size > replaced {
		n.bytes.Add(-size)
		return false
	}
	return true
}

func (n *namespace) release(size int64) {
	if n.quota.Load() > 0 {
		n.bytes.Add(-size)
	}
}

// birth returns the birth of the next key of a namespace, or zero without a quota.
func (sh *shard) birth(ns kv.NamespaceID) uint8 {
	if sh.store.namespaces[ns].quota.Load() == 0 {
		return 0
	}
	if q := sh.quotas[ns]; q != nil {
		return q.born + 1
	}
	return 1
}

// noteQuota queues a key that is new in a namespace with a quota.
func (sh *shard) noteQuota(k kv.Key, birth uint8, known bool) {
	if known || sh.store.namespaces[k.Namespace].quota.Load() == 0 {
		return
	}
	q := sh.quotas[k.Namespace]
	if q == nil {
		if sh.quotas == nil {
			sh.quotas = make(map[kv.NamespaceID]*quotaQueue)
		}
		q = &quotaQueue{pages: sh.store.pages}
		sh.quotas[k.Namespace] = q
	}
	// Removed keys leave their marks behind. If the queue has more marks than twice
	// the keys, each push looks at two old marks and drops those of removed keys.
	for i := 0; i < 2 && q.len > 2*int(sh.counts[k.Namespace].entries)+64; i++ {
		m := q.pop()
		if _, _, _, _, there := sh.marked(k.Namespace, m); there {
			q.push(m)
		}
	}
	q.born = birth
	q.push(markOf(k.Hash, birth))
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
	return n.bytes.Load()+size <= n.quota.Load()
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
		case !sh.kept(h, hash.Partition(), now):
			sh.countHidden(h, hash.Partition())
			sh.removeEntry(hash, at, w, h)
		case w.hits() > 0:
			sh.index.setWord(at, w.withHits(w.hits()-1))
			q.push(m)
		default:
			sh.n.quotaEvicted++
			sh.removeEntry(hash, at, w, h)
		}
	}
	return true
}
