package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Most keys are read once and never again. They must not push out those that are read often, so a new entry waits in
// a queue for admission, whose share of the segments each shard learns. An entry that is read twice there goes on to
// the main queue, and so does a new one whose key was evicted not long ago: the ghosts remember such keys. Both queues
// go round. An entry that was read stays for one more pass for each read, the others go. Doc.go names the algorithm.

const (
	promoteHits = 2 // hits in admission that lead to the main queue
	// To move what was read costs time, and frees nothing. So once patience evictions in a row made no segment free,
	// each frees at least 1/minGain of a segment, whatever was read: that ends after minGain+1 more.
	patience = 16
	minGain  = 4
)

// makeRoom frees at least one segment for the pool, and reports whether one is available. The shard that needs it
// gives one of its own. But large values take segments from all shards: a shard that has less than half its share
// gives none, and makeRoom takes from the shard that has most.
func (s *Store) makeRoom(sh *shard, now time.Duration) bool {
	if s.pool.available() {
		return true
	}
	if sh.freeOne(now, len(s.meta)/len(s.shards)) {
		return true
	}
	richest, most := sh, 0
	for _, other := range s.shards {
		if n := other.holds(); n > most {
			richest, most = other, n
		}
	}
	if richest.freeOne(now, 0) {
		return true
	}
	for _, other := range s.shards {
		if other.freeOne(now, 0) {
			return true
		}
	}
	return s.pool.available()
}

func (sh *shard) holds() int {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.held
}

// freeOne compacts or evicts until one of the shard's segments has gone back to the pool. It declines if the shard
// has less than half of share. Requests of the shard come in between: the lock is released after each segment.
func (sh *shard) freeOne(now time.Duration, share int) bool {
	before := sh.holds()
	if before*2 < share {
		return false
	}
	// Each pass over the queues takes one hit from every entry that stays. So after a
	// few passes something can be freed, unless everything is open or pinned.
	for n := range (maxHits + 2) * (before + 1) {
		if freed, more := sh.evictOne(now, n >= patience, before); freed || !more {
			return freed
		}
	}
	return false
}

// evictOne empties, or moves to the main queue, the segment or chain whose turn it is. It
// reports whether the shard now has fewer segments than before, and whether anything is
// left to evict.
func (sh *shard) evictOne(now time.Duration, pressed bool, before int) (freed, more bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch id, q := sh.victim(); {
	case id == noSegment:
		return sh.sealForRoom(now), false
	case sh.store.meta[id].state == stateChain:
		sh.evictChain(id, q, now)
	case sh.store.meta[id].sparse:
		sh.move(id, now, func(_ kv.Hash, _ header, hits int) (int, int, bool) { return q, hits, true })
		sh.n.Compactions++
	default:
		sh.evictSegment(id, q, now, pressed)
	}
	// The memory of the ghost table, and of its growth, comes from evicted segments.
	n := sh.index.count
	return sh.held < before && sh.ghosts.provide(n) && sh.lost.provide(n), true
}

// learn moves the share of admission when a key is written anew, and spends its ghost. A queue that dropped the key
// only lately was too short for it. Main takes half as much again, since it loses keys that were read already.
func (sh *shard) learn(k kv.Key, ghost []byte) {
	step := 0.0
	if ghost == nil {
		if ghost = sh.lost.find(k.Hash); ghost == nil {
			return
		}
		sh.n.Shorter++
		step = -1.5
	} else if sh.ghosts.fresh(ghost) {
		sh.n.Longer++
		step = 1
	}
	clear(ghost)
	if c := &sh.counts[k.Namespace]; c.part > 0 {
		before := c.lean
		c.lean = min(mostShare-firstShare, max(leastShare-firstShare, before+step/float64(sh.index.count)/c.part))
		sh.share += (c.lean - before) * c.part
	}
}

// weigh sets the parts that the namespaces have in the share: those of the hits that pass has seen lately. A namespace
// moves the share by its part of the range at most, and one without hits not at all, whatever it writes.
func (sh *shard) weigh() {
	sum := 0
	for i := range sh.counts {
		sum += sh.counts[i].hits
	}
	sh.hitsSeen, sh.share = sum/2, firstShare
	for i := range sh.counts {
		c := &sh.counts[i]
		c.part = float64(c.hits) / float64(max(sum, 1))
		c.hits /= 2
		sh.share += c.lean * c.part
	}
}

// victim returns the next segment to evict and its queue. A sparse segment comes first, since nothing of use is lost
// with it; of the first eight the emptiest. Else it is the oldest of the queue whose turn it is.
func (sh *shard) victim() (segmentID, int) {
	if id := sh.sparse.head; id != noSegment {
		for n, other := 0, id; n < 8 && other != noSegment; n++ {
			if sh.store.meta[other].live < sh.store.meta[id].live {
				id = other
			}
			other = sh.store.meta[other].sparseNext
		}
		return id, int(sh.store.meta[id].queue)
	}
	q := mainQueue
	if float64(sh.queues[admission].segments) >= max(1, sh.share*float64(sh.held)) {
		q = admission
	}
	if sh.queues[q].head == noSegment {
		q = 1 - q
	}
	return sh.queues[q].head, q
}

