package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Writes with a version from the past: entries from another host, and the results of loads. Such a write keeps the
// version that it comes with. It is refused if the store has something newer for its key.

// past is what such a write brings along.
type past struct {
	generation uint16
	admit      func() bool
	hits       int  // that the entry had
	replaces   bool // replaces a live entry too

	leavesCopies bool       // set by put: see mayLeaveCopies
	event        kv.Version // of the change, if it is one
}

// Restore puts an entry back as it was elsewhere, with its version. It does so only if the key has no live entry, and
// had none that may have copies, its partition still has the given generation, and admit returns true. admit is
// called in the critical section that stores.
func (s *Store) Restore(e kv.Entry, generation uint16, hits int, admit func() bool, now kv.Moment) Result {
	_, r := s.putPast(e.Key, Write{
		Value: e.Value, Facts: e.Facts, past: &past{generation: generation, hits: hits, admit: admit},
	}, now)
	return r
}

// Fill is the result of a load that this host, or an app in its place, has made.
type Fill struct {
	Value []byte // not kept after the call

	// The version is of the moment at which the load began. A negative entry is kept until the
	// deadline. If the deadline is zero or has passed, the present entry is only removed.
	kv.Facts
	Generation uint16 // of the partition at that moment

	ExecuteBefore time.Duration // as in Write

	// Admit is called in the critical section that stores, if everything else agrees, and again if the store has to
	// make room first. Fill stores only if it returns true.
	Admit func() bool
}

// Fill stores the result of a load in place of the present entry. It returns Stored, Outdated, Overdue, TooLarge or
// NoRoom. A fill is outdated if the partition has another generation, if a flush or the present entry is not older
// than the load, or if Admit returns false.
//
// Fill calls Config.Changed only if copies of an earlier value may be alive: the live entry
// that it replaces or removes may have copies, or one that was evicted may; or if AnnounceFills says so. The version
// passed to Changed is stamped at this moment. Fill returns it as the event; else zero.
func (s *Store) Fill(k kv.Key, f Fill, now kv.Moment) (event kv.Version, r Result) {
	return s.putPast(k, Write{
		Value: f.Value, Facts: f.Facts, ExecuteBefore: f.ExecuteBefore,
		past: &past{generation: f.Generation, admit: f.Admit, replaces: true},
	}, now)
}

func (s *Store) putPast(k kv.Key, w Write, now kv.Moment) (event kv.Version, r Result) {
	p := w.past
	// Flush floors, and changes, must exceed all that is stored.
	s.cfg.Versions.Observe(w.Version)
	if w.Kind == kv.Absent {
		w.Value, w.Attributes = nil, kv.Attributes{}
		if w.Deadline == 0 || w.Deadline.Passed(now.Boot) {
			r = s.removePast(k, &w, now)
			return p.event, r
		}
	}
	_, r = s.Put(k, w, now)
	return p.event, r
}

// removePast removes the present entry, if it may be replaced.
func (s *Store) removePast(k kv.Key, w *Write, now kv.Moment) Result {
	p, sh := w.past, s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, _, h, _, found := sh.find(k)
	live := found && sh.visible(h, k.Hash.Partition(), now.Boot)
	switch {
	case live && !p.replaces:
		return Exists
	case sh.storeIsNewer(k, w, found, h):
		return Outdated
	case sh.mayLeaveCopies(k, p, live, h, now.Boot):
		p.event = s.endCopies(k, now)
	}
	sh.drop(k, now)
	return Stored
}

// storeIsNewer reports whether the store has something newer than what a write brings.
func (sh *shard) storeIsNewer(k kv.Key, w *Write, found bool, old header) bool {
	p, partition := w.past, k.Hash.Partition()
	switch {
	case p.generation != sh.store.Generation(partition),
		w.Version < sh.counts[k.Namespace].floor,
		found && sh.current(old, partition) && old.version >= w.Version,
		!p.replaces && sh.store.mayBeCopied(k.Hash):
		return true
	}
	return !p.admit()
}

// mayLeaveCopies reports whether a write would leave copies of an earlier value behind, or the entry
// itself where it was kept.
func (sh *shard) mayLeaveCopies(k kv.Key, p *past, live bool, old header, now time.Duration) bool {
	switch {
	case p.replaces && sh.store.announces(k.Hash.Partition(), now):
		return true
	case live && old.marks&markCopied != 0, sh.store.mayBeCopied(k.Hash):
		return !failpoint.Out(failpoint.Copied)
	}
	return false
}
