package shm

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Writer has what the sidecar decides by. Regions are only written, never read, since
// others could change them. A Writer is of use before it has a region: what it learns until
// then holds for all that is published later. It is safe for concurrent use.
type Writer struct {
	regions atomic.Pointer[[]*Region] // nil: none; such a list is never changed
	parts   [kv.Partitions]atomic.Uint64
	names   [kv.MaxNamespaces]nameState
	counts  counts

	mu     sync.Mutex // guards the list, the fields below, and the words of the regions that stand for them
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
}

// Stats returns the counts.
func (w *Writer) Stats() Stats {
	return Stats{
		Published: w.counts.published.Load(), Refused: w.counts.refused.Load(), Busy: w.counts.busy.Load(),
		Withdrawn: w.counts.withdrawn.Load(),
	}
}

// all returns the regions that are written.
func (w *Writer) all() []*Region {
	if list := w.regions.Load(); list != nil {
		return *list
	}
	return nil
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
	Key   kv.Key
	Value []byte
	kv.Facts
	Ends     time.Duration // in place of the deadline: on the boot clock; zero: never
	Owner    uint8         // the slot of its owner; zero: this host
	Taken    Generations
	position uint64
}

// Open reports whether publishing has any use now, for a namespace.
func (w *Writer) Open(ns kv.NamespaceID) bool { return w.names[ns].incarnation.Load() != 0 }

// Take returns the present generations of a key.
func (w *Writer) Take(ns kv.NamespaceID, h kv.Hash) Generations {
	n := &w.names[ns]
	return Generations{n.incarnation.Load(), n.generation.Load(), w.parts[h.Partition()].Load()}
}

// MaxValue is the longest value that is published, in bytes.
const MaxValue = 16 << 10

// Publish makes an entry readable in a region if still, which is asked under the lock that
// withdrawals take, says that it is current. still must not block.
func (w *Writer) Publish(r *Region, e *Entry, still func() bool) bool {
	if len(e.Value) > MaxValue || e.Taken.incarnation == 0 {
		return false
	}
	if !r.mu.TryLock() {
		w.counts.busy.Add(1)
		return false
	}
	defer runtime.KeepAlive(r)
	defer r.mu.Unlock()
	if r.ended {
		return false
	}
	e.position = r.claim(linesOf(len(e.Key.Bytes) + len(e.Value)))
	r.write(e)
	old, ok := r.list(e, func() bool { return w.keeps(e) && still() })
	if !ok {
		w.counts.refused.Add(1)
		r.erase(e.place())
		return false
	}
	w.counts.published.Add(1)
	r.erase(old)
	return true
}

// keeps reports whether the namespace of an entry is the one for which it was taken. If not,
// its entries have been erased, or will be.
func (w *Writer) keeps(e *Entry) bool {
	n := &w.names[e.Key.Namespace]
	return n.incarnation.Load() == e.Taken.incarnation && n.generation.Load() == e.Taken.namespace
}

// Withdraw takes a key away. The change of the key has been noted: a publisher that asks
// from now on finds it.
func (w *Writer) Withdraw(h kv.Hash) {
	for _, r := range w.all() {
		if old, n := r.unlist(h); n > 0 {
			w.counts.withdrawn.Add(int64(n))
			r.eraseAll(old[:n])
		}
		runtime.KeepAlive(r)
	}
}

// Warm does for Withdraw what invalidation.Ledger.Warm does for Note.
func (w *Writer) Warm(hashes []kv.Hash) (sum uint64) {
	for _, r := range w.all() {
		for _, h := range hashes {
			if r.buckets[r.shape.bucket(h)].locked.Load() {
				sum++
			}
		}
	}
	return sum
}