// sealForRoom gives up the fullest open segment. It is for a store of so few segments that the shard has no sealed one
// left.
func (sh *shard) sealForRoom(now time.Duration) bool {
	q, class, most := 0, -1, uint32(0)
	for i := range sh.open {
		for c, id := range sh.open[i] {
			if id != noSegment && sh.store.meta[id].used > most {
				q, class, most = i, c, sh.store.meta[id].used
			}
		}
	}
	if class < 0 {
		return false
	}
	id := sh.open[q][class]
	before := sh.held
	sh.seal(q, class)
	if sh.held == before {
		sh.expel(id, now)
	}
	return true
}

// evictChain evicts a chain as a whole: it is one entry. The chain goes to the main queue if it was hit.
func (sh *shard) evictChain(id segmentID, q int, now time.Duration) {
	loc := sh.store.locate(id, 0)
	hash := sh.store.hashAt(loc)
	at, w, ok := sh.index.findLocation(hash, loc)
	if !ok {
		panic("l2/segment: a queued chain is not in the index")
	}
	h := readHeader(sh.store.at(loc))
	if !sh.usable(h, hash.Partition(), now) {
		sh.countHidden(h, hash.Partition())
		sh.removeEntry(hash, at, w, h)
		return
	}
	to, hits, stays := sh.pass(hash, h.namespace, q, w.hits())
	if !stays {
		sh.n.SegmentEvictions++
		sh.countEvicted(hash, h)
		sh.removeEntry(hash, at, w, h)
		return
	}
	m := &sh.store.meta[id]
	sh.queues[q].remove(id)
	sh.queues[q].segments -= int(m.length)
	m.queue = uint8(to)
	sh.queues[to].push(id)
	sh.queues[to].segments += int(m.length)
	sh.index.setWord(at, w.withHits(hits))
}

// evictSegment drops the entries of a segment that were not hit, and moves the others on. If pressed, only as many as
// the gain allows.
func (sh *shard) evictSegment(id segmentID, q int, now time.Duration, pressed bool) {
	sh.n.SegmentEvictions++
	left := sh.store.cfg.SegmentSize
	if pressed {
		left -= left / minGain
	}
	sh.move(id, now, func(hash kv.Hash, h header, hits int) (to, hitsLeft int, stays bool) {
		if left < h.size() {
			hits = 0
		}
		if to, hitsLeft, stays = sh.pass(hash, h.namespace, q, hits); stays {
			left -= h.size()
		}
		return to, hitsLeft, stays
	})
}

// pass decides on an entry of queue q whose turn it is: whether it stays, where, and with how many hits.
func (sh *shard) pass(hash kv.Hash, ns kv.NamespaceID, q, hits int) (to, left int, stays bool) {
	sh.counts[ns].hits += hits
	if sh.hitsSeen += hits; sh.hitsSeen > sh.index.count/4 {
		sh.weigh()
	}
	switch {
	case q == admission && hits >= promoteHits:
		sh.n.Promoted++
		return mainQueue, 0, true
	case hits > 0:
		sh.n.Reinserted++
		return q, hits - 1, true
	case q == admission:
		sh.ghosts.drop(hash)
	default:
		sh.lost.drop(hash)
	}
	return 0, 0, false
}

// expel removes all entries left in a sealed segment or chain and frees it.
func (sh *shard) expel(id segmentID, now time.Duration) {
	s := sh.store
	if s.meta[id].state == stateChain {
		loc := s.locate(id, 0)
		hash := s.hashAt(loc)
		if at, w, ok := sh.index.findLocation(hash, loc); ok {
			h := readHeader(s.at(loc))
			sh.countGone(hash, h, now)
			sh.removeEntry(hash, at, w, h)
		}
		return
	}
	s.entries(id, func(off int, h header, b []byte) bool {
		hash := s.hash(h.namespace, h.key(b))
		if at, _, ok := sh.index.findLocation(hash, s.locate(id, off)); ok {
			sh.countGone(hash, h, now)
			sh.forget(hash, at, h)
		}
		return true
	})
	s.meta[id].live, s.meta[id].entries = 0, 0
	sh.free(id)
}

// countGone counts the removal of an entry: as evicted if it was still of use.
func (sh *shard) countGone(hash kv.Hash, h header, now time.Duration) {
	if sh.usable(h, hash.Partition(), now) {
		sh.countEvicted(hash, h)
	} else {
		sh.countHidden(h, hash.Partition())
	}
}
