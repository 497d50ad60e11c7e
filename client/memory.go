package client

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// memory is the region that the sidecar writes and the apps on its host read. A read that it
// answers makes no system call. See package shm for why the answer is current.
type memory struct {
	reader    atomic.Pointer[shm.Reader] // of the process that epoch names; nil: none
	attaching sync.Mutex
	writing   [writeMarks]writeMark  // by hash of the key
	attached  atomic.Int64           // regions
	ask       atomic.Pointer[func()] // asks for the region again; nil: there was no HELLO

	mu          sync.Mutex // held while a region is stored, or dropped because of a HELLO
	epoch       uint64     // of the process that the latest HELLO has named
	generations uint64     // how often a HELLO has named another process than the one before
}

// writeMark tells of the writes of some keys. While one is under way, or may still be
// executed, this client reads these keys over the socket, behind its writes.
type writeMark struct {
	underWay atomic.Int32
	until    atomic.Int64 // boot clock, ns: a write that was given up may be executed before
}

const writeMarks = 256

// place is where a namespace is in a region.
type place struct {
	reader *shm.Reader
	found  bool
	view   shm.View
	tally  *tally        // of the namespace, if it was found
	again  time.Duration // boot clock: not found, and not looked for before
}

// setEpoch takes note of a HELLO. If it names another process than the one before, that one has
// ended, and may have been killed: what is in its region can be outdated, though the region is
// not closed. So setEpoch drops the region. It is called before any answer of that connection is
// delivered.
func (m *memory) setEpoch(epoch uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setEpochLocked(epoch)
}

func (m *memory) setEpochLocked(epoch uint64) {
	if m.epoch != epoch {
		m.epoch = epoch
		m.generations++
		m.reader.Store(nil)
	}
}

// drop drops a region that the sidecar has ended, and asks for another one.
func (m *memory) drop(r *shm.Reader) {
	if ask := m.ask.Load(); m.reader.CompareAndSwap(r, nil) && ask != nil {
		(*ask)()
	}
}

// generation is taken before a region is asked for.
func (m *memory) generation() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.generations
}

// keep stores the region of a process, which was asked for after generation. It returns false if a
// HELLO has named another process meanwhile: the region may be that of the one before.
func (m *memory) keep(r *shm.Reader, epoch, generation uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.generations != generation {
		return false
	}
	m.setEpochLocked(epoch) // it may be the first HELLO of a process
	m.reader.Store(r)
	m.attached.Add(1)
	return true
}

// option tells the sidecar whether this client would find an answer in the shared memory.
func (m *memory) option() wire.Options {
	if m.reader.Load() == nil {
		return 0
	}
	return wire.Share
}

func (m *memory) mark(seed maphash.Seed, key []byte) *writeMark {
	return &m.writing[maphash.Bytes(seed, key)%writeMarks]
}

// beginWrite marks the keys of a write, until endWrite is called with its outcome.
func (m *memory) beginWrite(seed maphash.Seed, q *wire.Request) {
	for _, key := range q.Keys {
		m.mark(seed, key).underWay.Add(1)
	}
	if q.Key != nil {
		m.mark(seed, q.Key).underWay.Add(1)
	}
}

func (m *memory) endWrite(seed maphash.Seed, q *wire.Request, err error) {
	for _, key := range q.Keys {
		m.mark(seed, key).endWrite(q, err)
	}
	if q.Key != nil {
		m.mark(seed, q.Key).endWrite(q, err)
	}
}

func (w *writeMark) endWrite(q *wire.Request, err error) {
	if err != nil && changes(err) { // until then it may be executed
		until := int64(q.UntilNS) + int64(clockError)
		for old := w.until.Load(); old < until && !w.until.CompareAndSwap(old, until); old = w.until.Load() {
		}
	}
	w.underWay.Add(-1)
}

// clockError bounds how much two processes' readings of one clock may differ.
const clockError = 2 * time.Millisecond

// sameClock reports whether a sidecar has the same boot clock as this process: the
// clock's ID is the same, and the sidecar's reading lies between the two readings that
// were taken around HELLO.
func sameClock(b wire.BootClock, before, after time.Duration) bool {
	return b.ID != "" && b.ID == kv.BootClockID() && b.NowNS <= math.MaxInt64 &&
		time.Duration(b.NowNS) >= before-clockError && time.Duration(b.NowNS) <= after+clockError
}
