package segment

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// reclaimEvery is the period at which memory of expired entries is freed, and large pages are made.
const reclaimEvery = time.Second

// Run frees the memory of expired and flushed entries, and of entries from an earlier
// ownership, until ctx ends. Reads never depend on it.
func (s *Store) Run(ctx context.Context, clock kv.Clock) error {
	tick := time.NewTicker(reclaimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.Reclaim(clock.Read().Boot)
			s.useLargePages()
		case <-s.sweep:
			s.Sweep(ctx)
		}
	}
}

// Reclaim frees the segments of which every entry has expired.
func (s *Store) Reclaim(now time.Duration) {
	for _, sh := range s.shards {
		for sh.reclaimOne(now) {
		}
	}
}

// reclaimOne frees one expired segment; the lock is released between two.
func (sh *shard) reclaimOne(now time.Duration) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !sh.nextExpiry.Passed(now) {
		return false
	}
	next := never
	for q := range sh.queues {
		for id := sh.queues[q].head; id != noSegment; id = sh.store.meta[id].next {
			if m := &sh.store.meta[id]; m.last.Passed(now) {
				sh.expel(id, now)
				sh.n.SegmentExpirations++
				return true
			} else {
				next = min(next, m.last)
			}
		}
	}
	for q := range sh.open {
		for class, id := range sh.open[q] {
			if id == noSegment || sh.store.meta[id].entries == 0 {
				continue
			}
			if !sh.store.meta[id].last.Passed(now) {
				next = min(next, sh.store.meta[id].last)
			} else {
				before := sh.held
				sh.seal(q, class)
				if sh.held == before {
					sh.expel(id, now)
				}
				sh.n.SegmentExpirations++
				return true
			}
		}
	}
	sh.nextExpiry = next
	return false
}

// Flush hides the entries of a namespace whose version is below floor, and entries below
// floor that come later. It hides no others. Versions that are stamped from now on exceed
// floor. The next sweep frees the memory.
func (s *Store) Flush(ns kv.NamespaceID, floor kv.Version) {
	s.cfg.Versions.Observe(floor)
	for _, sh := range s.shards {
		sh.mu.Lock()
		sh.counts[ns].flush(floor)
		sh.mu.Unlock()
	}
	s.wakeSweep()
}

// Clear hides all entries that the store has of a namespace at this moment, whatever
// their versions. It stamps the floor of each shard under the lock of the shard, so a
// write that has seen one of the entries cannot come after it.
func (s *Store) Clear(ns kv.NamespaceID, now kv.Moment) {
	for _, sh := range s.shards {
		sh.mu.Lock()
		sh.counts[ns].flush(s.cfg.Versions.Next(now.Wall))
		sh.mu.Unlock()
	}
	s.wakeSweep()
}

// HoldBack has no entry served that the store has of a namespace at this moment, until Resume. Reads
// that accept a stale value may have it. What is written later is served.
func (s *Store) HoldBack(ns kv.NamespaceID, now kv.Moment) {
	for _, sh := range s.shards {
		sh.mu.Lock()
		c := &sh.counts[ns]
		c.served, c.heldAt = s.cfg.Versions.Next(now.Wall), now.Boot
		sh.mu.Unlock()
	}
}

// Resume has the entries of a namespace served again that were held back.
func (s *Store) Resume(ns kv.NamespaceID) {
	for _, sh := range s.shards {
		sh.mu.Lock()
		sh.counts[ns].served = sh.counts[ns].floor
		sh.mu.Unlock()
	}
}

// flush raises the floor. The shard's lock is held.
func (nc *nsCount) flush(floor kv.Version) {
	nc.floor = max(nc.floor, floor)
	nc.served = max(nc.served, nc.floor)
	if nc.newest < nc.floor {
		nc.moved = nc.floor
		nc.hidden += nc.entries
		nc.entries, nc.bytes = 0, 0
	}
}

// Sweep removes the entries that a flush or a new ownership has hidden, page by page of
// the index.
func (s *Store) Sweep(ctx context.Context) {
	for _, sh := range s.shards {
		sh.hold(1)
		slots := 0
		for ctx.Err() == nil && sh.sweepPage(slots) {
			slots++
		}
		sh.hold(-1)
		// Pages that the sweep emptied could not merge during the sweep. Buddies
		// of deeper pages have higher slots.
		for d := slots - 1; d >= 0 && ctx.Err() == nil; d-- {
			sh.mergePage(d)
		}
	}
}

func (sh *shard) mergePage(d int) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if x := sh.index; d < len(x.dir) && x.canonical(d) {
		x.shrink(uint32(d))
	}
}

// hold adds n to the scans under way; while there is one, index pages do not merge.
func (sh *shard) hold(n int) {
	sh.mu.Lock()
	sh.index.scans += n
	sh.mu.Unlock()
}

// sweepPage removes the hidden entries of the page in directory slot d. It reports
// whether the slot exists.
func (sh *shard) sweepPage(d int) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	x := sh.index
	if d >= len(x.dir) {
		return false
	}
	if !x.canonical(d) {
		return true
	}
	page := x.dir[d]
	for i := 0; i < wordsAPage; {
		w := getWord(x.pages.bytes(page), i)
		if w == 0 {
			i++
			continue
		}
		b := sh.store.at(w.loc())
		h := readHeader(b)
		// First what is kept: it may be adopted between the two.
		if h.version >= sh.counts[h.namespace].floor && sh.store.isKept(h, w.partition()) ||
			sh.current(h, w.partition()) {
			i++
			continue
		}
		sh.countHidden(h, w.partition())
		// Removing may move another word into this slot, so look at it again.
		sh.removeEntry(sh.store.hash(h.namespace, h.key(b)), slot{page, i}, w, h)
	}
	return true
}
