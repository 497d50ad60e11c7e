package shm

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Writer has what the sidecar decides by. The region is only written, never read, since
// others could change it. A Writer is of use before it has a region: what it learns until
// then holds for all that is published later. It is safe for concurrent use.
type Writer struct {
	region atomic.Pointer[region] // nil: none
	parts  [kv.Partitions]atomic.Uint64
	names  [kv.MaxNamespaces]nameState
	counts counts

	mu     sync.Mutex // guards the fields below, and the words of the region that stand for them
	owners [MaxOwners]uint64
	spaces [kv.MaxNamespaces]Space
}

// nameState is the part of a namespace's state that publishers read.
type nameState struct{ incarnation, generation atomic.Uint64 }

type counts struct {
	published, refused, busy, withdrawn atomic.Int64
}

// Stats are what a Writer has done.
type Stats struct {
	Published int64 // entries
	Refused   int64 // that a change outdated while they were published
	Busy      int64 // not published, since another one was
	Withdrawn int64 // entries taken away because of a change of a key
	Size      int64 // bytes of the region; zero: none
}

// Stats returns the counts.
func (w *Writer) Stats() Stats {
	s := Stats{
		Published: w.counts.published.Load(), Refused: w.counts.refused.Load(), Busy: w.counts.busy.Load(),
		Withdrawn: w.counts.withdrawn.Load(),
	}
	if r := w.region.Load(); r != nil {
		s.Size = int64(len(r.mem))
	}
	return s
}

// Space is a namespace as readers see it.
type Space struct {
	Name  string
	Seed  uint64        // of the keys' hashes
	Bound time.Duration // of staleness
}

// Generations are taken before anything else that a published entry depends on.
type Generations struct{ incarnation, namespace, partition uint64 }

// Entry is what is published.
type Entry struct {
	Key      kv.Key
	Value    []byte
	Flags    uint32
	Version  kv.Version
	Ends     time.Duration // on the boot clock; zero: never
	Absent   bool          // the origin has no such key
	Owner    uint8         // the slot of its owner; zero: this host
	Taken    Generations
	position uint64
}

// Open reports whether publishing has any use now, for a namespace.
func (w *Writer) Open(ns kv.NamespaceID) bool {
	return w.region.Load() != nil && w.names[ns].incarnation.Load() != 0
}

// Take returns the present generations of a key.
func (w *Writer) Take(ns kv.NamespaceID, h kv.Hash) Generations {
	n := &w.names[ns]
	return Generations{n.incarnation.Load(), n.generation.Load(), w.parts[h.Partition()].Load()}
}

// Publish makes an entry readable if still, which is asked under the lock that withdrawals
// take, says that it is current. still must not block.
func (w *Writer) Publish(e *Entry, still func() bool) bool {
	r := w.region.Load()
	if r == nil || len(e.Value) > MaxValue || e.Taken.incarnation == 0 {
		return false
	}
	if !r.mu.TryLock() {
		w.counts.busy.Add(1)
		return false
	}
	defer runtime.KeepAlive(r)
	defer r.mu.Unlock()
	e.position = r.claim(linesOf(len(e.Key.Bytes) + len(e.Value)))
	r.write(e)
	old, ok := r.list(e, still)
	if !ok {
		w.counts.refused.Add(1)
		r.erase(e.place())
		return false
	}
	w.counts.published.Add(1)
	r.erase(old)
	return true
}

// Withdraw takes a key away. The change of the key has been noted: a publisher that asks
// from now on finds it.
func (w *Writer) Withdraw(h kv.Hash) {
	r := w.region.Load()
	if r == nil {
		return
	}
	defer runtime.KeepAlive(r)
	if old, n := r.unlist(h); n > 0 {
		w.counts.withdrawn.Add(int64(n))
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, p := range old[:n] {
			r.erase(p)
		}
	}
}

// Warm does for Withdraw what invalidation.Ledger.Warm does for Note.
func (w *Writer) Warm(hashes []kv.Hash) (sum uint64) {
	r := w.region.Load()
	if r == nil {
		return 0
	}
	defer runtime.KeepAlive(r)
	for _, h := range hashes {
		if r.buckets[r.shape.bucket(h)].locked.Load() {
			sum++
		}
	}
	return sum
}

// RaisePartitions takes all keys of some partitions away. What they are outdated by has been
// noted.
func (w *Writer) RaisePartitions(set kv.PartitionSet) {
	for p := range set.All() {
		v := w.parts[p].Add(1)
		if r := w.region.Load(); r != nil {
			raise(r.mem.word(atParts+8*int(p)), v)
			runtime.KeepAlive(r)
		}
	}
}

// raise raises a word to v, unless it is higher.
func raise(word *atomic.Uint64, v uint64) {
	for old := word.Load(); old < v; old = word.Load() {
		if word.CompareAndSwap(old, v) {
			return
		}
	}
}

