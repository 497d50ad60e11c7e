package segment

import "sync"

// pageSize is the unit in which index and ghosts take memory, in bytes.
const pageSize = 4096

type pageID uint32

// pages hands out the pages that shards build their indexes and ghost tables
// of. A page handed out belongs to one shard alone, under that shard's lock;
// so do its elements of fill and depth.
type pages struct {
	region []byte
	pool   *pool

	mu   sync.Mutex
	free []pageID
	next pageID

	fill  []uint16 // words in use, a page of an index
	depth []uint8  // hash bits that an index page has been split by
}

func newPages(size int64, p *pool) (*pages, error) {
	region, err := newRegion(size / pageSize * pageSize)
	if err != nil {
		return nil, err
	}
	n := size / pageSize
	return &pages{region: region, pool: p, fill: make([]uint16, n), depth: make([]uint8, n)}, nil
}

// get hands out a zeroed page and charges it. The pool's reserve covers the
// pages that come when everything is taken; the next segments pay.
func (p *pages) get() pageID {
	p.pool.charge(pageSize)
	return p.take()
}

// getAll hands out n zeroed pages if they fit into the budget.
func (p *pages) getAll(n int) ([]pageID, bool) {
	if !p.pool.tryCharge(int64(n) * pageSize) {
		return nil, false
	}
	held := make([]pageID, n)
	for i := range held {
		held[i] = p.take()
	}
	return held, true
}

func (p *pages) putAll(held []pageID) {
	for _, id := range held {
		p.put(id)
	}
}

func (p *pages) take() pageID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var id pageID
	if n := len(p.free); n > 0 {
		id = p.free[n-1]
		p.free = p.free[:n-1]
	} else {
		if int(p.next) == len(p.fill) {
			// As large as all that entries can need: see New.
			panic("l2/segment: more index pages than the budget has bytes for")
		}
		id = p.next
		p.next++
	}
	clear(p.bytes(id))
	p.fill[id], p.depth[id] = 0, 0
	return id
}

func (p *pages) put(id pageID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	discard(p.bytes(id))
	p.free = append(p.free, id)
	p.pool.charge(-pageSize)
}

func (p *pages) bytes(id pageID) []byte {
	off := int(id) * pageSize
	return p.region[off : off+pageSize : off+pageSize]
}
