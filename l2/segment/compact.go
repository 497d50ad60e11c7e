package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// move empties a sealed segment. The entries that keep chooses go, with the hits that it
// returns, to the open segment of the queue that it returns and of the segment's class. If
// that one fills up, the emptied segment itself becomes the open one, so moving never needs
// another segment. What then has no room in another queue goes along.
func (sh *shard) move(id segmentID, now time.Duration, keep func(kv.Hash, header, int) (q, hits int, stays bool)) {
	s := sh.store
	class := int(s.meta[id].class)
	rest := squeezed{id: id}
	sh.sparse.remove(id)
	s.entries(id, func(off int, h header, b []byte) bool {
		loc := s.locate(id, off)
		hash := s.hash(h.namespace, h.key(b))
		at, w, ok := sh.index.findLocation(hash, loc)
		if !ok {
			return true // dead already
		}
		if !sh.usable(h, hash.Partition(), now) {
			sh.countHidden(h, hash.Partition())
			sh.forget(hash, at, h)
			return true
		}
		q, hits, stays := keep(hash, h, w.hits())
		if !stays {
			sh.countEvicted(hash, h)
			sh.forget(hash, at, h)
			return true
		}
		to := noSegment
		if rest.entries == 0 || rest.q != q {
			to = sh.openFor(q, class, len(b))
		}
		if to == noSegment && rest.entries == 0 {
			rest.q = q
		}
		if to == noSegment {
			loc = rest.add(s, h, b)
		} else {
			loc = sh.appendMoved(to, h, b)
		}
		sh.index.setWord(at, w.withLoc(loc).withHits(hits))
		return true
	})
	s.meta[id].live, s.meta[id].entries = 0, 0
	if rest.entries == 0 {
		sh.free(id)
		return
	}
	sh.reopen(rest, class)
}

// appendMoved copies an entry to the end of an open segment that has room for it.
func (sh *shard) appendMoved(to segmentID, h header, b []byte) location {
	m := &sh.store.meta[to]
	off := int(m.used)
	copy(sh.store.segmentBytes(to)[off:], b)
	m.used += uint32(len(b))
	m.live += uint32(len(b))
	m.entries++
	m.last = max(m.last, sh.store.due(h))
	sh.n.used += int64(len(b))
	return sh.store.locate(to, off)
}

// squeezed are the entries of a segment that stay in it, moved to its beginning.
type squeezed struct {
	id      segmentID
	q       int    // the queue that they go to
	fill    uint32 // bytes
	entries uint32
	last    kv.Deadline
}

// add moves an entry leftwards, so nothing unread is overwritten.
func (sq *squeezed) add(s *Store, h header, b []byte) location {
	loc := s.locate(sq.id, int(sq.fill))
	copy(s.segmentBytes(sq.id)[sq.fill:], b)
	sq.fill += uint32(len(b))
	sq.entries++
	sq.last = max(sq.last, s.due(h))
	return loc
}

// reopen makes the segment of squeezed entries the open one of their queue and a class.
func (sh *shard) reopen(rest squeezed, class int) {
	m, q := &sh.store.meta[rest.id], rest.q
	sh.queues[m.queue].remove(rest.id)
	sh.queues[m.queue].segments--
	sh.n.used -= int64(m.used) - int64(rest.fill)
	sh.held--
	if at := sh.openClass(q, class); at >= 0 {
		sh.seal(q, at)
	}
	sh.start(rest.id, q, class)
	m.used, m.live, m.entries, m.last = rest.fill, rest.fill, rest.entries, rest.last
	sh.nextExpiry = min(sh.nextExpiry, rest.last)
}

// openFor returns an open segment with room, without asking the pool.
func (sh *shard) openFor(q, class, size int) segmentID {
	at := sh.openClass(q, class)
	if at < 0 {
		return noSegment
	}
	id := sh.open[q][at]
	if int(sh.store.meta[id].used)+size > sh.store.cfg.SegmentSize {
		return noSegment
	}
	return id
}

// forget takes an entry of a segment that is being emptied out of the index and the
// accounts. The segment's own numbers are set when it is empty.
func (sh *shard) forget(hash kv.Hash, at slot, h header) {
	sh.index.remove(hash, at)
	sh.unaccount(h)
}
