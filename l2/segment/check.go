package segment

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// check verifies that all structures of an idle store agree: index, segments, queues,
// accounts and pool. It is for the end of tests.
func (s *Store) check() error {
	held, pageCount := 0, 0
	var nsBytes [kv.MaxNamespaces]int64
	for _, sh := range s.shards {
		sh.mu.Lock()
		err := sh.check(&nsBytes)
		held += sh.held
		pageCount += len(sh.ghosts.held)
		for _, q := range sh.quotas {
			pageCount += len(q.held)
		}
		for d := range sh.index.dir {
			if sh.index.canonical(d) {
				pageCount++
			}
		}
		sh.mu.Unlock()
		if err != nil {
			return fmt.Errorf("shard %d: %w", sh.id, err)
		}
	}
	for id := range s.namespaces {
		if n := &s.namespaces[id]; n.quota.Load() > 0 {
			if n.bytes.Load() != nsBytes[id] {
				return fmt.Errorf("namespace %d: %d bytes on the quota account, %d in entries", id, n.bytes.Load(), nsBytes[id])
			}
			if n.bytes.Load() > n.quota.Load() {
				return fmt.Errorf("namespace %d: %d bytes are over the quota of %d", id, n.bytes.Load(), n.quota.Load())
			}
		}
	}
	used, free, _ := s.pool.counts()
	if used != held {
		return fmt.Errorf("the pool has handed out %d segments, the shards hold %d", used, held)
	}
	if used+free != len(s.meta) {
		return fmt.Errorf("%d segments used, %d free, of %d", used, free, len(s.meta))
	}
	if out := int(s.pages.next) - len(s.pages.free); out != pageCount {
		return fmt.Errorf("%d pages are out, %d are in use", out, pageCount)
	}
	return nil
}

// tally is what check finds in the index about one segment.
type tally struct {
	live, entries uint32
	last          kv.Deadline
}

// checkQuotas verifies that a namespace's queue has a mark for each of its entries.
func (sh *shard) checkQuotas(marks map[kv.NamespaceID]map[mark]int) error {
	for ns, q := range sh.quotas {
		for range q.len {
			m := q.pop()
			marks[ns][m]--
			q.push(m)
		}
		for m, n := range marks[ns] {
			if n > 0 {
				return fmt.Errorf("namespace %d: %d entries have no mark %#x in the queue", ns, n, m)
			}
		}
	}
	return nil
}

func (sh *shard) check(nsBytes *[kv.MaxNamespaces]int64) error {
	s := sh.store
	found := map[segmentID]*tally{}
	var n counters
	var counts [kv.MaxNamespaces]nsCount
	marks := map[kv.NamespaceID]map[mark]int{}
	for ns := range sh.quotas {
		marks[ns] = map[mark]int{}
	}
	words := 0
	if slots := len(sh.index.dir); slots > int(sh.index.base) && slots*splitFill/4 > sh.index.most {
		return fmt.Errorf("a directory of %d slots for %d words", slots, sh.index.most)
	}
	for d := range sh.index.dir {
		if !sh.index.canonical(d) {
			continue
		}
		page := sh.index.dir[d]
		fill := 0
		ofHash := map[kv.Hash]int{}
		for i := range wordsAPage {
			w := sh.index.word(slot{page, i})
			if w == 0 {
				continue
			}
			fill++
			if err := sh.checkWord(d, i, w); err != nil {
				return err
			}
			hash := s.hashAt(w.loc())
			if ofHash[hash]++; ofHash[hash] > maxAlike {
				return fmt.Errorf("%d words of hash %#x", ofHash[hash], uint64(hash))
			}
			seg, off := s.split(w.loc())
			m := &s.meta[seg]
			if off+headerSize > int(m.used) {
				return fmt.Errorf("word %d of page %d points past the end of segment %d", i, page, seg)
			}
			h := readHeader(s.at(w.loc()))
			t := found[seg]
			if t == nil {
				t = &tally{}
				found[seg] = t
			}
			t.live += uint32(h.size())
			t.entries++
			t.last = max(t.last, s.due(h))
			n.live += int64(h.size())
			n.payload += int64(h.payload())
			n.headers += int64(h.keyOffset())
			if h.negative() {
				n.negative++
			}
			nsBytes[h.namespace] += int64(h.size())
			if of := marks[h.namespace]; of != nil {
				of[markOf(hash, h.birth)]++
			}
			if c := &counts[h.namespace]; h.version < sh.counts[h.namespace].moved {
				c.hidden++
			} else {
				c.entries++
				c.bytes += int64(h.size())
			}
		}
		if fill != int(sh.index.pages.fill[page]) {
			return fmt.Errorf("page %d: fill %d, %d words", page, sh.index.pages.fill[page], fill)
		}
		if fill > fullFill {
			return fmt.Errorf("page %d: %d words, at most %d may be", page, fill, fullFill)
		}
		words += fill
	}
	if words != sh.index.count {
		return fmt.Errorf("index count %d, %d words", sh.index.count, words)
	}
	if in, out := sh.n.admitted+sh.n.ghostHits, sh.n.expired+sh.n.flushed+sh.n.evicted+sh.n.quotaEvicted+sh.n.deleted; in-out != int64(words) {
		return fmt.Errorf("%d entries came, %d went by some reason, %d are there", in, out, words)
	}
	if n.live != sh.n.live || n.payload != sh.n.payload || n.headers != sh.n.headers || n.negative != sh.n.negative {
		return fmt.Errorf("accounts: live %d payload %d headers %d negative %d; in entries %d, %d, %d, %d",
			sh.n.live, sh.n.payload, sh.n.headers, sh.n.negative, n.live, n.payload, n.headers, n.negative)
	}
	for ns, c := range counts {
		if got := sh.counts[ns]; got.entries != c.entries || got.bytes != c.bytes || got.hidden != c.hidden {
			return fmt.Errorf("namespace %d: account %+v, entries say %+v", ns, got, c)
		}
	}
	if err := sh.checkQuotas(marks); err != nil {
		return err
	}
	return sh.checkSegments(found)
}

