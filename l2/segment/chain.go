package segment

import (
	"iter"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Entries longer than half a segment are chains of whole segments. Their values are
// written and read without the shard's lock.

// putChain takes the segments of a chain, fills them, and publishes the entry.
func (s *Store) putChain(sh *shard, k kv.Key, w *Write, now kv.Moment) (kv.Version, Result) {
	h := headerFor(&k, w)
	head, ok := s.takeChain(h, now)
	if !ok {
		sh.countNoRoom()
		return 0, NoRoom
	}
	s.fillChain(head, h, k, w)
	for range maxTries {
		sh.mu.Lock()
		v, r, short := sh.put(k, w, head, now)
		sh.mu.Unlock()
		switch {
		case short == nothingShort && r == Stored:
			return v, r
		case short == nothingShort:
			s.dropChain(head)
			return v, r
		}
		if !s.makeRoomFor(short, sh, k.Namespace, h.size(), now) {
			break
		}
	}
	s.dropChain(head)
	sh.countNoRoom()
	return 0, NoRoom
}

// takeChain takes as many segments as an entry needs. It evicts from the shards in turn,
// so that one large value does not empty the shard of its key.
func (s *Store) takeChain(h header, now kv.Moment) (segmentID, bool) {
	head, length := noSegment, uint32(0)
	for left := h.size(); left > 0; left -= s.cfg.SegmentSize {
		id, ok := s.pool.get()
		for tries := 0; !ok && tries < maxTries; tries++ {
			turn := int(s.turn.Add(1)) % len(s.shards)
			s.makeRoom(s.shards[turn], now.Boot)
			id, ok = s.pool.get()
		}
		if !ok {
			s.dropChain(head)
			return noSegment, false
		}
		length++
		s.meta[id] = segment{state: stateLink, chain: head}
		head = id
	}
	m := &s.meta[head]
	m.state, m.length = stateChain, length
	return head, true
}

// dropChain gives back a chain that no shard owns yet.
func (s *Store) dropChain(id segmentID) {
	for id != noSegment {
		next := s.meta[id].chain
		s.meta[id] = segment{}
		s.pool.put(id)
		id = next
	}
}

// fillChain writes attributes, key and value. The header is written when the entry is
// published, because the version is stamped then.
func (s *Store) fillChain(id segmentID, h header, k kv.Key, w *Write) {
	b := s.segmentBytes(id)
	h.writeAttributes(b, w.Attributes)
	copy(b[h.keyOffset():], k.Bytes)
	n := copy(b[h.keyOffset()+int(h.keyLen):], w.Value)
	for rest := w.Value[n:]; len(rest) > 0; rest = rest[n:] {
		id = s.meta[id].chain
		n = copy(s.segmentBytes(id), rest)
	}
}

// enqueueChain hands a filled chain to the shard, with its header.
func (sh *shard) enqueueChain(id segmentID, q, class int, h header) location {
	h.write(sh.store.segmentBytes(id))
	m := &sh.store.meta[id]
	m.queue, m.class = uint8(q), uint8(class)
	m.used = uint32(h.size())
	sh.n.used += int64(h.size())
	sh.held += int(m.length)
	sh.queues[q].segments += int(m.length)
	sh.queues[q].push(id)
	sh.n.Chains++
	return sh.store.locate(id, 0)
}

// appendChain appends the value of a chain to dst. The chain must be pinned, so that it
// is not freed.
func (s *Store) appendChain(dst []byte, id segmentID, h header) []byte {
	dst = growBy(dst, h.valueLen)
	for part := range s.parts(id, h) {
		dst = append(dst, part...)
	}
	return dst
}

// parts yields the value of a chain in order. The chain must be pinned.
func (s *Store) parts(id segmentID, h header) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		part := s.segmentBytes(id)[h.keyOffset()+int(h.keyLen):]
		for left := h.valueLen; ; part = s.segmentBytes(id) {
			part = part[:min(left, len(part))]
			if left -= len(part); !yield(part) || left == 0 {
				return
			}
			id = s.meta[id].chain
		}
	}
}

// growBy makes room for n more bytes with one allocation.
func growBy(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	grown := make([]byte, len(b), len(b)+n+512)
	copy(grown, b)
	return grown
}

// unpin ends a read of a segment or a chain. The last reader of one without entries frees it.
func (sh *shard) unpin(id segmentID) {
	m := &sh.store.meta[id]
	m.pins--
	if m.pins == 0 && m.state == stateZombie {
		sh.giveBack(id)
	}
}