// EndNamespace takes all keys of a namespace away.
func (w *Writer) EndNamespace(ns kv.NamespaceID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names[ns].generation.Add(1)
	w.tellSpace(ns)
}

// SetNamespace says which namespace has a slot; an empty name: none that is shared. Nothing
// that was published for another one under the slot is served any more.
func (w *Writer) SetNamespace(ns kv.NamespaceID, s Space) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := &w.spaces[ns]; old.Name == s.Name && old.Seed == s.Seed {
		w.spaces[ns] = s // its bound
		w.tellSpace(ns)
		return
	}
	n := &w.names[ns]
	n.generation.Add(1) // it is never put back, so it tells the incarnations apart
	incarnation := uint64(0)
	if w.spaces[ns] = s; s.Name != "" {
		incarnation = n.generation.Load()
	}
	n.incarnation.Store(incarnation)
	w.tellSpace(ns)
}

// tellSpace writes the state of a slot to the region. w.mu is held.
func (w *Writer) tellSpace(ns kv.NamespaceID) {
	r := w.region.Load()
	if r == nil {
		return
	}
	defer runtime.KeepAlive(r)
	at, s := atNames+nameSize*int(ns), &w.spaces[ns]
	incarnation := w.names[ns].incarnation.Load()
	if r.mem.word(at+nsIncarnation).Load() != incarnation {
		r.mem.word(at + nsIncarnation).Store(0) // no reader trusts the name while it changes
		var name [nameSize - nsName]byte
		copy(name[:], s.Name)
		for i := 0; i < len(name); i += 8 {
			r.mem.word(at + nsName + i).Store(order.Uint64(name[i:]))
		}
		r.mem.word(at + nsNameLen).Store(uint64(len(s.Name)))
		r.mem.word(at + nsSeed).Store(s.Seed)
	}
	r.mem.word(at + nsBound).Store(uint64(s.Bound))
	r.mem.word(at + nsGeneration).Store(w.names[ns].generation.Load())
	r.mem.word(at + nsIncarnation).Store(incarnation)
}

// Certify says that everything that an owner accepted until a moment of the boot clock has
// been noted here; zero takes it back.
func (w *Writer) Certify(owner uint8, at time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.certify(owner, uint64(at))
}

// CertifyLater is Certify, unless a later moment stands there.
func (w *Writer) CertifyLater(owner uint8, at time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if uint64(at) > w.owners[owner] {
		w.certify(owner, uint64(at))
	}
}

// Certified returns what Certify has said last.
func (w *Writer) Certified(owner uint8) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Duration(w.owners[owner])
}

// Renew is Certify, unless another value than old stands there.
func (w *Writer) Renew(owner uint8, old, at time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owners[owner] == uint64(old) {
		w.certify(owner, uint64(at))
	}
}

// Revoke takes back what was certified of all owners.
func (w *Writer) Revoke() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.owners {
		w.certify(uint8(i), 0)
	}
}

func (w *Writer) certify(owner uint8, at uint64) {
	w.owners[owner] = at
	if r := w.region.Load(); r != nil {
		r.mem.word(atOwners + 8*int(owner)).Store(at)
		runtime.KeepAlive(r)
	}
}

// Attach begins to publish into a region. The file is new, and nothing has read it.
func (w *Writer) Attach(f *File, epoch uint64, bound time.Duration) {
	r := newRegion(f.mem)
	defer runtime.KeepAlive(r)
	m := r.mem
	m.word(atEpoch).Store(epoch)
	m.word(atBound).Store(uint64(bound))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.region.Store(r) // from now on others raise the generations in it
	for p := range w.parts {
		raise(m.word(atParts+8*p), w.parts[p].Load())
	}
	for ns := range w.names {
		w.tellSpace(kv.NamespaceID(ns))
	}
	for i, at := range w.owners {
		m.word(atOwners + 8*i).Store(at)
	}
	m.word(atState).Store(Serving)
}

// End ends the region: no reader serves anything from it.
func (w *Writer) End() {
	if r := w.region.Swap(nil); r != nil {
		r.mem.word(atState).Store(Closed)
		runtime.KeepAlive(r)
	}
}

// Abandon leaves the region as a process does that is killed. It is for tests.
func (w *Writer) Abandon() { w.region.Store(nil) }

// Count raises the counter of the region and returns it: an app that finds it in its mapping
// has the region of this sidecar. Zero: there is no region.
func (w *Writer) Count() uint64 {
	if r := w.region.Load(); r != nil {
		n := r.counter.Add(1)
		raise(r.mem.word(atCounter), n)
		runtime.KeepAlive(r)
		return n
	}
	return 0
}
