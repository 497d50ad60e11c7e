package segment

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Mode says on which condition a write stores.
type Mode uint8

const (
	Set            Mode = iota // always
	Add                        // where the key is absent
	Replace                    // where the key is present
	CompareAndSwap             // where the key is present with Write.Compare
)

// Write is what Put stores.
type Write struct {
	Value    []byte // borrowed for the call
	Flags    uint32
	Deadline kv.Deadline
	Mode     Mode
	Compare  kv.Version

	restore *restore
}

// restore is what Restore asks of a write beside what it stores.
type restore struct {
	version    kv.Version
	generation uint16
	hits       int
	admit      func() bool
}

// Result says what became of a write.
type Result uint8

const (
	Stored    Result = iota
	Exists           // the condition failed: the key is present, with the version returned
	Absent           // the condition failed: the key is absent
	TooLarge         // the value is longer than MaxValue or the namespace's quota
	NoRoom           // everything that could be evicted is being read
	NotNumber        // Incr on a value that is no decimal int64
	Overflow         // Incr beyond the range of int64
	Outdated         // Restore of what must not come back
)

// needs are what a shard's write lacks; the store provides it with no lock of
// that shard held, and the write starts again.
type need uint8

const (
	needNothing need = iota
	needSegment
	needQuota
)

// maxTries bounds how often a write makes room and finds it taken by another.
const maxTries = 64

// Put stores a value and returns the version stamped (or, with Exists, the
// version that stands in the way).
func (s *Store) Put(k kv.Key, w Write, now kv.Moment) (kv.Version, Result) {
	if len(w.Value) > s.cfg.MaxValue || s.overQuotaAlone(k, &w) {
		return 0, TooLarge
	}
	sh := s.shard(k.Hash)
	if s.isChain(k, &w) {
		return s.putChain(sh, k, &w, now)
	}
	for range maxTries {
		sh.mu.Lock()
		v, r, lack := sh.put(k, &w, noSegment, now)
		sh.mu.Unlock()
		if lack == needNothing {
			return v, r
		}
		if !s.provide(lack, sh, k.Namespace, entrySize(k, &w), now) {
			break
		}
	}
	sh.countNoRoom()
	return 0, NoRoom
}

// Restore puts an entry back as it was somewhere else, with its version: only
// where the key is absent, its partition still has the generation that Holding
// gave, and admit, which is called in the critical section that stores, agrees.
func (s *Store) Restore(e kv.Entry, generation uint16, hits int, admit func() bool, now kv.Moment) Result {
	s.cfg.Versions.Observe(e.Version) // flush floors lie above all that is stored
	_, r := s.Put(e.Key, Write{
		Value: e.Value, Flags: e.Flags, Deadline: e.Deadline,
		restore: &restore{e.Version, generation, hits, admit},
	}, now)
	return r
}

// stamp gives a write its version and tells of the change.
func (s *Store) stamp(k kv.Key, w *Write, now kv.Moment) kv.Version {
	if w.restore != nil {
		return w.restore.version
	}
	return s.changed(k, now)
}

// changed stamps a change of a key.
func (s *Store) changed(k kv.Key, now kv.Moment) kv.Version {
	v := s.cfg.Versions.Next(now.Wall)
	if s.cfg.Changed != nil {
		s.cfg.Changed(k, v)
	}
	return v
}

// provide makes the room that a write lacks.
func (s *Store) provide(lack need, sh *shard, ns kv.NamespaceID, size int, now kv.Moment) bool {
	if lack == needQuota {
		return s.makeQuota(sh, ns, int64(size), now.Boot)
	}
	return s.makeRoom(sh, now.Boot)
}

func (sh *shard) countNoRoom() {
	sh.mu.Lock()
	sh.n.noRoom++
	sh.mu.Unlock()
}

// overQuotaAlone says whether an entry could not stay within its namespace's
// quota even if it stood there alone.
func (s *Store) overQuotaAlone(k kv.Key, w *Write) bool {
	quota := s.namespaces[k.Namespace].quota.Load()
	return quota > 0 && int64(entrySize(k, w)) > quota
}

func headerFor(k kv.Key, w *Write) header {
	h := header{deadline: w.Deadline, namespace: k.Namespace, valueLen: len(w.Value), keyLen: len(k.Bytes)}
	if w.Flags != 0 {
		h.marks |= markFlags
	}
	return h
}

func entrySize(k kv.Key, w *Write) int { h := headerFor(k, w); return h.size() }

func (s *Store) isChain(k kv.Key, w *Write) bool { return entrySize(k, w) > s.cfg.SegmentSize/2 }

