package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Mode is the condition on which a write stores.
type Mode uint8

const (
	Set            Mode = iota // always
	Add                        // if the key is absent
	Replace                    // if the key is present
	CompareAndSwap             // if the key is present with version Write.Compare

	// The modes of Concat.
	Append
	Prepend
)

// Write is what Put stores.
type Write struct {
	Value         []byte // not kept after the call
	kv.Facts             // without a version, but in Restore and Fill
	Mode          Mode
	Compare       kv.Version
	ExecuteBefore time.Duration // boot clock; from then on nothing is stored; zero: never

	keeps bool  // the present deadline stays
	past  *past // set if the version is an earlier one: Restore and Fill
}

// Result is the outcome of a write, or of a Look.
type Result uint8

const (
	Stored    Result = iota
	Exists           // the condition failed: the key is present; see Put
	Absent           // the condition failed: the key is absent
	TooLarge         // the value is longer than MaxValue or the namespace's quota
	NoRoom           // all that could be evicted is being read
	NotNumber        // Incr on a value that is not a decimal number of 64 bits
	Overflow         // Incr beyond the range of int64
	Contended        // Concat, again and again: other writes came in between
	Outdated         // Restore or Fill of an entry to which the store has something newer
	Overdue          // ExecuteBefore has come: the caller has given up
	NotOwner         // this host does not serve the key's partition any more
	Found            // of Look: there is an entry
)

// shortage is what a write lacks in a shard. The store provides it without the lock of that
// shard, and the write starts again.
type shortage uint8

const (
	nothingShort shortage = iota
	segmentShort
	quotaShort
)

// maxTries bounds how often a write makes room and finds that another write took it.
const maxTries = 64

// Put stores a value and returns the version stamped. With Exists, it returns the version
// of the entry that is present.
func (s *Store) Put(k kv.Key, w Write, now kv.Moment) (kv.Version, Result) {
	if len(w.Value) > s.cfg.MaxValue || s.exceedsWholeQuota(&k, &w) {
		return 0, TooLarge
	}
	sh := s.shard(k.Hash)
	if s.isChain(&k, &w) {
		return s.putChain(sh, k, &w, now)
	}
	for range maxTries {
		sh.mu.Lock()
		v, r, short := sh.put(k, &w, noSegment, now)
		sh.mu.Unlock()
		if short == nothingShort {
			return v, r
		}
		if !s.makeRoomFor(short, sh, k.Namespace, entrySize(&k, &w), now) {
			break
		}
	}
	sh.countNoRoom()
	return 0, NoRoom
}

// overdue reports whether the caller of a write has given up. A shard is locked.
func (s *Store) overdue(until time.Duration) bool {
	return until != 0 && s.cfg.Overdue != nil && s.cfg.Overdue(until)
}

// stamp gives a write its version and reports the change.
func (s *Store) stamp(k kv.Key, w *Write, now kv.Moment) kv.Version {
	if w.past == nil {
		if s.cfg.Written != nil {
			s.cfg.Written(k, now.Boot)
		}
		return s.changed(k, now)
	}
	if w.past.leavesCopies {
		w.past.event = s.endCopies(k, now)
	}
	return w.Version
}

// changed stamps and reports a change of a key.
func (s *Store) changed(k kv.Key, now kv.Moment) kv.Version {
	v := s.cfg.Versions.Next(now.Wall)
	if s.cfg.Changed != nil {
		s.cfg.Changed(k, v)
	}
	return v
}

// makeRoomFor makes the room that a write lacks.
func (s *Store) makeRoomFor(short shortage, sh *shard, ns kv.NamespaceID, size int, now kv.Moment) bool {
	if short == quotaShort {
		return s.makeQuota(sh, ns, int64(size), now.Boot)
	}
	return s.makeRoom(sh, now.Boot)
}

func (sh *shard) countNoRoom() {
	sh.mu.Lock()
	sh.n.NoRoom++
	sh.mu.Unlock()
}

// exceedsWholeQuota reports whether an entry exceeds the quota of its namespace even if it
// is the only entry there.
func (s *Store) exceedsWholeQuota(k *kv.Key, w *Write) bool {
	quota := s.namespaces[k.Namespace].quota.Load()
	return quota > 0 && int64(entrySize(k, w)) > quota
}

func headerFor(k *kv.Key, w *Write) header {
	h := header{deadline: w.Deadline, valueLen: len(w.Value)}
	h.namespace, h.keyLen, h.marks = k.Namespace, uint16(len(k.Bytes)), marksOf(&w.Facts)
	return h
}

