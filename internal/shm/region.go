package shm

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/zeebo/xxh3"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

var order = binary.LittleEndian

// region is a region that is written. head, tail and the buckets are what the sidecar
// decides by. The mapping ends when the region is not reachable any more, so each use of mem
// keeps the region alive.
type region struct {
	mem     memory
	shape   shape
	buckets []bucket
	tail    atomic.Uint64 // written under mu
	counter atomic.Uint64

	mu   sync.Mutex // guards the log; a bucket's lock is taken under it, never the other way
	head uint64     // the next position
}

func newRegion(mem memory) *region {
	s := shapeOf(int64(len(mem)))
	r := &region{mem: mem, shape: s, buckets: make([]bucket, s.buckets), head: s.lines} // no position is zero
	runtime.AddCleanup(r, unmap, mem)
	r.setTail(s.lines)
	mem.word(atMagic).Store(Magic)
	mem.word(atLayout).Store(Layout)
	mem.word(atSize).Store(uint64(len(mem)))
	mem.word(atBuckets).Store(s.buckets)
	mem.word(atLines).Store(s.lines)
	return r
}

func (r *region) setTail(position uint64) {
	r.tail.Store(position)
	r.mem.word(atTail).Store(position)
}

// claim returns the position of an entry of so many lines, after the tail has left them.
// r.mu is held.
func (r *region) claim(lines uint64) uint64 {
	if left := r.shape.lines - r.head%r.shape.lines; left < lines {
		r.head += left // an entry does not wrap around
	}
	at := r.head
	r.head += lines
	if first := r.head - r.shape.lines; first > r.tail.Load() {
		r.setTail((first + chunk - 1) / chunk * chunk)
	}
	return at
}

// write writes an entry at its position. r.mu is held.
func (r *region) write(e *Entry) {
	var head [headSize]byte
	order.PutUint64(head[enPosition:], e.position)
	order.PutUint64(head[enHash:], uint64(e.Key.Hash))
	order.PutUint64(head[enIncarnation:], e.Taken.incarnation)
	order.PutUint64(head[enNamespaceG:], e.Taken.namespace)
	order.PutUint64(head[enPartitionG:], e.Taken.partition)
	order.PutUint64(head[enDeadline:], uint64(e.Ends))
	order.PutUint64(head[enVersion:], uint64(e.Version))
	order.PutUint32(head[enNamespace:], uint32(e.Key.Namespace))
	order.PutUint32(head[enOwner:], uint32(e.Owner))
	order.PutUint32(head[enFlags:], e.Flags)
	order.PutUint32(head[enKeyLen:], uint32(len(e.Key.Bytes)))
	order.PutUint32(head[enValueLen:], uint32(len(e.Value)))
	if e.Absent {
		order.PutUint32(head[enKind:], kindNone)
	}
	order.PutUint64(head[enSum:], sumOf(&head, e.Key.Bytes, e.Value))
	at := r.shape.atLine(e.position)
	at += copy(r.mem[at:], head[:])
	at += copy(r.mem[at:], e.Key.Bytes)
	copy(r.mem[at:], e.Value)
}

// sumOf returns the checksum of an entry.
func sumOf(head *[headSize]byte, key, value []byte) uint64 {
	return xxh3.HashSeed(value, xxh3.HashSeed(key, xxh3.HashSeed(head[:enSum], 0)))
}

// erase zeroes the bytes of an entry that is not in the index any more. r.mu is held.
func (r *region) erase(p place) {
	if p.position() >= r.tail.Load() { // else they may belong to another one
		clear(r.mem[r.shape.atLine(p.position()):][:p.lines()*lineSize])
	}
}

// place is where an entry lies in the log: its position, and its lines in the low 16 bits.
// Zero: nowhere. A higher one is newer.
type place uint64

func (p place) position() uint64 { return uint64(p >> 16) }
func (p place) lines() int       { return int(p & 0xffff) }

// bucket is the private copy of a bucket of the index, and its lock. Lock and tags lie in one
// cache line: nearly all changes are of keys that are not in the index, and need nothing else.
type bucket struct {
	locked atomic.Bool
	tags   [slotsIn]uint16
	places [slotsIn]place
	_      [8]byte // a multiple of half a line
}

func (b *bucket) lock() {
	for !b.locked.CompareAndSwap(false, true) {
		runtime.Gosched()
	}
}

func (b *bucket) unlock() { b.locked.Store(false) }

// list puts an entry into the index if still says so, in place of one of its tag, of none, or
// else of the oldest. It returns what it replaced.
func (r *region) list(e *Entry, still func() bool) (old place, ok bool) {
	n := r.shape.bucket(e.Key.Hash)
	b := &r.buckets[n]
	b.lock()
	defer b.unlock()
	if !still() {
		return 0, false
	}
	at := -1
	for i, p := range b.places {
		if p != 0 && b.tags[i] == tagOf(e.Key.Hash) {
			at = i
			break
		}
		if at < 0 || p < b.places[at] {
			at = i
		}
	}
	old = b.places[at]
	b.tags[at], b.places[at] = tagOf(e.Key.Hash), e.place()
	r.mem.word(r.shape.atSlot(n, at)).Store(slotFor(e.Key.Hash, e.position))
	return old, true
}

// place returns where an entry lies once it has a position.
func (e *Entry) place() place {
	return place(e.position<<16 | linesOf(len(e.Key.Bytes)+len(e.Value)))
}

// unlist takes the entries of a hash's tag out of the index and returns where they lie.
func (r *region) unlist(h kv.Hash) (old [slotsIn]place, n int) {
	number := r.shape.bucket(h)
	b := &r.buckets[number]
	tag := tagOf(h)
	b.lock()
	for i, t := range b.tags {
		if t == tag && b.places[i] != 0 {
			r.mem.word(r.shape.atSlot(number, i)).Store(0)
			old[n] = b.places[i]
			b.places[i] = 0
			n++
		}
	}
	b.unlock()
	return old, n
}
