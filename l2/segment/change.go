package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Changes that bring no value. Where the version is zero, nothing was changed, because this
// host does not serve the partition.

// Removal says how Remove removes a key.
type Removal struct {
	// Soft leaves the value for GetStale and Look, for as long as Limits.Stale of the
	// namespace says. This applies to a live value and to a value in its grace. When the
	// value goes, it counts as expired.
	Soft    bool
	Stale   time.Duration // with Soft: the value stays no longer than this; zero: no such limit
	Compare kv.Version    // of the value, which may be a softened one; else nothing is done; zero: any
}

// Remove removes a key. It returns the version of the change, and Stored if the key had a
// live value, else Absent. With Compare, a softened value counts as live; if there is no
// value nothing is changed, and with Exists Remove returns the version of the value.
func (s *Store) Remove(k kv.Key, r Removal, now kv.Moment) (kv.Version, Result) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !s.serves(k.Hash) {
		return 0, NotOwner
	}
	had := false
	if r.Compare != 0 {
		_, _, h, _, found := sh.find(k)
		partition := k.Hash.Partition()
		had = found && h.marks&markStale != 0 && sh.usable(h, partition, now.Boot)
		switch present := found && sh.present(h, partition, now.Boot); {
		case !present && !had:
			return 0, Absent
		case h.version != r.Compare:
			return h.version, Exists
		}
	}
	version := s.changed(k, now)
	if r.Soft {
		had = sh.soften(k, r.Stale, now) || had
	} else {
		had = sh.drop(k, now) || had
	}
	if had {
		return version, Stored
	}
	return version, Absent
}

// Delete removes a key. It returns the version of the change and whether the key had a
// live value.
func (s *Store) Delete(k kv.Key, now kv.Moment) (kv.Version, bool) {
	v, r := s.Remove(k, Removal{}, now)
	return v, r == Stored
}

// Soften is like Delete, but leaves the value for GetStale: see Removal.
func (s *Store) Soften(k kv.Key, now kv.Moment) (kv.Version, bool) {
	v, r := s.Remove(k, Removal{Soft: true}, now)
	return v, r == Stored
}

// drop removes the entry of a key. It reports whether the key had a live value.
func (sh *shard) drop(k kv.Key, now kv.Moment) bool {
	at, w, h, _, found := sh.find(k)
	if !found {
		return false
	}
	had := sh.present(h, k.Hash.Partition(), now.Boot)
	sh.dropEntry(k.Hash, at, w, h, now)
	return had
}

// dropEntry removes an entry that a change has ended.
func (sh *shard) dropEntry(hash kv.Hash, at slot, w word, h header, now kv.Moment) {
	if sh.visible(h, hash.Partition(), now.Boot) {
		sh.n.Deleted++
	} else {
		sh.countHidden(h, hash.Partition())
	}
	sh.removeEntry(hash, at, w, h)
}

// soften makes the entry of a key a stale one, which stays for at most maxStale; zero is no
// such limit. It reports whether the key had a live value.
func (sh *shard) soften(k kv.Key, maxStale time.Duration, now kv.Moment) bool {
	s := sh.store
	limit := s.namespaces[k.Namespace].staleLimit()
	if maxStale > 0 {
		limit = min(limit, maxStale)
	}
	_, w, h, b, found := sh.find(k)
	if !found || limit <= 0 || h.negative() {
		return sh.drop(k, now)
	}
	partition := k.Hash.Partition()
	if !sh.usable(h, partition, now.Boot) {
		return sh.drop(k, now)
	}
	ends := kv.After(now.Boot, limit)
	if h.marks&markStale != 0 {
		if maxStale > 0 { // it may only end earlier
			sh.redate(w, &h, b, min(h.deadline, ends))
		}
		return false
	}
	had := sh.present(h, partition, now.Boot)
	h.marks |= markStale
	b[offMarks] = h.marks
	sh.redate(w, &h, b, ends)
	return had
}

// Invalidate removes all entries with a hash. It is for callers that do not know the key.
func (s *Store) Invalidate(hash kv.Hash, now kv.Moment) kv.Version {
	sh := s.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !s.serves(hash) {
		return 0
	}
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
		sh.dropEntry(hash, at, w, readHeader(s.at(w.loc())), now)
	}
}

// Touch gives a present entry a new deadline, unless until has come, as in Write. It
// returns the version of the entry, which a touch does not change, and the version of the
// touch itself.
func (s *Store) Touch(
	k kv.Key, d kv.Deadline, until time.Duration, now kv.Moment,
) (version, event kv.Version, r Result) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case s.overdue(until):
		return 0, 0, Overdue
	case !s.serves(k.Hash):
		return 0, 0, NotOwner
	}
	at, w, h, b, found := sh.find(k)
	if !found || !sh.present(h, k.Hash.Partition(), now.Boot) {
		return 0, 0, Absent
	}
	event = s.changed(k, now)
	sh.redate(w, &h, b, d)
	sh.index.setWord(at, w.withHits(min(w.hits()+1, maxHits)))
	return h.version, event, Stored
}
