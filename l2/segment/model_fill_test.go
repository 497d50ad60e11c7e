package segment

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// modelOld is a value that has expired or was softened.
type modelOld struct {
	entry       modelEntry
	ended       time.Duration // when it expired or was softened
	invalidated bool
}

// sightings counts what the model has seen, over all seeds.
type sightings struct {
	negative, expired, invalidated, oldLost     int64
	filled, refused, removed                    int64
	outdating, outdatingGone, silent, forgotten int64
	joined, joinedChain, softened, ended        int64
}

func (m *model) limits(ns kv.NamespaceID) Limits {
	for _, n := range modelNamespaces {
		if n.id == ns {
			return n.limits
		}
	}
	return Limits{}
}

// due returns when an old value is gone.
func (m *model) due(k modelKey, o modelOld) kv.Deadline {
	if o.invalidated {
		return kv.After(o.ended, m.limits(k.ns).Stale)
	}
	return kv.After(o.ended, m.limits(k.ns).Grace)
}

func (m *model) keys() []modelKey {
	return slices.AppendSeq(slices.Collect(maps.Keys(m.want)), maps.Keys(m.old))
}

func (m *model) syncAll() {
	for _, k := range m.keys() {
		m.sync(k)
	}
}

// expire notes that an entry has reached its deadline.
func (m *model) expire(k modelKey, e modelEntry) {
	if e.absent || m.limits(k.ns).Grace == 0 {
		m.expired++
		return
	}
	m.old[k] = modelOld{entry: e, ended: time.Duration(e.deadline) * time.Millisecond}
}

// syncOld drops an old value that is gone.
func (m *model) syncOld(k modelKey) {
	o, ok := m.old[k]
	if !ok {
		return
	}
	if m.due(k, o).Passed(m.now.Boot) {
		delete(m.old, k)
		m.expired++
	} else if _, _, there := m.store.GetStale(nil, m.key(k), m.now.Boot); !there {
		delete(m.old, k)
		m.lost++
		m.seen.oldLost++
	}
}

// forgetOld settles what a write has done to an old value: the write replaced it, or
// perhaps evicted it first to make room.
func (m *model) forgetOld(k modelKey, stored bool) {
	if _, ok := m.old[k]; ok && stored {
		delete(m.old, k)
		m.expired++ // it may have been evicted first
	}
}

// getOld compares the old value of a key, after sync, with the store's.
func (m *model) getOld(k modelKey) {
	want, ok := m.old[k]
	value, got, there := m.store.GetStale(nil, m.key(k), m.now.Boot)
	if there != ok {
		m.t.Errorf("GetStale(%v) = %v, want %v", k, there, ok)
	}
	if !there || !ok {
		return
	}
	e := want.entry
	e.deadline = m.due(k, want)
	m.compare(k, e, modelEntry{value, got.Flags, got.Version, got.Deadline, got.Kind == kv.Absent})
	if got.Ended != m.now.Boot-want.ended || got.Invalidated != want.invalidated || got.Kind != kv.Stale {
		m.t.Errorf("GetStale(%v) ended %v ago, invalidated %v, want %v, %v", k, got.Ended, got.Invalidated, m.now.Boot-want.ended, want.invalidated)
	}
	if got.Invalidated {
		m.seen.invalidated++
	} else {
		m.seen.expired++
	}
}

// outdate drops copies.
func (m *model) outdate(of func(kv.Hash, modelKey, modelEntry) bool) {
	for h, list := range m.copies {
		maps.DeleteFunc(list, func(k modelKey, e modelEntry) bool { return of(h, k, e) })
	}
}

// fill stores the result of a load. The load begins now or began some time ago, and has a
// value or none, often the same as the present entry.
func (m *model) fill(k modelKey) {
	have, ok := m.sync(k)
	key := m.key(k)
	if m.rnd.IntN(20) == 0 {
		m.began = m.store.cfg.Versions.Next(m.now.Wall)
	}
	admit := m.rnd.IntN(20) > 0
	f := Fill{
		Value: m.value(), Facts: kv.Facts{Deadline: m.deadline(), Version: m.store.cfg.Versions.Next(m.now.Wall)},
		Generation: m.store.Generation(key.Hash.Partition()), Admit: func() bool { return admit },
	}
	switch m.rnd.IntN(8) {
	case 0:
		f.Version = m.began
	case 1:
		f.Generation--
	case 2:
		f.Flags = m.rnd.Uint32()
	}
	if ok && m.rnd.IntN(2) == 0 {
		f.Value, f.Flags = have.value, have.flags
	}
	if m.rnd.IntN(3) == 0 {
		if f.Kind = kv.Absent; m.rnd.IntN(3) == 0 {
			f.Deadline = kv.Deadline(m.rnd.IntN(2)) // none, or one that has passed
		}
	}
	removes := f.Kind == kv.Absent && (f.Deadline == 0 || f.Deadline.Passed(m.now.Boot))

	outdated := !admit || f.Generation != m.store.Generation(key.Hash.Partition()) || f.Version < m.floors[k.ns]
	newer := func(v kv.Version) bool { return v >= f.Version }
	old, stale := m.old[k]
	before := m.changes
	event, got := m.store.Fill(key, f, m.now)
	changed := m.changes - before
	if (changed == 1) != (event != 0) || event != 0 && event <= f.Version {
		m.t.Errorf("Fill(%v) of %v told of %d changes, and names %v", k, f.Version, changed, event)
	}
	if got == TooLarge && k.ns == 7 && len(f.Value) > 300<<10-2000 {
		return
	}
	if removes {
		if got == Stored && ok {
			m.seen.removed++
		}
	} else if ok && m.evictedBy(k, got == Stored) {
		have, ok = modelEntry{}, false
	}
	outdated = outdated || ok && newer(have.version)
	// If the fill has evicted the old value first, the old value is no longer newer.
	maybe := !outdated && stale && newer(old.entry.version)
	want := Stored
	if outdated || maybe && got == Outdated {
		want = Outdated
	}
	if got != want {
		m.t.Errorf("Fill(%v) = %d, want %d", k, got, want)
		return
	}
	if got == Outdated {
		m.seen.refused++
		m.syncOld(k)
		if changed != 0 {
			m.t.Errorf("Fill(%v), outdated, told of %d changes", k, changed)
		}
		return
	}
	next := modelEntry{bytes.Clone(f.Value), f.Flags, f.Version, f.Deadline, f.Kind == kv.Absent}
	if f.Kind == kv.Absent {
		next.value, next.flags = nil, 0
	}
	switch {
	case changed == 0:
		m.seen.silent++
		if c, there := m.copies[key.Hash][k]; there && !c.deadline.Passed(m.now.Boot) {
			m.t.Errorf("Fill(%v) is no change, though there is a copy (live %v)", k, ok)
		}
	case !m.given[key.Hash]:
		m.t.Errorf("Fill(%v) is a change, though there never was a copy (live %v)", k, ok)
	case ok:
		m.seen.outdating++
	default:
		m.seen.outdatingGone++
	}
	m.seen.filled++
	if removes {
		delete(m.want, k)
		delete(m.old, k)
		return
	}
	m.forgetOld(k, true)
	m.want[k] = next
}
