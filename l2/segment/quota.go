package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// A namespace with a quota keeps, per shard, the hashes of its keys in the
// order of their first write. When it is over its quota, its oldest keys go
// (what was hit lately is passed over, one hit less), and nobody else's.

// quotaQueue is a FIFO of hashes, possibly of keys that are gone, in pages.
type quotaQueue struct {
	pages *pages
	held  []pageID // oldest first
	head  int      // read from the first page
	tail  int      // written to the last page
	len   int
}

func (q *quotaQueue) push(h kv.Hash) {
	if len(q.held) == 0 || q.tail == wordsAPage {
		q.held = append(q.held, q.pages.get())
		q.tail = 0
	}
	putWord(q.pages.bytes(q.held[len(q.held)-1]), q.tail, word(h))
	q.tail++
	q.len++
}

func (q *quotaQueue) pop() kv.Hash {
	h := kv.Hash(getWord(q.pages.bytes(q.held[0]), q.head))
	q.head++
	q.len--
	if q.head == wordsAPage || q.len == 0 {
		q.pages.put(q.held[0])
		q.held = q.held[1:]
		q.head = 0
	}
	return h
}

// reserve takes size bytes of the quota for a write that replaces an entry of
// replaced bytes, which are given back when that one is dead.
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

// noteQuota queues a key that has come into a namespace with a quota.
func (sh *shard) noteQuota(k kv.Key, known bool) {
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
	// Keys that are gone leave their hash behind: past twice the keys there
	// are, each push looks at two old ones and drops those.
	for i := 0; i < 2 && q.len > 2*int(sh.counts[k.Namespace].entries)+64; i++ {
		if h := q.pop(); sh.namespaceHas(k.Namespace, h) {
			q.push(h)
		}
	}
	q.push(k.Hash)
}

// byHash finds an entry of a namespace by its hash alone.
func (sh *shard) byHash(ns kv.NamespaceID, hash kv.Hash) (slot, word, header, bool) {
	x := sh.index
	page := x.dir[x.dirSlot(hash)]
	at, w, ok := x.probe(hash, -1, page)
	for ok {
		b := sh.store.at(w.loc())
		if h := readHeader(b); h.namespace == ns && sh.store.hash(ns, h.key(b)) == hash {
			return at, w, h, true
		}
		at, w, ok = x.probe(hash, at.at, page)
	}
	return slot{}, 0, header{}, false
}

func (sh *shard) namespaceHas(ns kv.NamespaceID, hash kv.Hash) bool {
	_, _, _, ok := sh.byHash(ns, hash)
	return ok
}

// makeQuota removes a namespace's oldest keys, first in the shard that writes,
// until size bytes fit. It says whether they do.
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

// evictNamespace removes keys of one namespace, oldest first, until size bytes
// fit or the shard has none left.
func (sh *shard) evictNamespace(ns kv.NamespaceID, size int64, now time.Duration) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	q := sh.quotas[ns]
	if q == nil {
		return false
	}
	for q.len > 0 && !sh.store.fitsQuota(ns, size) {
		hash := q.pop()
		at, w, h, ok := sh.byHash(ns, hash)
		switch {
		case !ok:
		case !sh.kept(h, hash.Partition(), now):
			sh.countHidden(h, hash.Partition())
			sh.removeEntry(hash, at, w, h)
		case w.hits() > 0:
			sh.index.setWord(at, w.withHits(w.hits()-1))
			q.push(hash)
		default:
			sh.n.quotaEvicted++
			sh.removeEntry(hash, at, w, h)
		}
	}
	return sh.store.fitsQuota(ns, size)
}
