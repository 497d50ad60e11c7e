package shm

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Reader reads a region that another process writes. It is safe for concurrent use. Whatever
// the region contains, a Reader returns only what carries the right key and checksum.
type Reader struct {
	mem   memory
	shape shape
}

// clockError is how far this process's boot clock and the sidecar's may differ. Ages are
// taken so much stricter, deadlines so much earlier.
const clockError = 2 * time.Millisecond

// NewReader returns a reader of a mapping, which it does not change. It refuses what is no
// region of this layout.
func NewReader(mapping []byte) (*Reader, error) {
	m := memory(mapping)
	if len(m) < MinSize {
		return nil, fmt.Errorf("the shared memory has %d bytes, at least %d are needed", len(m), MinSize)
	}
	if m.word(atMagic).Load() != Magic {
		return nil, errors.New("the shared memory is not a sidecar's: its first bytes differ")
	}
	if v := m.word(atLayout).Load(); v != Layout {
		return nil, fmt.Errorf("the shared memory has layout %d, this client reads %d: upgrade the older of the two",
			v, Layout)
	}
	s := shape{buckets: m.word(atBuckets).Load(), lines: m.word(atLines).Load()}
	if size := m.word(atSize).Load(); size != uint64(len(m)) || !s.fits(len(m)) {
		return nil, fmt.Errorf("the shared memory has %d bytes: its header says %d, %d buckets, %d lines",
			len(m), size, s.buckets, s.lines)
	}
	return &Reader{mem: m, shape: s}, nil
}

// Is reports whether the region is the one that the answer to SHARED describes, of the process
// that the answer to HELLO names. It is of no use any more once a later HELLO names another
// process: see clients/c/README.md.
func (rd *Reader) Is(epoch, id, counter uint64) bool {
	return rd.mem.word(atEpoch).Load() == epoch && rd.mem.word(atID).Load() == id &&
		rd.mem.word(atCounter).Load() >= counter
}

// Closed reports whether the sidecar has ended the region. Nothing is served from it any
// more.
func (rd *Reader) Closed() bool { return rd.mem.word(atState).Load() != Serving }

// View is a namespace as a reader has found it.
type View struct {
	slot        int
	incarnation uint64
	seed        uint64
}

// Find looks a namespace up by its name.
func (rd *Reader) Find(name string) (v View, ok bool) {
	for slot := range kv.MaxNamespaces {
		at := atNames + nameSize*slot
		v = View{slot: slot, incarnation: rd.mem.word(at + nsIncarnation).Load(), seed: rd.mem.word(at + nsSeed).Load()}
		if v.incarnation == 0 || rd.mem.word(at+nsNameLen).Load() != uint64(len(name)) || !rd.named(at+nsName, name) {
			continue
		}
		if rd.holds(&v) {
			return v, true
		}
	}
	return View{}, false
}

// named reports whether the words at a place begin with name.
func (rd *Reader) named(at int, name string) bool {
	var b [8]byte
	for len(name) > 0 {
		order.PutUint64(b[:], rd.mem.word(at).Load())
		n := min(len(name), len(b))
		if string(b[:n]) != name[:n] {
			return false
		}
		name, at = name[n:], at+len(b)
	}
	return true
}

// holds reports whether a slot still belongs to the namespace that was found there.
func (rd *Reader) holds(v *View) bool {
	return rd.mem.word(atNames+nameSize*v.slot+nsIncarnation).Load() == v.incarnation
}

// Found is what a read has found.
type Found struct {
	Value []byte
	kv.Facts
	Ends time.Duration // in place of the deadline: on the boot clock; zero: never
	Age  time.Duration // for which it has not been asked whether the value is current
}

// Hash returns the hash of a key.
func (v *View) Hash(key []byte) kv.Hash { return kv.HashKey(v.seed, key) }

// Get returns what may be served for a key at a moment of the boot clock, which was read
// before the call. It allocates the value only. Without a result the sidecar must be asked;
// gone means that it must be asked where the namespace is.
func (rd *Reader) Get(v *View, h kv.Hash, key []byte, now time.Duration) (f Found, ok, gone bool) {
	defer runtime.KeepAlive(rd)
	if !rd.holds(v) {
		return f, false, true
	}
	bucket := rd.shape.bucket(h)
	for i := range slotsIn {
		slot := rd.mem.word(rd.shape.atSlot(bucket, i))
		if s := slot.Load(); s != 0 && uint16(s>>posBits) == tagOf(h) {
			ok = rd.copy(&f, slot, s, v, h, key, now)
			return f, ok, false
		}
	}
	return f, false, false
}

// copy copies the entry of a slot of the index, and then asks whether it may be served.
func (rd *Reader) copy(
	f *Found, slot *atomic.Uint64, listed uint64, v *View, h kv.Hash, key []byte, now time.Duration,
) bool {
	position := listed & posMask
	at := rd.shape.atLine(position)
	var head [headSize]byte
	if len(rd.mem)-at < headSize {
		return false
	}
	copy(head[:], rd.mem[at:])
	length := uint64(order.Uint32(head[enValueLen:]))
	if order.Uint64(head[enPosition:]) != position || order.Uint64(head[enHash:]) != uint64(h) ||
		order.Uint64(head[enIncarnation:]) != v.incarnation || order.Uint32(head[enNamespace:]) != uint32(v.slot) ||
		uint64(order.Uint32(head[enKeyLen:])) != uint64(len(key)) || length > MaxValue {
		return false
	}
	at += headSize
	if uint64(len(rd.mem)-at) < uint64(len(key))+length || string(rd.mem[at:at+len(key)]) != string(key) {
		return false
	}
	value := make([]byte, length)
	copy(value, rd.mem[at+len(key):])
	if !rd.current(f, &head, h, now) || slot.Load() != listed || rd.mem.word(atTail).Load() > position {
		return false
	}
	if sumOf(&head, key, value) != order.Uint64(head[enSum:]) {
		return false
	}
	f.Value, f.Facts, f.Ends = value, factsIn(&head), time.Duration(order.Uint64(head[enDeadline:]))
	return true
}

// current reports whether an entry that has been copied may be served. The order of the
// loads matters: see the package comment.
func (rd *Reader) current(f *Found, head *[headSize]byte, h kv.Hash, now time.Duration) bool {
	owner := order.Uint32(head[enOwner:])
	if owner >= MaxOwners {
		return false
	}
	certified := rd.mem.word(atOwners + 8*int(owner)).Load()
	names := atNames + nameSize*int(order.Uint32(head[enNamespace:])) // as in the View
	bound := rd.mem.word(atBound).Load()
	if owner != 0 {
		bound = rd.mem.word(names + nsBound).Load()
	}
	if certified == 0 || certified > math.MaxInt64 || bound > math.MaxInt64 {
		return false
	}
	f.Age = now - time.Duration(certified)
	if f.Age < -clockError || f.Age >= time.Duration(bound)-clockError {
		return false
	}
	if rd.mem.word(atParts+8*int(h.Partition())).Load() != order.Uint64(head[enPartitionG:]) ||
		rd.mem.word(names+nsGeneration).Load() != order.Uint64(head[enNamespaceG:]) ||
		rd.mem.word(names+nsIncarnation).Load() != order.Uint64(head[enIncarnation:]) ||
		rd.mem.word(atState).Load() != Serving {
		return false
	}
	ends := order.Uint64(head[enDeadline:])
	return ends == 0 || ends <= math.MaxInt64 && now+clockError < time.Duration(ends)
}
