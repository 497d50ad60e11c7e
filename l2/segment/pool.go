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
func (p *pool) get() (segmentID, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.overBudgetLocked(p.used+1, p.reserve) {
		return 0, false
	}
	var from *[]segmentID
	switch {
	case len(p.warm) > 0:
		from = &p.warm
	case len(p.cold) > 0:
		from = &p.cold
		p.touched++
	default:
		return 0, false
	}
	id := (*from)[len(*from)-1]
	*from = (*from)[:len(*from)-1]
	p.used++
	return id, true
}

// put takes a segment back.
func (p *pool) put(id segmentID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used--
	p.warm = append(p.warm, id)
	p.coolLocked()
}

// available reports whether get would succeed.
func (p *pool) available() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.warm)+len(p.cold) > 0 && !p.overBudgetLocked(p.used+1, p.reserve)
}

// charge adds n bytes of pages; a negative n takes them off. It always succeeds: later
// segments pay for it, and shards evict for them.
func (p *pool) charge(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pages += n
	p.coolLocked()
}

// tryCharge adds n bytes of pages if they fit into the budget, less reserve.
func (p *pool) tryCharge(n, reserve int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.overBudgetLocked(p.used, reserve+n) {
		return false
	}
	p.pages += n
	p.coolLocked()
	return true
}

func (p *pool) overBudgetLocked(segments int, beside int64) bool {
	return p.budget >= 0 && int64(segments)*p.segSize+p.pages+beside > p.budget
}

// coolLocked gives memory of free segments back to the system while segments and pages
// together exceed the budget.
func (p *pool) coolLocked() {
	for len(p.warm) > 0 && p.overBudgetLocked(p.touched, p.reserve) {
		id := p.warm[len(p.warm)-1]
		p.warm = p.warm[:len(p.warm)-1]
		p.discard(p.arena[int64(id)*p.segSize:][:p.segSize])
		p.cold = append(p.cold, id)
		p.touched--
	}
}

// counts returns the segments in use, the free segments, and the bytes of pages.
func (p *pool) counts() (used, free int, pages int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used, len(p.warm) + len(p.cold), p.pages
}
