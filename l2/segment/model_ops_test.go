package segment

import (
	"bytes"
	"maps"
	"strconv"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// The operations of the model, each on the store and on the map.

func (m *model) get(k modelKey) bool {
	want, ok := m.sync(k)
	var info Info
	var hit bool
	key, give := m.key(k), m.rnd.IntN(4) == 0
	m.buf, info, hit = m.store.Read(m.buf[:0], key, NoLimit, give, m.now.Boot)
	if hit != ok {
		m.t.Errorf("Get(%v) hit = %v, want %v", k, hit, ok)
		return hit
	}
	m.getOld(k) // Get leaves the old value
	if c, there := m.copies[key.Hash][k]; hit && there && !c.deadline.Passed(m.now.Boot) && c.version != info.Version {
		m.t.Errorf("%v has version %v, and there is a copy of version %v", k, info.Version, c.version)
	}
	if hit && give {
		if m.copies[key.Hash] == nil {
			m.copies[key.Hash] = map[modelKey]modelEntry{}
		}
		m.copies[key.Hash][k], m.given[key.Hash] = modelEntry{version: info.Version, deadline: info.Deadline}, true
	}
	if hit {
		m.compare(k, want, modelEntry{m.buf, info.Flags, info.Version, info.Deadline, info.Kind == kv.Absent})
		if want.absent {
			m.seen.negative++
		}
		if info.Size != len(want.value) {
			m.t.Errorf("Get(%v) size = %d, want %d", k, info.Size, len(want.value))
		}
	}
	return hit
}

func (m *model) compare(k modelKey, want, got modelEntry) {
	if !bytes.Equal(got.value, want.value) || got.flags != want.flags || got.version != want.version || got.deadline != want.deadline || got.absent != want.absent {
		m.t.Errorf("%v: got %d bytes, flags %d, version %v, deadline %d, absent %v; want %d, %d, %v, %d, %v", k,
			len(got.value), got.flags, got.version, got.deadline, got.absent, len(want.value), want.flags, want.version, want.deadline, want.absent)
	}
}

func (m *model) value() []byte {
	n := m.rnd.IntN(m.size)
	kind := m.rnd.IntN(200)
	if m.readMostly {
		kind += m.rnd.IntN(1000)
	}
	switch kind {
	case 0, 1, 2, 3, 4, 5:
		n = m.rnd.IntN(7 << 10)
	case 6, 7:
		n = m.rnd.IntN(60 << 10)
	case 8:
		if m.rnd.IntN(4) == 0 {
			n = m.rnd.IntN(512 << 10)
		}
	case 9:
		return []byte(strconv.Itoa(n))
	}
	b := make([]byte, n)
	for i := 0; i < n; i += 1 + i/8 {
		b[i] = byte(m.rnd.Uint32())
	}
	return b
}

func (m *model) deadline() kv.Deadline {
	if m.rnd.IntN(3) > 0 {
		return 0
	}
	return kv.After(m.now.Boot, time.Duration(1+m.rnd.IntN(60_000))<<m.rnd.IntN(8)*time.Millisecond)
}

func (m *model) put(k modelKey) {
	have, ok := m.sync(k)
	w := Write{Value: m.value(), Facts: kv.Facts{Deadline: m.deadline()}}
	if m.rnd.IntN(4) == 0 {
		w.Flags = m.rnd.Uint32()
	}
	switch m.rnd.IntN(10) {
	case 0:
		w.Mode = Add
	case 1:
		w.Mode = Replace
	case 2:
		w.Mode, w.Compare = CompareAndSwap, have.version
		if m.rnd.IntN(2) == 0 {
			w.Compare++
		}
	}
	v, got := m.store.Put(m.key(k), w, m.now)
	if got == TooLarge && k.ns == 7 && len(w.Value) > 300<<10-2000 {
		return
	}
	if ok && m.evictedBy(k, got == Stored) {
		have, ok = modelEntry{}, false
	}
	m.forgetOld(k, got == Stored)
	present := ok && !have.absent
	want := Stored
	switch {
	case present && (w.Mode == Add || w.Mode == CompareAndSwap && w.Compare != have.version):
		want = Exists
	case !present && (w.Mode == Replace || w.Mode == CompareAndSwap):
		want = Absent
	}
	if got != want {
		m.t.Errorf("Put(%v, mode %d) = %d, want %d (present %v)", k, w.Mode, got, want, present)
		return
	}
	switch got {
	case Stored:
		if v <= have.version {
			m.t.Errorf("Put(%v) version %v after %v", k, v, have.version)
		}
		m.want[k] = modelEntry{bytes.Clone(w.Value), w.Flags, v, w.Deadline, false}
	case Exists:
		if v != have.version {
			m.t.Errorf("Put(%v) exists with %v, want %v", k, v, have.version)
		}
	}
}

// evictedBy settles whether a write to a present key evicted that very key to make room.
// If the write stored, the store's count of overwrites tells.
func (m *model) evictedBy(k modelKey, stored bool) bool {
	if !stored {
		_, still := m.sync(k)
		return !still
	}
	var n int64
	for _, sh := range m.store.shards {
		n += sh.n.Overwritten
	}
	if n > m.overwritten {
		m.overwritten = n
		return false
	}
	m.lost++
	delete(m.want, k)
	return true
}

func (m *model) delete(k modelKey) {
	want, ok := m.sync(k)
	present := ok && !want.absent
	old, stale := m.old[k]
	remove := m.store.Delete
	soft := m.rnd.IntN(3) == 0
	if soft {
		remove = m.store.Soften
		soft = m.limits(k.ns).Stale > 0
	}
	if _, had := remove(m.key(k), m.now); had != present {
		m.t.Errorf("Delete(%v) = %v, want %v", k, had, present)
	}
	delete(m.want, k)
	switch {
	case !soft:
		delete(m.old, k)
	case present:
		m.old[k] = modelOld{want, m.now.Boot, true}
	case stale && !old.invalidated:
		m.old[k] = modelOld{old.entry, m.now.Boot, true}
	}
	m.get(k)
}

func (m *model) touch(k modelKey) {
	e, ok := m.sync(k)
	d := m.deadline()
	v, _, r := m.store.Touch(m.key(k), d, 0, m.now)
	if ok = ok && !e.absent; !ok {
		e.version = 0
	}
	if had := r == Stored; had != ok || v != e.version {
		m.t.Errorf("Touch(%v) = %v, %v, want %v, %v", k, v, r, e.version, ok)
	}
	if ok {
		e.deadline = d
		m.want[k] = e
	}
}

func (m *model) incr(k modelKey) {
	e, ok := m.sync(k)
	delta, create, d := int64(m.rnd.IntN(100)-50), m.rnd.IntN(2) == 0, m.deadline()
	sum, v, end, r := m.store.Incr(m.key(k), Increment{Delta: delta, Create: create, Initial: 5, Deadline: d}, m.now)
	if ok && m.evictedBy(k, r == Stored) {
		e, ok = modelEntry{}, false
	}
	m.forgetOld(k, r == Stored)
	ok = ok && !e.absent
	old, err := strconv.ParseInt(string(e.value), 10, 64)
	want := Stored
	switch {
	case !ok && !create:
		want = Absent
	case ok && err != nil:
		want = NotNumber
	}
	if r != want {
		m.t.Errorf("Incr(%v) of %q = %d, want %d", k, e.value, r, want)
	}
	if r != Stored {
		return
	}
	next := modelEntry{[]byte("5"), 0, v, d, false}
	if ok {
		next = modelEntry{strconv.AppendInt(nil, old+delta, 10), e.flags, v, e.deadline, false}
	}
	if string(next.value) != strconv.FormatInt(sum, 10) {
		m.t.Errorf("Incr(%v) = %d, want %s", k, sum, next.value)
	}
	if end != next.deadline {
		m.t.Errorf("Incr(%v): deadline %d, want %d", k, end, next.deadline)
	}
	m.want[k] = next
}

// flush flushes a namespace, or all: now, or with an earlier version, so that entries
// written since then stay.
func (m *model) flush(ns kv.NamespaceID) {
	m.syncAll()
	floor := m.store.cfg.Versions.Next(m.now.Wall)
	drop := func(ns kv.NamespaceID) { m.store.Clear(ns, m.now) }
	if as := m.rnd.IntN(4); as > 0 {
		if as > 1 {
			floor = kv.FirstVersionAt(m.now.Wall - m.rnd.Int64N(60_000))
		}
		drop = func(ns kv.NamespaceID) { m.store.Flush(ns, floor) }
	}
	all := m.rnd.IntN(4) == 0
	for _, n := range modelNamespaces {
		if all || n.id == ns {
			drop(n.id)
			m.floors[n.id] = max(m.floors[n.id], floor)
		}
	}
	flushed := func(k modelKey, v kv.Version) bool { return v < m.floors[k.ns] }
	maps.DeleteFunc(m.want, func(k modelKey, e modelEntry) bool { return flushed(k, e.version) })
	maps.DeleteFunc(m.old, func(k modelKey, o modelOld) bool { return flushed(k, o.entry.version) })
	m.outdate(func(_ kv.Hash, k modelKey, e modelEntry) bool { return flushed(k, e.version) })
}

func (m *model) holding(p uint16) {
	of := func(k modelKey) bool { return m.key(k).Hash.Partition() == p }
	for _, k := range m.keys() {
		if of(k) {
			m.sync(k)
		}
	}
	maps.DeleteFunc(m.want, func(k modelKey, _ modelEntry) bool { return of(k) })
	maps.DeleteFunc(m.old, func(k modelKey, _ modelOld) bool { return of(k) })
	m.outdate(func(h kv.Hash, _ modelKey, _ modelEntry) bool { return h.Partition() == p })
	m.store.NewOwnership(p)
}

// scan expects every live entry of half the partitions, once.
func (m *model) scan() {
	want := func(p uint16) bool { return p%2 == 0 }
	got := map[modelKey]int{}
	for hits := MaxHits; hits >= 0; hits-- {
		m.store.Scan(want, hits, m.now.Boot, func(e kv.Entry) bool {
			k := modelKey{e.Key.Namespace, string(e.Key.Bytes)}
			got[k]++
			w, ok := m.want[k]
			if !ok {
				m.t.Errorf("scan yields %v, which is not there", k)
				return false
			}
			if m.key(k).Hash != e.Key.Hash {
				m.t.Errorf("scan yields %v with hash %#x", k, uint64(e.Key.Hash))
			}
			m.compare(k, w, modelEntry{e.Value, e.Flags, e.Version, e.Deadline, e.Kind == kv.Absent})
			return true
		})
	}
	for k := range m.want {
		n := 0
		if _, ok := m.sync(k); ok && want(m.key(k).Hash.Partition()) {
			n = 1
		}
		if got[k] != n {
			m.t.Errorf("scan yields %v %d times, want %d", k, got[k], n)
		}
	}
}
