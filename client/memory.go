package client

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
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

// findAgain is how long a namespace that is not in the region is not looked for.
const findAgain = 10 * time.Millisecond

// local answers a read from this process or from the memory that it shares with the sidecar.
func (c *Client) local(ctx context.Context, key string, o cachesidecar.GetOptions) (
	it cachesidecar.Item, ok bool, err error,
) {
	if it, ok = c.near.get(ctx, key, o); ok {
		return it, true, nil
	}
	r := c.memory.reader.Load()
	if r == nil || o.Fresh || len(key) == 0 || len(key) > kv.MaxKeyLen || ctx.Err() != nil {
		return it, false, nil
	}
	return fromMemory(c, r, key)
}

// fromMemory answers a read from the shared memory. It allocates the value only.
func fromMemory(c *Client, r *shm.Reader, key string) (it cachesidecar.Item, ok bool, err error) {
	now := c.clock.Read().Boot // before anything else
	p := c.place.Load()
	if p == nil || p.reader != r || !p.found && now >= p.again {
		p = find(c, r, now)
	}
	if !p.found {
		return it, false, nil
	}
	k := borrowed(key)
	m := c.memory.mark(c.seed, k)
	if m.underWay.Load() != 0 || int64(now) < m.until.Load() {
		return it, false, nil
	}
	f, ok, gone := r.Get(&p.view, p.view.Hash(k), k, now)
	if !ok {
		if gone {
			c.place.CompareAndSwap(p, nil)
		}
		if r.Closed() {
			c.memory.drop(r)
		}
		return it, false, nil
	}
	if f.Kind == kv.Absent {
		p.tally.add(isAbsent, key)
		return it, true, calls.Err(&wire.Reply{Status: wire.Miss, Why: wire.Absent})
	}
	p.tally.add(inShared, key)
	it = calls.ItemOf(f.Value, f.Facts)
	it.TTL, it.Source, it.Age = ttlOf(f.Ends, now), "shared", f.Age
	return it, true, nil
}

// ttlOf returns the time until an end, in whole milliseconds and at least one.
func ttlOf(ends, now time.Duration) time.Duration {
	if ends == 0 {
		return 0
	}
	return max(time.Millisecond, (ends - now).Truncate(time.Millisecond))
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

// find looks the client's namespace up in a region.
func find(c *Client, r *shm.Reader, now time.Duration) *place {
	name := c.cfg.Namespace
	if c.namespace != nil {
		name = string(c.namespace)
	}
	p := &place{reader: r, again: now + findAgain}
	if p.view, p.found = r.Find(name); p.found {
		p.tally = c.hits.of(name)
	}
	c.place.Store(p)
	return p
}

func (m *memory) mark(seed maphash.Seed, key []byte) *writeMark {
	return &m.writing[maphash.Bytes(seed, key)%writeMarks]
}

// begin marks the keys of a write, until end is called with its outcome.
func (m *memory) begin(seed maphash.Seed, q *wire.Request) {
	for _, key := range q.Keys {
		m.mark(seed, key).underWay.Add(1)
	}
	if q.Key != nil {
		m.mark(seed, q.Key).underWay.Add(1)
	}
}

func (m *memory) end(seed maphash.Seed, q *wire.Request, err error) {
	for _, key := range q.Keys {
		m.mark(seed, key).end(q, err)
	}
	if q.Key != nil {
		m.mark(seed, q.Key).end(q, err)
	}
}

func (w *writeMark) end(q *wire.Request, err error) {
	if err != nil && changes(err) { // until then it may be executed
		until := int64(q.UntilNS) + int64(clockError)
		for old := w.until.Load(); old < until && !w.until.CompareAndSwap(old, until); old = w.until.Load() {
		}
	}
	w.underWay.Add(-1)
}

// SharedStats is the statistics of the memory that this client shares with the sidecar.
type SharedStats struct {
	Attached bool  // whether there is a region that serves
	Regions  int64 // that were attached so far
	Hits     int64 // reads that were answered from it
}

// SharedStats returns the statistics of the shared memory.
func (c *Client) SharedStats() SharedStats {
	r := c.memory.reader.Load()
	return SharedStats{
		Attached: r != nil && !r.Closed(), Regions: c.memory.attached.Load(), Hits: c.hits.count(inShared, isAbsent),
	}
}
