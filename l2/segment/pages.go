package segment

import "sync"

// pageSize is the unit in which index and ghosts take memory, in bytes.
const pageSize = 4096

type pageID uint32

// pages hands out pages to the shards, for their indexes, ghost tables and quota queues.
// A page that is handed out belongs to one shard, under the lock of that shard, and so do
// its elements of fill and depth.
type pages struct {
	region []byte
	pool   *pool

	mu   sync.Mutex
	free []pageID
	next pageID

	fill  []uint16 // per index page: words in use
	depth []uint8  // per index page: hash bits that it has been split by
}

func newPages(region []byte, p *pool) *pages {
	n := len(region) / pageSize
	return &pages{region: region, pool: p, fill: make([]uint16, n), depth: make([]uint8, n)}
}

// get hands out a zeroed page and charges it. The pool's reserve covers a page that is
// needed when everything else is handed out; later segments pay for it.
func (p *pages) get() pageID {
	id, ok := p.takePage()
	if !ok {
		panic("l2/segment: more pages than the region was made for") // see New
	}
	p.pool.charge(pageSize)
	return id
}

// tryGet hands out a zeroed page if it fits into the budget, the reserve included.
func (p *pages) tryGet() (pageID, bool) {
	if !p.pool.tryCharge(pageSize, 0) {
		return 0, false
	}
	id, ok := p.takePage()
	if !ok {
		p.pool.charge(-pageSize)
	}
	return id, ok
}

// getAll hands out n zeroed pages if they fit into the budget, less the reserve.
func (p *pages) getAll(n int) ([]pageID, bool) {
	if !p.pool.tryCharge(int64(n)*pageSize, p.pool.reserve) {
		return nil, false
	}
	held := make([]pageID, 0, n)
	for range n {
		id, ok := p.takePage()
		if !ok {
			p.pool.charge(-int64(n-len(held)) * pageSize)
			p.putAll(held)
			return nil, false
		}
		held = append(held, id)
	}
	return held, true
}

func (p *pages) putAll(held []pageID) {
	for _, id := range held {
		p.put(id)
	}
}

// takePage takes a page that has been charged, if the region has one left.
func (p *pages) takePage() (pageID, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var id pageID
	switch n := len(p.free); {
	case n > 0:
		id = p.free[n-1]
		p.free = p.free[:n-1]
	case int(p.next) == len(p.fill):
		return 0, false
	default:
		id = p.next
		p.next++
	}
	clear(p.bytes(id))
	p.fill[id], p.depth[id] = 0, 0
	return id, true
}

func (p *pages) put(id pageID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pool.discard(p.bytes(id))
	p.free = append(p.free, id)
	p.pool.charge(-pageSize)
}

func (p *pages) bytes(id pageID) []byte {
	off := int(id) * pageSize
	return p.region[off : off+pageSize : off+pageSize]
}
