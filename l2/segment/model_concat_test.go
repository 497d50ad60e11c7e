package segment

import (
	"bytes"
	"slices"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// concat appends to a key, or prepends.
func (m *model) concat(k modelKey) {
	have, ok := m.sync(k)
	w := Write{Value: m.value(), Facts: kv.Facts{Deadline: m.deadline(), Attributes: kv.Attributes{Flags: uint32(m.rnd.IntN(2))}}, Mode: Append}
	if m.rnd.IntN(2) == 0 {
		w.Mode = Prepend
	}
	if m.rnd.IntN(4) == 0 {
		w.Compare = have.version + kv.Version(m.rnd.IntN(2))
	}
	create := m.rnd.IntN(2) == 0
	v, got := m.store.Concat(m.key(k), w, create, m.now)
	if got == TooLarge && len(have.value)+len(w.Value) > 250<<10 {
		return
	}
	if ok && m.evictedBy(k, got == Stored) {
		have, ok = modelEntry{}, false
	}
	m.forgetOld(k, got == Stored)
	present := ok && !have.absent
	want := Stored
	switch {
	case !present && (!create || w.Compare != 0):
		want = Absent
	case present && w.Compare != 0 && w.Compare != have.version:
		want = Exists
	}
	if got != want {
		m.t.Errorf("Join(%v, %+v, %v) = %d, want %d (present %v)", k, w.Mode, create, got, want, present)
		return
	}
	switch {
	case got == Exists && v != have.version:
		m.t.Errorf("Join(%v) exists with %v, want %v", k, v, have.version)
	case got == Stored && !present:
		m.want[k] = modelEntry{bytes.Clone(w.Value), w.Flags, v, w.Deadline, false}
	case got == Stored:
		m.seen.joined++
		parts := [][]byte{have.value, w.Value}
		if w.Mode == Prepend {
			slices.Reverse(parts)
		}
		have.value, have.version = slices.Concat(parts...), v
		m.want[k] = have
		if len(have.value) > m.store.cfg.SegmentSize {
			m.seen.joinedChain++
		}
		m.get(k)
	}
}

// look looks at a key, which may be softened, and may give it another deadline, or end it.
func (m *model) look(k modelKey) {
	want, ok := m.sync(k)
	old, stale := m.old[k]
	stale = stale && old.invalidated
	q := Query{Limit: NoLimit, Touch: m.rnd.IntN(2) == 0, Deadline: m.deadline(), Unread: m.rnd.IntN(2) == 0, End: m.rnd.IntN(4) == 0}
	if q.End {
		q.Touch = false
	}
	value, seen, r := m.store.Look(nil, m.key(k), q, m.now)
	if (r == Found) != (ok || stale) || (seen.Kind == kv.Stale) != (stale && !ok) {
		m.t.Errorf("Look(%v) = %d, stale %v, want %v, %v", k, r, seen.Kind == kv.Stale, ok, stale)
		return
	}
	if q.End {
		m.ended(k, want, ok, value, &seen)
		return
	}
	switch {
	case seen.Kind == kv.Stale:
		m.seen.softened++
		if !bytes.Equal(value, old.entry.value) || seen.Version != old.entry.version || seen.Event != 0 {
			m.t.Errorf("Look(%v): another stale value, of version %v", k, seen.Version)
		}
	case ok:
		if touched := q.Touch && !want.absent; touched != (seen.Event != 0) {
			m.t.Errorf("Look(%v): event %v, want one: %v", k, seen.Event, touched)
		} else if touched {
			want.deadline = q.Deadline
			m.want[k] = want
		}
		m.compare(k, want, modelEntry{value, seen.Flags, seen.Version, seen.Deadline, seen.Kind == kv.Absent})
	}
}

// ended checks what Look has told of a key that it has ended. Nothing is left of the key.
func (m *model) ended(k modelKey, want modelEntry, ok bool, value []byte, seen *Seen) {
	old := m.old[k]
	switch {
	case ok:
		want.deadline = seen.Deadline // it has come
		m.compare(k, want, modelEntry{value, seen.Flags, seen.Version, seen.Deadline, seen.Kind == kv.Absent})
	case seen.Kind == kv.Stale && !bytes.Equal(value, old.entry.value):
		m.t.Errorf("Look(%v): another stale value, of version %v", k, seen.Version)
	}
	if seen.Event == 0 || !seen.Deadline.Passed(m.now.Boot) && (ok || seen.Kind == kv.Stale) {
		m.t.Errorf("Look(%v): event %v, deadline %v, and it was to end", k, seen.Event, seen.Deadline)
	}
	delete(m.want, k)
	delete(m.old, k)
	m.seen.ended++
	m.get(k)
}
