package segment

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Query says how Look looks at a key.
type Query struct {
	Limit  int  // as in Get; below zero: the value is not wanted
	Unread bool // this is no read: it is not counted, and leaves no mark

	Touch         bool // a live value gets the Deadline
	Deadline      kv.Deadline
	End           bool          // what is there is removed, as by Remove
	ExecuteBefore time.Duration // of Touch and End, as in Write
}

// Seen is what Look has found.
type Seen struct {
	Info               // of a stale value, Deadline is when it will be gone
	Before kv.Deadline // that before the touch
	Read   bool        // the value has been read since it was written
	Event  kv.Version  // of the touch or the end; zero: none was made
}

// Look appends the value of a key to dst, like Get, and also a stale value, one that Soften has left.
// In the same critical section a live value gets a new deadline, or the entry is removed, if
// that is wanted. Look returns Found if it has seen an entry, which may be a negative one.
// Else it returns Absent or, if it was to change something, Overdue or NotOwner.
func (s *Store) Look(dst []byte, k kv.Key, q Query, now kv.Moment) ([]byte, Seen, Result) {
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	switch {
	case !q.Touch && !q.End:
	case s.overdue(q.ExecuteBefore):
		return dst, Seen{}, Overdue
	case !s.serves(k.Hash):
		return dst, Seen{}, NotOwner
	}
	at, w, h, b, found := sh.find(k)
	partition := k.Hash.Partition()
	live := found && sh.visible(h, partition, now.Boot)
	stale := found && !live && h.marks&markStale != 0 && sh.usable(h, partition, now.Boot)
	if !live && !stale {
		if !q.Unread {
			sh.misses++
		}
		if !q.End {
			return dst, Seen{}, Absent
		}
		event := s.changed(k, now) // as in Remove: copies may be alive elsewhere
		sh.drop(k, now)
		return dst, Seen{Event: event}, Absent
	}
	seen := Seen{Read: h.marks&markRead != 0, Before: h.deadline}
	if !q.Unread {
		h.marks |= markRead
		b[offMarks] = h.marks
		if live {
			sh.hits++
			sh.index.setWord(at, w.withHits(min(w.hits()+1, maxHits)))
		}
	}
	if q.Touch && live && !h.negative() {
		seen.Event = s.changed(k, now)
		sh.redate(w, &h, b, q.Deadline)
	}
	seen.Info = h.info(b)
	if q.End {
		seen.Event, seen.Deadline = s.changed(k, now), kv.Before(now.Boot)
		seg, _ := s.split(w.loc())
		s.meta[seg].pins++ // the bytes stay until they are copied
		defer sh.unpin(seg)
		sh.dropEntry(k.Hash, at, w, h, now)
	}
	switch {
	case h.valueLen > q.Limit:
	case h.marks&markChain != 0:
		dst = sh.appendPinned(dst, w.loc(), h)
	default:
		dst = append(dst, h.value(b)...)
	}
	return dst, seen, Found
}

// redate gives an entry a new deadline.
func (sh *shard) redate(w word, h *header, b []byte, d kv.Deadline) {
	h.deadline = d
	writeDeadline(b, *h)
	seg, _ := sh.store.split(w.loc())
	m := &sh.store.meta[seg]
	m.last = max(m.last, sh.store.due(*h))
}
