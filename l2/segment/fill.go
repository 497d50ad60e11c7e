package segment

import (
	"bytes"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Writes of what was known before they come: entries from another host, and
// what a load has brought. Such a write keeps the version that it comes with,
// and is refused if anything newer is known of its key.

// past is what a write brings with it from before.
type past struct {
	version    kv.Version
	generation uint16
	admit      func() bool
	hits       int        // that the entry had
	replaces   bool       // a live entry too
	same       identified // a chain that has the bytes of this write

	outdates bool // found on the way: copies of what is replaced differ
}

// identified is an entry as it was found once.
type identified struct {
	loc     location
	version kv.Version
}

// Restore puts an entry back as it was somewhere else, with its version: only
// where the key has no live entry, its partition still has the generation that
// Holding gave, and admit, which is called in the critical section that stores,
// agrees.
func (s *Store) Restore(e kv.Entry, generation uint16, hits int, admit func() bool, now kv.Moment) Result {
	return s.putPast(e.Key, Write{
		Value: e.Value, Flags: e.Flags, Deadline: e.Deadline, absent: e.Absent,
		past: &past{version: e.Version, generation: generation, hits: hits, admit: admit},
	}, now)
}

// Fill is what a load has brought, or an app in its place.
type Fill struct {
	Value      []byte // borrowed for the call
	Flags      uint32
	Deadline   kv.Deadline
	Version    kv.Version // of the moment at which the load began; it becomes the entry's
	Generation uint16     // of the partition at that moment

	Until time.Duration // as of Write

	// Absent says that the origin has no value. It is kept as a negative entry
	// until the deadline; where that is zero or has passed, what is there is only
	// removed.
	Absent bool

	// Admit is asked in the critical section that stores, if all else agrees,
	// and again if the store has to make room first.
	Admit func() bool
}

// Fill stores what a load has brought in place of what is there: Stored, Outdated,
// Overdue, TooLarge or NoRoom. It is outdated if the partition has another generation, a
// flush or an entry that is there is not older than the load, or Admit refuses.
//
// Changed is told only where copies may be about that must go: of a live entry,
// negative ones included, with another value or flags, with a value where there
// is none now or none where there is one, or with a later deadline. What it gets
// is a version of this moment.
func (s *Store) Fill(k kv.Key, f Fill, now kv.Moment) Result {
	return s.putPast(k, Write{
		Value: f.Value, Flags: f.Flags, Deadline: f.Deadline, Until: f.Until, absent: f.Absent,
		past: &past{version: f.Version, generation: f.Generation, admit: f.Admit, replaces: true},
	}, now)
}

func (s *Store) putPast(k kv.Key, w Write, now kv.Moment) Result {
	p := w.past
	s.cfg.Versions.Observe(p.version) // flush floors, and changes, lie above all that is stored
	if w.absent {
		w.Value, w.Flags = nil, 0
		if w.Deadline == 0 || w.Deadline.Passed(now.Boot) {
			return s.removePast(k, p, now)
		}
	}
	if p.replaces && s.isChain(k, &w) {
		p.same = s.findChain(k, &w)
	}
	_, r := s.Put(k, w, now)
	return r
}

// removePast removes what is there, if it may be replaced.
func (s *Store) removePast(k kv.Key, p *past, now kv.Moment) Result {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, _, h, _, found := sh.find(k)
	live := found && sh.visible(h, k.Hash.Partition(), now.Boot)
	switch {
	case live && !p.replaces:
		return Exists
	case sh.outdated(k, p, found, h):
		return Outdated
	case live:
		s.changed(k, now)
	}
	sh.drop(k, now)
	return Stored
}

// outdated says whether anything newer is known than what a write brings.
func (sh *shard) outdated(k kv.Key, p *past, found bool, old header) bool {
	partition := k.Hash.Partition()
	return p.generation != sh.store.Generation(partition) ||
		p.version < sh.counts[k.Namespace].floor ||
		found && sh.current(old, partition) && old.version >= p.version ||
		!p.admit()
}

// differs says whether a live entry's copies must go now that another takes its
// place: an end that comes earlier is to be seen everywhere too.
func differs(loc location, old header, b []byte, w *Write) bool {
	switch {
	case old.negative() != w.absent, old.clientFlags(b) != w.Flags,
		lastDeadline(w.Deadline) < lastDeadline(old.deadline):
		return true
	case old.marks&markChain != 0:
		return w.past.same != identified{loc, old.version}
	}
	return !bytes.Equal(old.value(b), w.Value)
}

// findChain finds a chain that has the bytes of a write. They are compared
// without the lock.
func (s *Store) findChain(k kv.Key, w *Write) identified {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, at, h, _, found := sh.find(k)
	if !found || h.marks&markChain == 0 || h.valueLen != len(w.Value) {
		return identified{}
	}
	seg, _ := s.split(at.loc())
	s.meta[seg].pins++
	sh.mu.Unlock()
	same, rest := true, w.Value
	for part := range s.parts(seg, h) {
		if same = bytes.Equal(part, rest[:len(part)]); !same {
			break
		}
		rest = rest[len(part):]
	}
	sh.mu.Lock()
	sh.unpin(seg)
	if !same {
		return identified{}
	}
	return identified{at.loc(), h.version}
}
