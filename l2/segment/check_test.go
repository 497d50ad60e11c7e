package segment

import (
	"fmt"
	"math"
	"slices"

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
		pageCount += len(sh.ghosts.held) + len(sh.lost.held)
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
				return fmt.Errorf("namespace %d: %d bytes on the quota account, %d in entries",
					id, n.bytes.Load(), nsBytes[id])
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

// tally is what the index has of one segment.
type tally struct {
	live, entries uint32
	last          kv.Deadline
}

// audit compares a shard's structures with the entries that its index points to.
type audit struct {
	*shard
	nsBytes *[kv.MaxNamespaces]int64 // bytes of entries, of all shards

	words  int
	found  map[segmentID]*tally
	n      counters
	counts [kv.MaxNamespaces]nsCount
	marks  map[kv.NamespaceID]map[mark]int // of entries, for each queue of a quota

	// Of segments.
	held int
	used int64
}

func (sh *shard) check(nsBytes *[kv.MaxNamespaces]int64) error {
	var evicted, over int64
	for i := range sh.counts {
		evicted, over = evicted+sh.counts[i].evicted, over+sh.counts[i].over
	}
	if evicted != sh.n.Evicted || over != sh.n.QuotaEvicted {
		return fmt.Errorf("namespaces count %d entries evicted and %d over quota, the shard %d and %d",
			evicted, over, sh.n.Evicted, sh.n.QuotaEvicted)
	}
	if err := sh.checkShare(); err != nil {
		return err
	}
	a := &audit{
		shard: sh, nsBytes: nsBytes,
		found: map[segmentID]*tally{}, marks: map[kv.NamespaceID]map[mark]int{},
	}
	for ns := range sh.quotas {
		a.marks[ns] = map[mark]int{}
	}
	for _, step := range []func() error{a.index, a.accounts, a.quotas, a.segments} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// checkShare verifies that the share of admission is that of all namespaces' lessons.
func (sh *shard) checkShare() error {
	share, hits := firstShare, 0
	for i := range sh.counts {
		share += sh.counts[i].lean * sh.counts[i].part
		hits += sh.counts[i].hits
	}
	if math.Abs(share-sh.share) > 1e-6 || share < leastShare-1e-6 || share > mostShare+1e-6 || hits > sh.hitsSeen {
		return fmt.Errorf("share %v, %d hits seen; by namespaces %v and %d", sh.share, sh.hitsSeen, share, hits)
	}
	return nil
}

// index reads all words of the index.
func (a *audit) index() error {
	x := a.shard.index
	if slots := len(x.dir); slots > int(x.base) && slots*splitFill/4 > x.maxWords {
		return fmt.Errorf("a directory of %d slots for %d words", slots, x.maxWords)
	}
	for d := range x.dir {
		if x.canonical(d) {
			if err := a.page(d); err != nil {
				return err
			}
		}
	}
	if a.words != x.count {
		return fmt.Errorf("index count %d, %d words", x.count, a.words)
	}
	return nil
}

// page reads the words of a page.
func (a *audit) page(d int) error {
	x := a.shard.index
	page, fill := x.dir[d], 0
	ofHash := map[kv.Hash]int{}
	for i := range wordsAPage {
		w := x.word(slot{page, i})
		if w == 0 {
			continue
		}
		fill++
		if err := a.checkWord(d, i, w); err != nil {
			return err
		}
		hash := a.store.hashAt(w.loc())
		if ofHash[hash]++; ofHash[hash] > maxAlike {
			return fmt.Errorf("%d words of hash %#x", ofHash[hash], uint64(hash))
		}
		if err := a.entry(hash, w); err != nil {
			return fmt.Errorf("word %d of page %d: %w", i, page, err)
		}
	}
	if fill != int(x.pages.fill[page]) {
		return fmt.Errorf("page %d: fill %d, %d words", page, x.pages.fill[page], fill)
	}
	if fill > fullFill {
		return fmt.Errorf("page %d: %d words, at most %d may be", page, fill, fullFill)
	}
	a.words += fill
	return nil
}

// entry adds an entry to the sums.
func (a *audit) entry(hash kv.Hash, w word) error {
	seg, off := a.store.split(w.loc())
	if off+headerSize > int(a.store.meta[seg].used) {
		return fmt.Errorf("it points past the end of segment %d", seg)
	}
	h := readHeader(a.store.at(w.loc()))
	t := a.found[seg]
	if t == nil {
		t = &tally{}
		a.found[seg] = t
	}
	t.live += uint32(h.size())
	t.entries++
	t.last = max(t.last, a.store.due(h))
	a.n.live += int64(h.size())
	a.n.payload += int64(h.payload())
	a.n.headers += int64(h.keyOffset())
	if h.negative() {
		a.n.negative++
	}
	a.nsBytes[h.namespace] += int64(h.size())
	if of := a.marks[h.namespace]; of != nil {
		of[markOf(hash, h.birth)]++
	}
	c := &a.counts[h.namespace]
	c.all += int64(h.size())
	if h.version < a.shard.counts[h.namespace].moved {
		c.hidden++
	} else {
		c.entries++
		c.bytes += int64(h.size())
	}
	return nil
}

// accounts compares the shard's accounts with the sums.
func (a *audit) accounts() error {
	n := &a.shard.n
	gone := n.Expired + n.Flushed + n.Moved + n.Evicted + n.QuotaEvicted + n.Deleted
	if in := n.taken + n.Admitted + n.GhostHits; in-gone != int64(a.words) {
		return fmt.Errorf("%d entries came, %d went by some reason, %d are there", in, gone, a.words)
	}
	if a.n.live != n.live || a.n.payload != n.payload || a.n.headers != n.headers || a.n.negative != n.negative {
		return fmt.Errorf("accounts: live %d payload %d headers %d negative %d; in entries %d, %d, %d, %d",
			n.live, n.payload, n.headers, n.negative, a.n.live, a.n.payload, a.n.headers, a.n.negative)
	}
	for ns, c := range a.counts {
		got := a.shard.counts[ns]
		if got.entries != c.entries || got.bytes != c.bytes || got.hidden != c.hidden || got.all != c.all {
			return fmt.Errorf("namespace %d: account %+v, entries say %+v", ns, got, c)
		}
	}
	return nil
}

// quotas verifies that a namespace's queue has a mark for each of its entries.
func (a *audit) quotas() error {
	for ns, q := range a.shard.quotas {
		for range q.len {
			m := q.pop()
			a.marks[ns][m]--
			q.push(m)
		}
		for m, n := range a.marks[ns] {
			if n > 0 {
				return fmt.Errorf("namespace %d: %d entries have no mark %#x in the queue", ns, n, m)
			}
		}
	}
	return nil
}

// checkWord verifies that a probe for an entry finds its word.
func (sh *shard) checkWord(d, i int, w word) error {
	hash := sh.store.hashAt(w.loc())
	if sh.store.shard(hash) != sh {
		return fmt.Errorf("an entry of hash %#x is in the wrong shard", uint64(hash))
	}
	if (makeWord(hash, 0, 0)^w)>>tagShift != 0 {
		return fmt.Errorf("word %d of slot %d has the wrong tag", i, d)
	}
	if at, _, ok := sh.index.findLocation(hash, w.loc()); !ok || at.at != i {
		return fmt.Errorf("a probe does not find word %d of slot %d", i, d)
	}
	return nil
}

// segments verifies queues, open segments and the numbers of each segment.
func (a *audit) segments() error {
	for q := range a.queues {
		if err := a.queue(q); err != nil {
			return fmt.Errorf("queue %d: %w", q, err)
		}
	}
	if len(a.found) > 0 {
		return fmt.Errorf("the index points into %d segments that the shard does not have", len(a.found))
	}
	if a.held != a.shard.held || a.used != a.shard.n.used {
		return fmt.Errorf("%d segments and %d bytes used, accounts %d and %d", a.held, a.used, a.shard.held, a.shard.n.used)
	}
	return nil
}

func (a *audit) queue(q int) error {
	s, before, prev := a.store, a.held, noSegment
	for id := a.queues[q].head; id != noSegment; id = s.meta[id].next {
		if s.meta[id].prev != prev || int(s.meta[id].queue) != q {
			return fmt.Errorf("segment %d is linked wrongly", id)
		}
		if err := a.segment(id, stateSealed, stateChain); err != nil {
			return err
		}
		prev = id
	}
	if a.queues[q].tail != prev {
		return fmt.Errorf("tail is %d, last is %d", a.queues[q].tail, prev)
	}
	opened := 0
	for _, id := range a.open[q] {
		if id == noSegment {
			continue
		}
		opened++
		if err := a.segment(id, stateOpen); err != nil {
			return err
		}
	}
	if opened != a.opened[q] || opened > s.maxOpen() {
		return fmt.Errorf("%d open, account %d, cap %d", opened, a.opened[q], s.maxOpen())
	}
	if a.held-before != a.queues[q].segments {
		return fmt.Errorf("%d segments, account %d", a.held-before, a.queues[q].segments)
	}
	return nil
}

// segment verifies a segment, which must be in one of some states.
func (a *audit) segment(id segmentID, want ...state) error {
	s := a.store
	m, t := &s.meta[id], a.found[id]
	if t == nil {
		t = &tally{}
	}
	delete(a.found, id)
	a.held += int(m.length)
	a.used += int64(m.used)
	switch {
	case !slices.Contains(want, m.state):
		return fmt.Errorf("segment %d is in state %d", id, m.state)
	case m.live != t.live || m.entries != t.entries:
		return fmt.Errorf("segment %d (state %d): live %d in %d entries; the index has %d in %d",
			id, m.state, m.live, m.entries, t.live, t.entries)
	case m.last < t.last:
		return fmt.Errorf("segment %d: last deadline %d, an entry has %d", id, m.last, t.last)
	case m.entries > 0 && a.nextExpiry > m.last:
		return fmt.Errorf("segment %d is due at %d, before the shard's next expiry %d", id, m.last, a.nextExpiry)
	case m.state == stateSealed && (int(m.live)*2 < s.cfg.SegmentSize) != m.sparse:
		return fmt.Errorf("segment %d: live %d, sparse %v", id, m.live, m.sparse)
	case m.state != stateOpen && m.entries == 0:
		return fmt.Errorf("segment %d is sealed, dead and not freed", id)
	case m.pins != 0:
		return fmt.Errorf("segment %d is pinned, and there is no reader", id)
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
