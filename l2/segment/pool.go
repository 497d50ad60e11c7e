package segment

import "sync"

// pool has what a store may hand out: the free segments of all shards, and the budget
// that segments and pages share. Each page handed out reduces the number of segments that
// the pool hands out from then on.
type pool struct {
	mu      sync.Mutex
	arena   []byte
	discard func([]byte) // gives pages back to the system; they may keep their bytes
	segSize int64
	budget  int64 // bytes for segments and pages; negative: pages are free of charge

	warm    []segmentID // free segments that still use memory; a stack
	cold    []segmentID // free segments that use no memory; a stack
	used    int         // segments handed out
	pages   int64       // bytes of pages handed out
	touched int         // segments that use memory: used + len(warm)
	reserve int64       // bytes kept free of segments, for the next pages
}

// reserveShare: if every shard fills an open segment with the shortest entries, their
// index takes less than 1/128 of the budget in pages.
const reserveShare = 128

func newPool(arena []byte, segSize, segments int, budget int64) *pool {
	p := &pool{
		arena: arena, discard: discard, segSize: int64(segSize), budget: budget, reserve: budget / reserveShare,
		cold: make([]segmentID, segments),
	}
	for i := range p.cold {
		p.cold[i] = segmentID(segments - 1 - i)
	}
	return p
}

// get hands out a free segment, or returns false if the budget allows none.
func (pl *pool) get() (segmentID, bool) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.overBudgetLocked(pl.used+1, pl.reserve) {
		return 0, false
	}
	var from *[]segmentID
	switch {
	case len(pl.warm) > 0:
		from = &pl.warm
	case len(pl.cold) > 0:
		from = &pl.cold
		pl.touched++
	default:
		return 0, false
	}
	id := (*from)[len(*from)-1]
	*from = (*from)[:len(*from)-1]
	pl.used++
	return id, true
}

// put takes a segment back.
func (pl *pool) put(id segmentID) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.used--
	pl.warm = append(pl.warm, id)
	pl.coolLocked()
}

// available reports whether get would succeed.
func (pl *pool) available() bool {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return len(pl.warm)+len(pl.cold) > 0 && !pl.overBudgetLocked(pl.used+1, pl.reserve)
}

// charge adds n bytes of pages; a negative n takes them off. It always succeeds: later
// segments pay for it, and shards evict for them.
func (pl *pool) charge(n int64) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.pages += n
	pl.coolLocked()
}

// tryCharge adds n bytes of pages if they fit into the budget, less reserve.
func (pl *pool) tryCharge(n, reserve int64) bool {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.overBudgetLocked(pl.used, reserve+n) {
		return false
	}
	pl.pages += n
	pl.coolLocked()
	return true
}

func (pl *pool) overBudgetLocked(segments int, beside int64) bool {
	return pl.budget >= 0 && int64(segments)*pl.segSize+pl.pages+beside > pl.budget
}

// coolLocked gives memory of free segments back to the system while segments and pages
// together exceed the budget.
func (pl *pool) coolLocked() {
	for len(pl.warm) > 0 && pl.overBudgetLocked(pl.touched, pl.reserve) {
		id := pl.warm[len(pl.warm)-1]
		pl.warm = pl.warm[:len(pl.warm)-1]
		pl.discard(pl.arena[int64(id)*pl.segSize:][:pl.segSize])
		pl.cold = append(pl.cold, id)
		pl.touched--
	}
}

// counts returns the segments in use, the free segments, and the bytes of pages.
func (pl *pool) counts() (used, free int, pages int64) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	return pl.used, len(pl.warm) + len(pl.cold), pl.pages
}
