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

// Region is a region that is written. head, tail and the buckets are what the sidecar
// decides by. The mapping ends when the file is not reachable any more, so each use of mem
// keeps the region alive.
type Region struct {
	file    *File
	mem     memory
	shape   shape
	shows   func(namespace string) bool // whether its readers may know of a namespace
	buckets []bucket
	listed  [kv.MaxNamespaces]atomic.Int64 // entries in the index, by namespace
	tail    atomic.Uint64                  // written under mu
	counter atomic.Uint64

	mu    sync.Mutex // guards the log; a bucket's lock is taken under it, never the other way
	head  uint64     // the next position
	ended bool       // nothing is written any more
}

func newRegion(f *File, shows func(string) bool) *Region {
	mem, s := f.mem, shapeOf(int64(len(f.mem)))
	r := &Region{file: f, mem: mem, shape: s, shows: shows, buckets: make([]bucket, s.buckets)}
	r.head = s.lines // no position is zero
	r.setTail(s.lines)
	mem.word(atMagic).Store(Magic)
	mem.word(atLayout).Store(Layout)
	mem.word(atSize).Store(uint64(len(mem)))
	mem.word(atBuckets).Store(s.buckets)
	mem.word(atLines).Store(s.lines)
	return r
}

func (r *Region) setTail(position uint64) {
	r.tail.Store(position)
	r.mem.word(atTail).Store(position)
}

// claim returns the position of an entry of so many lines, after the tail has left them. All
// lines that the tail has left are zero, until an entry is written there. r.mu is held.
func (r *Region) claim(lines uint64) uint64 {
	if left := r.shape.lines - r.head%r.shape.lines; left < lines {
		r.head += left // an entry does not wrap around
	}
	at := r.head
	r.head += lines
	if first, old := r.head-r.shape.lines, r.tail.Load(); first > old {
		r.setTail((first + chunk - 1) / chunk * chunk)
		r.zero(old, r.tail.Load())
	}
	return at
}

// write writes an entry at its position. r.mu is held.
func (r *Region) write(e *Entry) {
	var head [headSize]byte
	order.PutUint64(head[enPosition:], e.position)
	order.PutUint64(head[enHash:], uint64(e.Key.Hash))
	order.PutUint64(head[enIncarnation:], e.Taken.incarnation)
	order.PutUint64(head[enNamespaceG:], e.Taken.namespace)
	order.PutUint64(head[enPartitionG:], e.Taken.partition)
	order.PutUint64(head[enDeadline:], uint64(e.Ends))
	order.PutUint32(head[enNamespace:], uint32(e.Key.Namespace))
	order.PutUint32(head[enOwner:], uint32(e.Owner))
	order.PutUint32(head[enKeyLen:], uint32(len(e.Key.Bytes)))
	order.PutUint32(head[enValueLen:], uint32(len(e.Value)))
	putFacts(&head, &e.Facts)
	order.PutUint64(head[enSum:], sumOf(&head, e.Key.Bytes, e.Value))
	at := r.shape.atLine(e.position)
	at += copy(r.mem[at:], head[:])
	at += copy(r.mem[at:], e.Key.Bytes)
	copy(r.mem[at:], e.Value)
}

// putFacts writes what an entry says of itself, but for its end.
func putFacts(head *[headSize]byte, f *kv.Facts) {
	order.PutUint64(head[enVersion:], uint64(f.Version))
	order.PutUint32(head[enFlags:], f.Flags)
	if f.Kind == kv.Absent {
		order.PutUint32(head[enKind:], kindNone)
	}
}

// factsIn is the inverse of putFacts.
func factsIn(head *[headSize]byte) kv.Facts {
	f := kv.Facts{Version: kv.Version(order.Uint64(head[enVersion:]))}
	f.Flags = order.Uint32(head[enFlags:])
	if order.Uint32(head[enKind:]) == kindNone {
		f.Kind = kv.Absent
	}
	return f
}

// sumOf returns the checksum of an entry.
func sumOf(head *[headSize]byte, key, value []byte) uint64 {
	return xxh3.HashSeed(value, xxh3.HashSeed(key, xxh3.HashSeed(head[:enSum], 0)))
}

