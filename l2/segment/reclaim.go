package segment

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// reclaimEvery is the period in which memory of expired entries comes back.
const reclaimEvery = time.Second

// Run gives back the memory of expired, flushed and outdated entries until ctx
// ends. Reads never depend on it.
func (s *Store) Run(ctx context.Context, clock kv.Clock) error {
	tick := time.NewTicker(reclaimEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.Reclaim(clock.Read().Boot)
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
				sh.n.expirations++
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
				sh.n.expirations++
				return true
			}
		}
	}
	sh.nextExpiry = next
	return false
}

// Flush hides the entries of a namespace whose version is below floor, and no
// others, whenever they come. What is stamped from now on is above it. Memory
// comes back with the next sweep.
func (s *Store) Flush(ns kv.NamespaceID, floor kv.Version) {
	s.cfg.Versions.Observe(floor)
	for _, sh := range s.shards {
		sh.mu.Lock()
		sh.counts[ns].flush(floor)
		sh.mu.Unlock()
	}
	s.wakeSweep()
}

// Clear hides all that the store has of a namespace at that moment, whatever its
// version: no write that has seen any of it comes after.
func (s *Store) Clear(ns kv.NamespaceID, now kv.Moment) {
	for _, sh := range s.shards {
		sh.mu.Lock()
		sh.counts[ns].flush(s.cfg.Versions.Next(now.Wall))
		sh.mu.Unlock()
	}
	s.wakeSweep()
}

// flush raises the floor. The shard's lock is held.
func (c *nsCount) flush(floor kv.Version) {
	c.floor = max(c.floor, floor)
	if c.newest < c.floor {
		c.moved = c.floor
		c.hidden += c.entries
		c.entries, c.bytes = 0, 0
	}
}

// Sweep removes the entries that a flush or a new holding has hidden, page by
// page of the index.
func (s *Store) Sweep(ctx context.Context) {
	for _, sh := range s.shards {
		sh.hold(1)
		slots := 0
		for ctx.Err() == nil && sh.sweepPage(slots) {
			slots++
		}
		sh.hold(-1)
		// What the sweep emptied could not merge under it. Buddies of deeper
		// pages stand at higher slots.
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

// hold keeps the pages of the index from merging while a scan is under way.
func (sh *shard) hold(n int) {
	sh.mu.Lock()
	sh.index.held += n
	sh.mu.Unlock()
}

// sweepPage removes the hidden entries of the page in directory slot d. It
// says whether there is such a slot.
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
		if sh.current(h, w.partition()) {
			i++
			continue
		}
		sh.n.flushed++
		// Removing may move another word into this slot: look at it again.
		sh.removeEntry(sh.store.hash(h.namespace, h.key(b)), slot{page, i}, w, h)
	}
	return true
}