func entrySize(k *kv.Key, w *Write) int { h := headerFor(k, w); return h.size() }

func (s *Store) isChain(k *kv.Key, w *Write) bool { return entrySize(k, w) > s.cfg.SegmentSize/2 }

// put stores an entry, or returns what it lacks. The lock is held. If chain is a segment,
// the value has already been written into that chain.
func (sh *shard) put(k kv.Key, w *Write, chain segmentID, now kv.Moment) (kv.Version, Result, shortage) {
	switch {
	case sh.store.overdue(w.ExecuteBefore):
		return 0, Overdue, nothingShort
	case w.past == nil && !sh.store.serves(k.Hash):
		return 0, NotOwner, nothingShort
	}
	at, old, oldHeader, b, found := sh.find(k)
	partition := k.Hash.Partition()
	live := found && sh.visible(oldHeader, partition, now.Boot)
	present := live && !oldHeader.negative()
	switch {
	case present && (w.Mode == Add || w.Mode == CompareAndSwap && oldHeader.version != w.Compare):
		return oldHeader.version, Exists, nothingShort
	case !present && (w.Mode == Replace || w.Mode == CompareAndSwap):
		return 0, Absent, nothingShort
	}

	if w.keeps {
		w.Deadline = oldHeader.deadline
	}
	h := headerFor(&k, w)
	h.generation, h.birth = sh.store.Generation(partition), oldHeader.birth
	if p := w.past; p != nil {
		switch {
		case live && !p.replaces:
			return oldHeader.version, Exists, nothingShort
		case sh.storeIsNewer(k, w, found, oldHeader):
			return 0, Outdated, nothingShort
		}
		p.leavesCopies = sh.mayLeaveCopies(k, p, live, oldHeader, now.Boot)
	}
	class := classOf(sh.store.due(h), now.Boot)
	if live && w.Mode == CompareAndSwap { // it depends on the value, as a read does
		old = old.withHits(min(old.hits()+1, maxHits))
		sh.index.setWord(at, old)
	}
	if live && chain == noSegment && sh.rewrite(old.loc(), b, oldHeader, &h, class, k, w, now) {
		return h.version, Stored, nothingShort
	}
	return sh.place(k, w, chain, now, h, class, previous{at, old, oldHeader, found, live})
}

// previous is the entry of a key before a write.
type previous struct {
	at     slot
	word   word
	header header
	found  bool // there is an entry
	live   bool // and it is served
}

func (prev *previous) size() int {
	if !prev.found {
		return 0
	}
	return prev.header.size()
}

// place stores an entry in a place of its own, or returns what it lacks. The index then
// points to it instead of the previous entry, if there is one.
func (sh *shard) place(
	k kv.Key, w *Write, chain segmentID, now kv.Moment, h header, class int, old previous,
) (kv.Version, Result, shortage) {
	size := h.size()
	if !old.found {
		sh.makePlace(k, now.Boot)
		h.birth = sh.birth(k.Namespace)
	}
	if !sh.reserve(k.Namespace, int64(size), int64(old.size())) {
		return 0, 0, quotaShort
	}

	// The queue of the key's last value; else main if admission has dropped the key lately.
	q, hits, ghost := admission, 0, []byte(nil)
	if old.live {
		seg, _ := sh.store.split(old.word.loc())
		q, hits = int(sh.store.meta[seg].queue), old.word.hits()
	} else if ghost = sh.ghosts.find(k.Hash); ghost != nil || w.past != nil && w.past.hits >= promoteHits {
		q = mainQueue
	}
	var loc location
	if chain != noSegment {
		h.marks |= markChain
		h.version = sh.store.stamp(k, w, now)
		loc = sh.enqueueChain(chain, q, class, h)
	} else {
		seg := sh.room(q, class, size)
		if seg == noSegment {
			sh.release(k.Namespace, int64(size))
			return 0, 0, segmentShort
		}
		h.version = sh.store.stamp(k, w, now)
		loc = sh.append(seg, h, k, w)
	}

	if old.found {
		sh.index.setWord(old.at, old.word.withLoc(loc).withHits(hits))
		sh.dead(old.word.loc(), old.header)
	} else {
		sh.index.insert(k.Hash, makeWord(k.Hash, 0, loc))
	}
	sh.alive(loc, h)
	if old.live {
		sh.n.Overwritten++
	} else {
		if old.found {
			sh.countHidden(old.header, k.Hash.Partition())
		}
		sh.learn(k, ghost)
		if q == mainQueue {
			sh.n.GhostHits++
		} else {
			sh.n.Admitted++
		}
	}
	sh.noteQuota(k, h.birth, old.found)
	return h.version, Stored, nothingShort
}

