package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Changes that bring no value. Where the version is zero, nothing was changed, because this
// host does not serve the partition.

// Delete removes a key. It returns the version of the change and whether the key had a
// live value.
func (s *Store) Delete(k kv.Key, now kv.Moment) (kv.Version, bool) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !s.serves(k.Hash) {
		return 0, false
	}
	return s.changed(k, now), sh.drop(k, now)
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
		sh.n.deleted++
	} else {
		sh.countHidden(h, hash.Partition())
	}
	sh.removeEntry(hash, at, w, h)
}

// Soften is like Delete, but leaves the value for GetStale for as long as Limits.Stale of
// the namespace says. This applies to a live value and to a value in its grace. When the
// value goes, it counts as expired.
func (s *Store) Soften(k kv.Key, now kv.Moment) (kv.Version, bool) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !s.serves(k.Hash) {
		return 0, false
	}
	version := s.changed(k, now)
	limit := s.namespaces[k.Namespace].staleLimit()
	_, w, h, b, found := sh.find(k)
	if !found || limit <= 0 || h.negative() {
		return version, sh.drop(k, now)
	}
	partition := k.Hash.Partition()
	if h.marks&markStale != 0 || !sh.kept(h, partition, now.Boot) {
		return version, false
	}
	had := sh.present(h, partition, now.Boot)
	h.marks |= markStale
	h.deadline = kv.After(now.Boot, limit)
	h.write(b)
	seg, _ := s.split(w.loc())
	m := &s.meta[seg]
	m.last = max(m.last, s.due(h))
	return version, had
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
		return 0, 0, NotServed
	}
	at, w, h, b, found := sh.find(k)
	if !found || !sh.present(h, k.Hash.Partition(), now.Boot) {
		return 0, 0, Absent
	}
	event = s.changed(k, now)
	h.deadline = d
	writeDeadline(b, h)
	seg, _ := s.split(w.loc())
	m := &s.meta[seg]
	m.last = max(m.last, s.due(h))
	sh.index.setWord(at, w.withHits(min(w.hits()+1, maxHits)))
	return h.version, event, Stored
}