// put stores an entry with the lock held, or says what it lacks. Where chain
// is a segment, the value has been written into that chain already.
func (sh *shard) put(k kv.Key, w *Write, chain segmentID, now kv.Moment) (kv.Version, Result, need) {
	at, old, oldHeader, b, found := sh.find(k)
	partition := k.Hash.Partition()
	present := found && sh.visible(oldHeader, partition, now.Boot)
	switch {
	case present && (w.Mode == Add || w.Mode == CompareAndSwap && oldHeader.version != w.Compare):
		return oldHeader.version, Exists, needNothing
	case !present && (w.Mode == Replace || w.Mode == CompareAndSwap):
		return 0, Absent, needNothing
	}

	h := headerFor(k, w)
	h.generation = sh.store.Generation(partition)
	if r := w.restore; r != nil {
		switch {
		case present:
			return oldHeader.version, Exists, needNothing
		case r.generation != h.generation || !r.admit():
			return 0, Outdated, needNothing
		}
	}
	class := classOf(h.deadline, now.Boot)
	if present && chain == noSegment && sh.rewrite(old.loc(), b, oldHeader, &h, class, k, w, now) {
		return h.version, Stored, needNothing
	}
	size, oldSize := h.size(), 0
	if found {
		oldSize = oldHeader.size()
	} else {
		sh.index.ready(k.Hash, sh.store.hashAt)
	}
	ns := &sh.store.namespaces[k.Namespace]
	if !ns.reserve(int64(size), int64(oldSize)) {
		return 0, 0, needQuota
	}

	// Which queue: where the key's last value stands; else main if admission
	// has lately dropped the key.
	q, hits := admission, 0
	switch {
	case present:
		seg, _ := sh.store.split(old.loc())
		q, hits = int(sh.store.meta[seg].queue), old.hits()
	case sh.ghosts.has(k.Hash), w.restore != nil && w.restore.hits >= promoteHits:
		q = mainQueue
	}
	var loc location
	if chain != noSegment {
		h.marks |= markChain
		h.version = sh.store.stamp(k, w, now)
		h.write(sh.store.segmentBytes(chain))
		sh.enqueueChain(chain, q, class, h)
		loc = sh.store.locate(chain, 0)
	} else {
		seg := sh.room(q, class, size)
		if seg == noSegment {
			ns.release(int64(size))
			return 0, 0, needSegment
		}
		h.version = sh.store.stamp(k, w, now)
		loc = sh.append(seg, h, k, w)
	}

	if found {
		sh.index.setWord(at, old.withLoc(loc).withHits(hits))
		sh.dead(old.loc(), oldHeader)
		if present {
			sh.n.overwritten++
		} else {
			sh.countHidden(oldHeader, partition)
		}
	} else {
		sh.index.insert(k.Hash, makeWord(k.Hash, 0, loc))
	}
	sh.alive(loc, h)
	if !present {
		sh.ghosts.forget(k.Hash)
		if q == mainQueue {
			sh.n.ghostHits++
		} else {
			sh.n.admitted++
		}
	}
	sh.noteQuota(k, found)
	return h.version, Stored, needNothing
}

// rewrite replaces an entry where it stands, if the new one takes the same room
// and belongs to the same TTL class: it leaves no dead bytes, and the entry
// keeps its place in the queue. Nobody reads an entry that is no chain without
// the lock.
func (sh *shard) rewrite(loc location, b []byte, old header, h *header, class int, k kv.Key, w *Write, now kv.Moment) bool {
	seg, _ := sh.store.split(loc)
	m := &sh.store.meta[seg]
	if old.marks != h.marks || old.size() != h.size() || int(m.class) != class {
		return false
	}
	h.version = sh.store.stamp(k, w, now)
	sh.write(b, *h, k, w)
	m.last = max(m.last, lastDeadline(h.deadline))
	sh.n.payload += int64(h.payload() - old.payload())
	sh.n.overwritten++
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

// write writes an entry that is no chain.
func (sh *shard) write(b []byte, h header, k kv.Key, w *Write) {
	h.write(b)
	if h.marks&markFlags != 0 {
		binary.LittleEndian.PutUint32(b[headerSize:], w.Flags)
	}
	copy(b[h.keyOffset():], k.Bytes)
	copy(b[h.keyOffset()+h.keyLen:], w.Value)
}

// alive accounts for an entry that the index now points to; its bytes have been
// reserved in its namespace.
func (sh *shard) alive(loc location, h header) {
	seg, _ := sh.store.split(loc)
	m := &sh.store.meta[seg]
	size := h.size()
	m.live += uint32(size)
	m.entries++
	m.last = max(m.last, lastDeadline(h.deadline))
	sh.nextExpiry = min(sh.nextExpiry, m.last)
	sh.n.live += int64(size)
	sh.n.payload += int64(h.payload())
	sh.n.headers += int64(h.keyOffset())
	c := &sh.counts[h.namespace]
	if h.version < c.floor {
		c.hidden++
	} else {
		c.entries++
		c.bytes += int64(size)
	}
}

// dead accounts for an entry that the index no longer points to, and frees its
// segment if it was the last one there.
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
	c := &sh.counts[h.namespace]
	if h.version < c.floor {
		c.hidden--
	} else {
		c.entries--
		c.bytes -= size
	}
	sh.store.namespaces[h.namespace].release(size)
}

// removeEntry takes an entry out of the index.
func (sh *shard) removeEntry(hash kv.Hash, at slot, w word, h header) {
	sh.index.remove(hash, at)
	sh.dead(w.loc(), h)
}

