package segment

import (
	"bytes"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Writes with a version from the past: entries from another host, and the results of
// loads. Such a write keeps the version that it comes with. It is refused if the store
// has something newer for its key.

// past is what such a write brings along.
type past struct {
	version    kv.Version
	generation uint16
	admit      func() bool
	hits       int        // that the entry had
	replaces   bool       // replaces a live entry too
	same       identified // a chain that has the bytes of this write

	outdates bool // set by put: copies of the replaced entry are outdated
}

// identified names an entry as it was found at some time.
type identified struct {
	loc     location
	version kv.Version
}

// Restore puts an entry back as it was elsewhere, with its version. It does so only if
// the key has no live entry, its partition still has the given generation, and admit
// returns true. admit is called in the critical section that stores.
func (s *Store) Restore(e kv.Entry, generation uint16, hits int, admit func() bool, now kv.Moment) Result {
	return s.putPast(e.Key, Write{
		Value: e.Value, Flags: e.Flags, Deadline: e.Deadline, absent: e.Absent,
		past: &past{version: e.Version, generation: generation, hits: hits, admit: admit},
	}, now)
}

// Fill is the result of a load that this host, or an app in its place, has made.
type Fill struct {
	Value      []byte // not kept after the call
	Flags      uint32
	Deadline   kv.Deadline
	Version    kv.Version // of the moment at which the load began; the entry gets it
	Generation uint16     // of the partition at that moment

	Until time.Duration // as in Write

	// Absent says that the origin has no value. A negative entry is kept until the
	// deadline. If the deadline is zero or has passed, the present entry is only
	// removed.
	Absent bool

	// Admit is called in the critical section that stores, if everything else agrees,
	// and again if the store has to make room first. Fill stores only if it returns
	// true.
	Admit func() bool
}

// Fill stores the result of a load in place of the present entry. It returns Stored,
// Outdated, Overdue, TooLarge or NoRoom. A fill is outdated if the partition has another
// generation, if a flush or the present entry is not older than the load, or if Admit
// returns false.
//
// Fill calls Config.Changed only if copies of the present entry must go. The entry is
// live (it may be negative), and:
//   - its value or flags differ from the new ones;
//   - or a value replaces a negative entry, or the reverse;
//   - or the new deadline is earlier;
//   - or the entry is only removed.
//
// The version passed to Changed is stamped at this moment.
func (s *Store) Fill(k kv.Key, f Fill, now kv.Moment) Result {
	return s.putPast(k, Write{
		Value: f.Value, Flags: f.Flags, Deadline: f.Deadline, Until: f.Until, absent: f.Absent,
		past: &past{version: f.Version, generation: f.Generation, admit: f.Admit, replaces: true},
	}, now)
}

func (s *Store) putPast(k kv.Key, w Write, now kv.Moment) Result {
	p := w.past
	// Flush floors, and changes, must exceed all that is stored.
	s.cfg.Versions.Observe(p.version)
	if w.absent {
		w.Value, w.Flags = nil, 0
		if w.Deadline == 0 || w.Deadline.Passed(now.Boot) {
			return s.removePast(k, p, now)
		}
	}
	if p.replaces && s.isChain(&k, &w) {
		p.same = s.findChain(k, &w)
	}
	_, r := s.Put(k, w, now)
	return r
}

// removePast removes the present entry, if it may be replaced.
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

// outdated reports whether the store has something newer than what a write brings.
func (sh *shard) outdated(k kv.Key, p *past, found bool, old header) bool {
	partition := k.Hash.Partition()
	return p.generation != sh.store.Generation(partition) ||
		p.version < sh.counts[k.Namespace].floor ||
		found && sh.current(old, partition) && old.version >= p.version ||
		!p.admit()
}

// differs reports whether copies of a live entry must go because w replaces it. An
// earlier deadline is a difference too: all readers must see it.
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

// findChain finds a chain that has the bytes of a write. It compares them without the
// lock.
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