// checkWord verifies that a probe for an entry finds its word.
func (sh *shard) checkWord(d, i int, w word) error {
	hash := sh.store.hashAt(w.loc())
	if sh.store.shard(hash) != sh {
		return fmt.Errorf("an entry of hash %#x is in the wrong shard", uint64(hash))
	}
	if makeWord(hash, 0, 0).tag() != w.tag() {
		return fmt.Errorf("word %d of slot %d has the wrong tag", i, d)
	}
	if at, _, ok := sh.index.findLocation(hash, w.loc()); !ok || at.at != i {
		return fmt.Errorf("a probe does not find word %d of slot %d", i, d)
	}
	return nil
}

// checkSegments verifies queues, open segments and the numbers of each segment.
func (sh *shard) checkSegments(found map[segmentID]*tally) error {
	s := sh.store
	held, used := 0, int64(0)
	one := func(id segmentID, want ...state) error {
		m := &s.meta[id]
		t := found[id]
		if t == nil {
			t = &tally{}
		}
		delete(found, id)
		held += int(m.length)
		used += int64(m.used)
		okState := false
		for _, st := range want {
			okState = okState || m.state == st
		}
		switch {
		case !okState:
			return fmt.Errorf("segment %d is in state %d", id, m.state)
		case m.live != t.live || m.entries != t.entries:
			return fmt.Errorf("segment %d (state %d): live %d in %d entries; the index has %d in %d", id, m.state, m.live, m.entries, t.live, t.entries)
		case m.last < t.last:
			return fmt.Errorf("segment %d: last deadline %d, an entry has %d", id, m.last, t.last)
		case m.entries > 0 && sh.nextExpiry > m.last:
			return fmt.Errorf("segment %d is due at %d, before the shard's next expiry %d", id, m.last, sh.nextExpiry)
		case m.state == stateSealed && (int(m.live)*2 < s.cfg.SegmentSize) != m.sparse:
			return fmt.Errorf("segment %d: live %d, sparse %v", id, m.live, m.sparse)
		case m.state != stateOpen && m.entries == 0:
			return fmt.Errorf("segment %d is sealed, dead and not freed", id)
		case m.pins != 0:
			return fmt.Errorf("segment %d is pinned by nobody", id)
		}
		links := uint32(1)
		for c := m.chain; c != noSegment; c = s.meta[c].chain {
			if s.meta[c].state != stateLink {
				return fmt.Errorf("segment %d of a chain is in state %d", c, s.meta[c].state)
			}
			links++
		}
		if links != m.length {
			return fmt.Errorf("segment %d: length %d, %d links", id, m.length, links)
		}
		return nil
	}
	for q := range sh.queues {
		before, prev := held, noSegment
		for id := sh.queues[q].head; id != noSegment; id = s.meta[id].next {
			if s.meta[id].prev != prev || int(s.meta[id].queue) != q {
				return fmt.Errorf("queue %d: segment %d is linked wrongly", q, id)
			}
			if err := one(id, stateSealed, stateChain); err != nil {
				return err
			}
			prev = id
		}
		if sh.queues[q].tail != prev {
			return fmt.Errorf("queue %d: tail is %d, last is %d", q, sh.queues[q].tail, prev)
		}
		opened := 0
		for _, id := range sh.open[q] {
			if id == noSegment {
				continue
			}
			opened++
			if err := one(id, stateOpen); err != nil {
				return err
			}
		}
		if opened != sh.opened[q] || opened > s.maxOpen() {
			return fmt.Errorf("queue %d: %d open, account %d, cap %d", q, opened, sh.opened[q], s.maxOpen())
		}
		if held-before != sh.queues[q].segments {
			return fmt.Errorf("queue %d: %d segments, account %d", q, held-before, sh.queues[q].segments)
		}
	}
	if len(found) > 0 {
		return fmt.Errorf("the index points into %d segments that the shard does not hold", len(found))
	}
	if held != sh.held || used != sh.n.used {
		return fmt.Errorf("%d segments and %d bytes used, accounts %d and %d", held, used, sh.held, sh.n.used)
	}
	return nil
}