// erase zeroes the bytes of an entry that is not in the index any more. r.mu is held.
func (r *Region) erase(p place) {
	r.zero(max(p.position(), r.tail.Load()), p.position()+p.lines()) // below the tail it may be another one
}

// zero zeroes the lines of some positions. r.mu is held.
func (r *Region) zero(from, end uint64) {
	for from < end {
		n := min(end-from, r.shape.lines-from%r.shape.lines)
		clear(r.mem[r.shape.atLine(from):][:n*lineSize])
		from += n
	}
}

// eraseNamespace takes the entries of a namespace out of the index and zeroes them, after its
// generation has risen. It takes each lock for a moment only.
func (r *Region) eraseNamespace(ns kv.NamespaceID) {
	for n := 0; n < len(r.buckets) && r.listed[ns].Load() > 0; n++ {
		var old [slotsIn]place
		b, found := &r.buckets[n], 0
		b.lock()
		for i, p := range b.places {
			if p != 0 && b.spaces[i] == ns {
				old[found] = r.drop(uint64(n), i)
				found++
			}
		}
		b.unlock()
		r.eraseAll(old[:found])
	}
}

// eraseAll zeroes entries that are not in the index any more.
func (r *Region) eraseAll(old []place) {
	if len(old) > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range old {
			r.erase(p)
		}
	}
}

// stop ends publishing.
func (r *Region) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
}

// closeRegion makes the region closed, and zeroes index and log.
func (r *Region) closeRegion() {
	r.mem.word(atState).Store(Closed)
	r.stop()
	for at := atIndex; at < len(r.mem); {
		piece := r.mem[at:min(len(r.mem), at+chunk*lineSize)]
		r.mu.Lock() // for a moment only: a write may wait for it
		clear(piece)
		r.mu.Unlock()
		at += len(piece)
	}
}

// place is where an entry lies in the log: its position, and its lines in the low 16 bits.
// Zero: nowhere. A higher one is newer.
type place uint64

func (p place) position() uint64 { return uint64(p >> 16) }
func (p place) lines() uint64    { return uint64(p & 0xffff) }

// bucket is the private copy of a bucket of the index, and its lock. Lock and tags lie in one
// cache line: nearly all changes are of keys that are not in the index, and need nothing else.
type bucket struct {
	locked atomic.Bool
	tags   [slotsIn]uint16
	places [slotsIn]place
	spaces [slotsIn]kv.NamespaceID // the bucket has a multiple of half a line
}

func (b *bucket) lock() {
	for !b.locked.CompareAndSwap(false, true) {
		runtime.Gosched()
	}
}

func (b *bucket) unlock() { b.locked.Store(false) }

// list puts an entry into the index if still says so, in place of one of its tag, of none, or
// else of the oldest. It returns what it replaced.
func (r *Region) list(e *Entry, still func() bool) (old place, ok bool) {
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
	if old = b.places[at]; old != 0 {
		r.listed[b.spaces[at]].Add(-1)
	}
	r.listed[e.Key.Namespace].Add(1)
	b.tags[at], b.places[at], b.spaces[at] = tagOf(e.Key.Hash), e.place(), e.Key.Namespace
	r.mem.word(r.shape.atSlot(n, at)).Store(slotFor(e.Key.Hash, e.position))
	return old, true
}

// place returns where an entry lies once it has a position.
func (e *Entry) place() place {
	return place(e.position<<16 | linesOf(len(e.Key.Bytes)+len(e.Value)))
}

// unlist takes the entries of a hash's tag out of the index and returns where they lie.
func (r *Region) unlist(h kv.Hash) (old [slotsIn]place, n int) {
	number := r.shape.bucket(h)
	b := &r.buckets[number]
	tag := tagOf(h)
	b.lock()
	for i, t := range b.tags {
		if t == tag && b.places[i] != 0 {
			old[n] = r.drop(number, i)
			n++
		}
	}
	b.unlock()
	return old, n
}

// drop takes an entry out of the index and returns where it lies. The bucket's lock is held.
func (r *Region) drop(number uint64, i int) place {
	b := &r.buckets[number]
	r.mem.word(r.shape.atSlot(number, i)).Store(0)
	r.listed[b.spaces[i]].Add(-1)
	p := b.places[i]
	b.places[i] = 0
	return p
}