// rewrite replaces an entry in place if the new one takes the same room and belongs to
// the same TTL class. This leaves no dead bytes, and the entry keeps its place in the
// queue. It is safe because entries that are not chains are read under the lock only.
func (sh *shard) rewrite(
	loc location, b []byte, old header, h *header, class int, k kv.Key, w *Write, now kv.Moment,
) bool {
	seg, _ := sh.store.split(loc)
	m := &sh.store.meta[seg]
	if old.marks&^(markRead|markCopied) != h.marks || old.size() != h.size() || int(m.class) != class {
		return false
	}
	h.version = sh.store.stamp(k, w, now)
	sh.write(b, *h, k, w)
	m.last = max(m.last, sh.store.due(*h))
	sh.n.payload += int64(h.payload() - old.payload())
	sh.n.Overwritten++
	return true
}

// append writes an entry at the end of an open segment that has room for it.
func (sh *shard) append(seg segmentID, h header, k kv.Key, w *Write) location {
	m := &sh.store.meta[seg]
	off := int(m.used)
	sh.write(sh.store.segmentBytes(seg)[off:off+h.size()], h, k, w)
	m.used += uint32(h.size())
	sh.n.used += int64(h.size())
	return sh.store.locate(seg, off)
}

// write writes an entry that is not a chain.
func (sh *shard) write(b []byte, h header, k kv.Key, w *Write) {
	h.write(b)
	h.writeAttributes(b, w.Attributes)
	copy(b[h.keyOffset():], k.Bytes)
	copy(b[h.keyOffset()+int(h.keyLen):], w.Value)
}

// alive accounts for an entry that the index now points to. Its bytes have already been
// reserved in its namespace.
func (sh *shard) alive(loc location, h header) {
	seg, _ := sh.store.split(loc)
	m := &sh.store.meta[seg]
	size := h.size()
	m.live += uint32(size)
	m.entries++
	m.last = max(m.last, sh.store.due(h))
	sh.nextExpiry = min(sh.nextExpiry, m.last)
	sh.n.live += int64(size)
	sh.n.payload += int64(h.payload())
	sh.n.headers += int64(h.keyOffset())
	if h.negative() {
		sh.n.negative++
	}
	c := &sh.counts[h.namespace]
	c.newest = max(c.newest, h.version)
	c.all += int64(size)
	if h.version < c.moved {
		c.hidden++
	} else {
		c.entries++
		c.bytes += int64(size)
	}
}

// dead accounts for an entry that the index no longer points to. It frees the segment if
// no other entry is there.
func (sh *shard) dead(loc location, h header) {
	seg, _ := sh.store.split(loc)
	m := &sh.store.meta[seg]
	m.live -= uint32(h.size())
	m.entries--
	sh.unaccount(h)
	switch {
	case m.state == stateOpen:
	case m.entries == 0:
		sh.free(seg)
	default:
		sh.noteSparse(seg)
	}
}

// unaccount takes an entry off the accounts of the shard and its namespace.
func (sh *shard) unaccount(h header) {
	size := int64(h.size())
	sh.n.live -= size
	sh.n.payload -= int64(h.payload())
	sh.n.headers -= int64(h.keyOffset())
	if h.negative() {
		sh.n.negative--
	}
	c := &sh.counts[h.namespace]
	c.all -= size
	if h.version < c.moved {
		c.hidden--
	} else {
		c.entries--
		c.bytes -= size
	}
	sh.release(h.namespace, size)
}

// removeEntry takes an entry out of the index.
func (sh *shard) removeEntry(hash kv.Hash, at slot, w word, h header) {
	sh.index.remove(hash, at)
	sh.dead(w.loc(), h)
}

// countHidden counts the removal of an entry that could not be served. One that was held back counts as
// expired.
func (sh *shard) countHidden(h header, partition uint16) {
	switch {
	case h.version < sh.counts[h.namespace].floor:
		sh.n.Flushed++
	case sh.current(h, partition):
		sh.n.Expired++
	default:
		sh.n.Moved++
	}
}

// countEvicted counts the removal of an entry that was still of use, for others.
func (sh *shard) countEvicted(hash kv.Hash, h header) {
	sh.n.Evicted++
	sh.counts[h.namespace].evicted++
	sh.store.rememberCopied(hash, h)
}