// countHidden counts the removal of an entry that could no longer be served.
func (sh *shard) countHidden(h header, partition uint16) {
	if sh.current(h, partition) {
		sh.n.expired++
	} else {
		sh.n.flushed++
	}
}

// Delete removes a key. It says whether a live value was there.
func (s *Store) Delete(k kv.Key, now kv.Moment) (kv.Version, bool) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	version := s.changed(k, now)
	at, w, h, _, found := sh.find(k)
	if !found {
		return version, false
	}
	present := sh.visible(h, k.Hash.Partition(), now.Boot)
	if present {
		sh.n.deleted++
	} else {
		sh.countHidden(h, k.Hash.Partition())
	}
	sh.removeEntry(k.Hash, at, w, h)
	return version, present
}

// Soften is Delete, but leaves the value for GetStale until a deadline. It counts
// as expired once it goes.
func (s *Store) Soften(k kv.Key, until kv.Deadline, now kv.Moment) (kv.Version, bool) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	version := s.changed(k, now)
	_, w, h, b, found := sh.find(k)
	if !found || !sh.visible(h, k.Hash.Partition(), now.Boot) {
		return version, false
	}
	h.marks |= markStale
	h.deadline = until
	h.write(b)
	seg, _ := s.split(w.loc())
	m := &s.meta[seg]
	m.last = max(m.last, lastDeadline(until))
	return version, true
}

// Invalidate removes whatever has a hash: for who knows no more of a key.
func (s *Store) Invalidate(hash kv.Hash, now kv.Moment) kv.Version {
	sh := s.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	version := s.changed(kv.Key{Hash: hash}, now)
	x := sh.index
	for {
		at, w, ok := x.probe(hash, -1, x.dir[x.dirSlot(hash)])
		for ok && s.hashAt(w.loc()) != hash {
			at, w, ok = x.probe(hash, at.at, at.page)
		}
		if !ok {
			return version
		}
		h := readHeader(s.at(w.loc()))
		if sh.visible(h, hash.Partition(), now.Boot) {
			sh.n.deleted++
		} else {
			sh.countHidden(h, hash.Partition())
		}
		sh.removeEntry(hash, at, w, h)
	}
}

// Touch gives a present entry a new deadline. It returns the entry's version,
// which a touch does not change, and that of the change.
func (s *Store) Touch(k kv.Key, d kv.Deadline, now kv.Moment) (version, event kv.Version, ok bool) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	at, w, h, b, found := sh.find(k)
	if !found || !sh.visible(h, k.Hash.Partition(), now.Boot) {
		return 0, 0, false
	}
	event = s.changed(k, now)
	h.deadline = d
	writeDeadline(b, h)
	seg, _ := s.split(w.loc())
	m := &s.meta[seg]
	m.last = max(m.last, lastDeadline(d))
	sh.index.setWord(at, w.withHits(min(w.hits()+1, maxHits)))
	return h.version, event, true
}

// Incr adds delta to a decimal int64, keeping flags and deadline, or stores
// initial where the key is absent and create is set. It returns the new value.
func (s *Store) Incr(k kv.Key, delta int64, create bool, initial int64, d kv.Deadline, now kv.Moment) (int64, kv.Version, Result) {
	sh := s.shard(k.Hash)
	for range maxTries {
		sh.mu.Lock()
		sum, v, r, lack, size := sh.incr(k, delta, create, initial, d, now)
		sh.mu.Unlock()
		if lack == needNothing {
			return sum, v, r
		}
		if !s.provide(lack, sh, k.Namespace, size, now) {
			break
		}
	}
	sh.countNoRoom()
	return 0, 0, NoRoom
}

func (sh *shard) incr(k kv.Key, delta int64, create bool, initial int64, d kv.Deadline, now kv.Moment) (int64, kv.Version, Result, need, int) {
	_, _, h, b, found := sh.find(k)
	w := Write{Deadline: d}
	sum := initial
	switch present := found && sh.visible(h, k.Hash.Partition(), now.Boot); {
	case !present && !create:
		return 0, 0, Absent, needNothing, 0
	case present:
		if h.valueLen > 20 || h.marks&markChain != 0 {
			return 0, h.version, NotNumber, needNothing, 0
		}
		old, err := strconv.ParseInt(string(h.value(b)), 10, 64)
		if err != nil {
			return 0, h.version, NotNumber, needNothing, 0
		}
		if delta > 0 && old > math.MaxInt64-delta || delta < 0 && old < math.MinInt64-delta {
			return 0, h.version, Overflow, needNothing, 0
		}
		sum = old + delta
		w.Deadline, w.Flags = h.deadline, h.clientFlags(b)
	}
	var digits [20]byte
	w.Value = strconv.AppendInt(digits[:0], sum, 10)
	if sh.store.isChain(k, &w) || sh.store.overQuotaAlone(k, &w) {
		return 0, 0, TooLarge, needNothing, 0 // a key of nearly half a segment: only in tiny stores
	}
	v, r, lack := sh.put(k, &w, noSegment, now)
	return sum, v, r, lack, entrySize(k, &w)
}