// RaisePartitions takes all keys of some partitions away. What they are outdated by has been
// noted.
func (w *Writer) RaisePartitions(set kv.PartitionSet) {
	for p := range set.All() {
		v := w.parts[p].Add(1)
		for _, r := range w.all() {
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

// EndNamespace takes all keys of a namespace away, and erases them.
func (w *Writer) EndNamespace(ns kv.NamespaceID) {
	w.mu.Lock()
	w.names[ns].generation.Add(1)
	w.tellSpace(ns)
	w.mu.Unlock()
	w.eraseNamespace(ns)
}

// SetNamespace says which namespace has a slot; an empty name: none that is shared. Nothing
// that was published for another one under the slot is served any more, or can be read.
func (w *Writer) SetNamespace(ns kv.NamespaceID, s Space) {
	w.mu.Lock()
	old := w.spaces[ns]
	w.spaces[ns] = s
	other := old.Name != s.Name || old.Seed != s.Seed // else its bound may be another one
	if other {
		n := &w.names[ns]
		n.generation.Add(1) // it is never put back, so it tells the incarnations apart
		incarnation := uint64(0)
		if s.Name != "" {
			incarnation = n.generation.Load()
		}
		n.incarnation.Store(incarnation)
	}
	w.tellSpace(ns)
	w.mu.Unlock()
	if other {
		w.eraseNamespace(ns)
	}
}

func (w *Writer) eraseNamespace(ns kv.NamespaceID) {
	for _, r := range w.all() {
		r.eraseNamespace(ns)
		runtime.KeepAlive(r)
	}
}

// tellSpace writes the state of a slot to the regions. w.mu is held.
func (w *Writer) tellSpace(ns kv.NamespaceID) {
	for _, r := range w.all() {
		r.tellSpace(ns, &w.spaces[ns], w.names[ns].incarnation.Load(), w.names[ns].generation.Load())
		runtime.KeepAlive(r)
	}
}

// tellSpace writes the state of a slot. The writer's lock is held.
func (r *Region) tellSpace(ns kv.NamespaceID, s *Space, incarnation, generation uint64) {
	if !r.shows(s.Name) {
		incarnation, generation, s = 0, 0, &Space{}
	}
	at := atNames + nameSize*int(ns)
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
	r.mem.word(at + nsGeneration).Store(generation)
	r.mem.word(at + nsIncarnation).Store(incarnation)
}

// Certify says that everything that an owner accepted until a moment of the boot clock has
// been noted here, unless a later moment stands there.
func (w *Writer) Certify(owner uint8, at time.Duration) {
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

// RevokeOwner takes back what was certified of an owner: another one may get its slot.
func (w *Writer) RevokeOwner(owner uint8) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.certify(owner, 0)
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
	for _, r := range w.all() {
		r.mem.word(atOwners + 8*int(owner)).Store(at)
		runtime.KeepAlive(r)
	}
}

// Attach begins to publish into a region, which tells of the namespaces that shows names. The
// file is new, and nothing has read it.
func (w *Writer) Attach(f *File, epoch uint64, bound time.Duration, shows func(namespace string) bool) *Region {
	r := newRegion(f, shows)
	defer runtime.KeepAlive(r)
	m := r.mem
	m.word(atEpoch).Store(epoch)
	m.word(atBound).Store(uint64(bound))
	w.mu.Lock()
	defer w.mu.Unlock()
	list := append(slices.Clone(w.all()), r)
	w.regions.Store(&list) // from now on others raise the generations in it
	for p := range w.parts {
		raise(m.word(atParts+8*p), w.parts[p].Load())
	}
	for ns := range w.names {
		r.tellSpace(kv.NamespaceID(ns), &w.spaces[ns], w.names[ns].incarnation.Load(), w.names[ns].generation.Load())
	}
	for i, at := range w.owners {
		m.word(atOwners + 8*i).Store(at)
	}
	m.word(atState).Store(Serving)
	return r
}

// End ends a region: no reader serves anything from it, and what was there can be read no more.
func (w *Writer) End(r *Region) {
	w.mu.Lock()
	list := slices.DeleteFunc(slices.Clone(w.all()), func(other *Region) bool { return other == r })
	w.regions.Store(&list)
	w.mu.Unlock()
	r.closeRegion()
	runtime.KeepAlive(r)
}

// Abandon leaves the regions as a process does that is killed. It is for tests.
func (w *Writer) Abandon() {
	for _, r := range w.all() {
		r.stop()
	}
	w.regions.Store(nil)
}

// Size returns the size of the region in bytes.
func (r *Region) Size() int64 { return int64(len(r.mem)) }

// Count raises the counter of the region and returns it: an app that finds it in its mapping
// has the region of this sidecar.
func (r *Region) Count() uint64 {
	n := r.counter.Add(1)
	raise(r.mem.word(atCounter), n)
	runtime.KeepAlive(r)
	return n
}
