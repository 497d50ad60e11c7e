package segment

import (
	"math"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// segment is the state of one segment. While a shard owns the segment, the shard's lock
// protects the state. Free segments belong to the pool.
type segment struct {
	state   state
	queue   uint8 // admission or main
	class   uint8
	sparse  bool        // is in the shard's sparse list
	pins    uint32      // readers that copy from it
	used    uint32      // bytes written
	live    uint32      // bytes of entries that the index points to
	entries uint32      // number of entries that the index points to
	length  uint32      // of a chain's head: the number of its segments
	chain   segmentID   // the next segment of a chain, or noSegment
	last    kv.Deadline // latest due time of its entries, or never

	next, prev             segmentID // in the queue
	sparseNext, sparsePrev segmentID
}

type state uint8

const (
	stateFree   state = iota
	stateOpen         // appended to
	stateSealed       // full; in a queue
	stateChain        // head of a chain; in a queue
	stateLink         // a further segment of a chain
	stateZombie       // without entries, and still read
)

// The two queues of S3-FIFO.
const (
	admission = 0
	mainQueue = 1
)

// The part of a shard's segments that is for admission: see learn.
const (
	firstShare = 0.1
	leastShare = 0.01
	mostShare  = 0.9
)

// classes is the number of TTL classes. The TTL of an entry, grace included, is at most
// classTTL of its class, but for the rounding of its deadline (kv.After); the last class is
// for entries that never expire. The steps are
// four-fold, so the memory of a segment comes back at most four TTLs of its entries late.
const classes = 14

var classTTL = [classes - 1]time.Duration{
	time.Second, 4 * time.Second, 15 * time.Second,
	time.Minute, 4 * time.Minute, 15 * time.Minute,
	time.Hour, 4 * time.Hour, 16 * time.Hour,
	64 * time.Hour, 10 * 24 * time.Hour, 40 * 24 * time.Hour,
	math.MaxInt64,
}

// classOf returns the class of an entry that is due at a deadline.
func classOf(d kv.Deadline, now time.Duration) int {
	if d == never {
		return classes - 1
	}
	ttl := d.Remaining(now) - (time.Millisecond - 1) // the most that rounding added
	c := 0
	for ttl > classTTL[c] {
		c++
	}
	return c
}

// queue is a FIFO of sealed segments and chains, linked through meta.
type queue struct {
	meta       []segment
	head, tail segmentID
	segments   int // in the queue, all segments of chains, and the open ones
}

func (q *queue) push(id segmentID) {
	m := &q.meta[id]
	m.next, m.prev = noSegment, q.tail
	if q.tail == noSegment {
		q.head = id
	} else {
		q.meta[q.tail].next = id
	}
	q.tail = id
}

func (q *queue) remove(id segmentID) {
	m := &q.meta[id]
	if m.prev == noSegment {
		q.head = m.next
	} else {
		q.meta[m.prev].next = m.next
	}
	if m.next == noSegment {
		q.tail = m.prev
	} else {
		q.meta[m.next].prev = m.prev
	}
}

// sparseList lists the sealed segments that are less than half alive.
type sparseList struct {
	meta []segment
	head segmentID
}

func (l *sparseList) add(id segmentID) {
	m := &l.meta[id]
	m.sparse, m.sparseNext, m.sparsePrev = true, l.head, noSegment
	if l.head != noSegment {
		l.meta[l.head].sparsePrev = id
	}
	l.head = id
}

func (l *sparseList) remove(id segmentID) {
	m := &l.meta[id]
	if !m.sparse {
		return
	}
	m.sparse = false
	if m.sparsePrev == noSegment {
		l.head = m.sparseNext
	} else {
		l.meta[m.sparsePrev].sparseNext = m.sparseNext
	}
	if m.sparseNext != noSegment {
		l.meta[m.sparseNext].sparsePrev = m.sparsePrev
	}
}

// maxOpen returns how many segments of each queue a shard may have open.
func (s *Store) maxOpen() int {
	return max(1, len(s.meta)/len(s.shards)/maxOpenShare/2)
}

// room returns an open segment of queue q with space for size bytes of an entry of the
// class. It is the segment of the class itself or, past the cap on open segments, of a
// neighbouring class. room returns noSegment if a new segment is needed and the pool has
// none.
func (sh *shard) room(q, class, size int) segmentID {
	at := sh.openClass(q, class)
	if at >= 0 {
		id := sh.open[q][at]
		if int(sh.store.meta[id].used)+size <= sh.store.cfg.SegmentSize {
			return id
		}
	}
	id, ok := sh.store.pool.get()
	if !ok {
		return noSegment
	}
	if at >= 0 {
		sh.seal(q, at)
	}
	sh.start(id, q, class)
	return id
}

// openClass returns the class whose open segment serves the given class, or -1 if the
// class should get a segment of its own.
func (sh *shard) openClass(q, class int) int {
	if sh.open[q][class] != noSegment {
		return class
	}
	if sh.opened[q] < sh.store.maxOpen() {
		return -1
	}
	for d := 1; ; d++ {
		if c := class + d; c < classes && sh.open[q][c] != noSegment {
			return c
		}
		if c := class - d; c >= 0 && sh.open[q][c] != noSegment {
			return c
		}
	}
}

// start opens a segment that the shard has just received.
func (sh *shard) start(id segmentID, q, class int) {
	sh.store.meta[id] = segment{state: stateOpen, queue: uint8(q), class: uint8(class), chain: noSegment, length: 1}
	sh.open[q][class] = id
	sh.opened[q]++
	sh.queues[q].segments++
	sh.held++
}

// seal closes the open segment of a class.
func (sh *shard) seal(q, class int) {
	id := sh.open[q][class]
	sh.open[q][class] = noSegment
	sh.opened[q]--
	m := &sh.store.meta[id]
	m.state = stateSealed
	sh.queues[q].push(id)
	if m.entries == 0 {
		sh.free(id)
		return
	}
	sh.noteSparse(id)
}

// noteSparse lists a sealed segment of which less than half is alive.
func (sh *shard) noteSparse(id segmentID) {
	m := &sh.store.meta[id]
	if m.state == stateSealed && !m.sparse && int(m.live)*2 < sh.store.cfg.SegmentSize {
		sh.sparse.add(id)
	}
}

// free gives a sealed segment or chain without live entries to the pool. If it is being
// read, its last reader frees it.
func (sh *shard) free(id segmentID) {
	m := &sh.store.meta[id]
	q := &sh.queues[m.queue]
	q.remove(id)
	q.segments -= int(m.length)
	sh.sparse.remove(id)
	sh.n.used -= int64(m.used)
	if m.pins > 0 {
		m.state = stateZombie
		return
	}
	sh.giveBack(id)
}

// giveBack returns a segment, or all segments of a chain, to the pool.
func (sh *shard) giveBack(id segmentID) {
	sh.held -= int(sh.store.meta[id].length)
	for id != noSegment {
		m := &sh.store.meta[id]
		next := m.chain
		*m = segment{}
		sh.store.pool.put(id)
		id = next
	}
}

// entries yields the entries of a segment that is not part of a chain, in the order of
// writing, until yield returns false. Dead entries are included.
func (s *Store) entries(id segmentID, yield func(off int, h header, b []byte) bool) {
	bytes := s.segmentBytes(id)
	end := int(s.meta[id].used)
	for off := 0; off < end; {
		h := readHeader(bytes[off:])
		size := h.size()
		if !yield(off, h, bytes[off:off+size]) {
			return
		}
		off += size
	}
}
