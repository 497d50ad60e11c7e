package segment

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

var (
	modelSeeds = flag.Int("model.seeds", 20, "seeds of the model test; under -race at most 4")
	modelOps   = flag.Int("model.ops", 100_000, "operations a seed of the model test")
	modelFirst = flag.Uint64("model.first", 1, "first seed of the model test")
)

// TestAgainstModel runs random operations on a small store and on a plain map.
// The map never evicts; what the store has lost must be exactly what it says
// that it evicted.
func TestAgainstModel(t *testing.T) {
	var total Stats
	var seen sightings
	seeds := *modelSeeds
	if heapArena {
		seeds = min(seeds, 8) // ten times as slow
	}
	for i := range seeds {
		seed := *modelFirst + uint64(i)
		m := newModel(t, seed)
		m.seen = &seen
		m.run(*modelOps)
		st := m.store.Stats()
		addStats(&total, st)
		if t.Failed() {
			t.Fatalf("seed %d (rerun with -model.first=%d -model.seeds=1 -model.ops=%d)", seed, seed, *modelOps)
		}
		if err := m.store.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		n    int64
	}{
		{"segments evicted", total.SegmentEvictions}, {"segments expired", total.SegmentExpirations},
		{"compactions", total.Compactions}, {"chains written", total.Chains},
		{"entries evicted", total.Evicted}, {"expired", total.Expired}, {"flushed", total.Flushed},
		{"over quota", total.QuotaEvicted}, {"overwritten", total.Overwritten}, {"deleted", total.Deleted},
		{"promoted", total.Promoted}, {"reinserted", total.Reinserted}, {"ghost hits", total.GhostHits},
		{"index pages split", total.IndexSplits}, {"index pages merged", total.IndexMerges},
		{"hits", total.Hits}, {"misses", total.Misses}, {"negative entries", total.Negative},
		{"negative hits", seen.negative}, {"stale values, expired", seen.expired}, {"stale values, invalidated", seen.invalidated},
		{"of them evicted", seen.oldLost}, {"fills stored", seen.filled}, {"fills refused", seen.refused},
		{"fills that outdated copies", seen.outdating}, {"fills over the same", seen.same}, {"fills over the same chain", seen.sameChain},
		{"fills that removed", seen.removed},
	} {
		t.Logf("%-20s %d", c.name, c.n)
		if c.n == 0 {
			t.Errorf("the run had no %s: it proves less than it should", c.name)
		}
	}
}

func addStats(t *Stats, s Stats) {
	t.SegmentEvictions += s.SegmentEvictions
	t.SegmentExpirations += s.SegmentExpirations
	t.Compactions += s.Compactions
	t.Chains += s.Chains
	t.Evicted += s.Evicted
	t.Expired += s.Expired
	t.Flushed += s.Flushed
	t.QuotaEvicted += s.QuotaEvicted
	t.Overwritten += s.Overwritten
	t.Deleted += s.Deleted
	t.Promoted += s.Promoted
	t.Reinserted += s.Reinserted
	t.GhostHits += s.GhostHits
	t.IndexSplits += s.IndexSplits
	t.IndexMerges += s.IndexMerges
	t.Hits += s.Hits
	t.Misses += s.Misses
	t.Negative += s.Negative
}

type modelKey struct {
	ns  kv.NamespaceID
	key string
}

type modelEntry struct {
	value    []byte
	flags    uint32
	version  kv.Version
	deadline kv.Deadline
	absent   bool
}

type model struct {
	t           *testing.T
	rnd         *rand.Rand
	store       *Store
	now         kv.Moment
	want        map[modelKey]modelEntry
	old         map[modelKey]modelOld // for GetStale alone
	floors      map[kv.NamespaceID]kv.Version
	began       kv.Version // of a load
	changes     int        // that the store has told of
	seen        *sightings
	lost        int64 // that the store no longer had
	expired     int64 // that had expired when they were next looked at; some may have been evicted before
	overwritten int64 // that the store has counted
	space       int   // keys a namespace; changes, so that the index grows and shrinks
	readMostly  bool
	size        int // most values are shorter
	buf         []byte
}

const modelSeed = 42

// modelNamespaces have no quota, a small quota, and none.
var modelNamespaces = []struct {
	id     kv.NamespaceID
	quota  int64
	limits Limits
}{
	{0, 0, Limits{Stale: 50 * time.Second}},
	{7, 300 << 10, Limits{Grace: 20 * time.Second}},
	{255, 0, Limits{Grace: 2 * time.Minute, Stale: 50 * time.Second}},
}

func newModel(t *testing.T, seed uint64) *model {
	rnd := rand.New(rand.NewPCG(seed, 0))
	cfg := Config{Size: MinSize, Versions: kv.NewHLC(uint16(seed))}
	if seed%2 == 0 {
		cfg.SegmentSize, cfg.Shards = 4<<10, 1
	}
	m := &model{
		t: t, rnd: rnd, want: map[modelKey]modelEntry{}, old: map[modelKey]modelOld{}, floors: map[kv.NamespaceID]kv.Version{},
		space: 8000, size: 600, readMostly: seed%3 == 1,
		now: kv.Moment{Wall: 1_700_000_000_000, Boot: time.Hour},
	}
	cfg.Changed = func(kv.Key, kv.Version) { m.changes++ }
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, ns := range modelNamespaces {
		s.SetNamespace(ns.id, kv.NamespaceSeed(modelSeed, strconv.Itoa(int(ns.id))), ns.quota, ns.limits)
	}
	m.store = s
	return m
}

func (m *model) run(ops int) {
	for i := range ops {
		m.step()
		if m.t.Failed() {
			return
		}
		if i%(ops/8+1) == 0 {
			m.check()
			m.space = 1000 << m.rnd.IntN(6)
			m.size = 50 << m.rnd.IntN(7)
			if m.readMostly { // one steady load, under which the queues settle
				m.space, m.size = 12_000, 1500
			} else if i/(ops/8+1) == 4 {
				for _, ns := range modelNamespaces {
					m.flush(ns.id)
				}
				m.store.Sweep(context.Background())
			}
		}
	}
	m.check()
}

func (m *model) check() {
	m.t.Helper()
	if err := m.store.check(); err != nil {
		m.t.Error(err)
	}
	m.syncAll()
	st := m.store.Stats()
	if got := st.Evicted + st.QuotaEvicted; got < m.lost || got > m.lost+m.expired {
		m.t.Errorf("the store says that it evicted %d entries; %d are gone, %d more may be", got, m.lost, m.expired)
	}
	sum := st.Memory
	if parts := sum.Payload + sum.Headers + sum.Alignment + sum.Dead + sum.Open + sum.Tails + sum.Index + sum.Ghosts + sum.Quotas; parts != sum.Total {
		m.t.Errorf("memory: parts make %d, total %d: %+v", parts, sum.Total, sum)
	}
	if sum.Total > sum.Limit {
		m.t.Errorf("memory: %d of %d", sum.Total, sum.Limit)
	}
}

func (m *model) key(k modelKey) kv.Key {
	seed := kv.NamespaceSeed(modelSeed, strconv.Itoa(int(k.ns)))
	return kv.Key{Hash: kv.HashKey(seed, []byte(k.key)), Namespace: k.ns, Bytes: []byte(k.key)}
}

// sync drops from the map what has expired or been evicted, and returns what
// must be there.
func (m *model) sync(k modelKey) (modelEntry, bool) {
	e, ok := m.want[k]
	if !ok {
		m.syncOld(k)
		return e, false
	}
	if e.deadline.Passed(m.now.Boot) {
		delete(m.want, k)
		m.expire(k, e)
		m.syncOld(k)
		return modelEntry{}, false
	}
	if _, there := m.store.Peek(m.key(k), m.now.Boot); !there {
		delete(m.want, k)
		m.lost++
		return modelEntry{}, false
	}
	return e, true
}

func (m *model) step() {
	m.now.Boot += time.Duration(m.rnd.IntN(4)) * time.Millisecond
	m.now.Wall += int64(m.rnd.IntN(3))
	ns := modelNamespaces[m.rnd.IntN(len(modelNamespaces))].id
	// A skewed choice, so that some keys are hit often.
	n := int(float64(m.space) * m.rnd.Float64() * m.rnd.Float64())
	k := modelKey{ns, fmt.Sprintf("key-%d-%0*d", n, n%40, 0)}
	if m.readMostly && m.rnd.IntN(20) > 0 {
		if !m.get(k) {
			m.put(k)
		}
		return
	}
	switch op := m.rnd.IntN(1000); {
	case op < 500:
		m.get(k)
	case op < 860:
		m.put(k)
	case op < 890:
		m.delete(k)
	case op < 905:
		m.touch(k)
	case op < 930:
		m.incr(k)
	case op < 980:
		m.fill(k)
	case op < 984:
		m.store.Reclaim(m.now.Boot)
	case op == 984 && m.rnd.IntN(30) == 0:
		m.now.Boot += time.Duration(m.rnd.IntN(20)) * time.Second
	case op == 985 && m.rnd.IntN(300) == 0:
		m.flush(k.ns)
	case op == 986 && m.rnd.IntN(4) == 0:
		m.holding(m.key(k).Hash.Partition())
	case op == 987:
		m.store.Sweep(context.Background())
	case op == 988 && m.rnd.IntN(10) == 0:
		m.scan()
	}
	if used, _, pages := m.store.pool.counts(); int64(used*m.store.cfg.SegmentSize)+pages > MinSize {
		m.t.Errorf("%d segments and %d bytes of pages are over the limit", used, pages)
	}
}

func (m *model) get(k modelKey) bool {
	want, ok := m.sync(k)
	var info Info
	var hit bool
	m.buf, info, hit = m.store.Get(m.buf[:0], m.key(k), NoLimit, m.now.Boot)
	if hit != ok {
		m.t.Errorf("Get(%v) hit = %v, want %v", k, hit, ok)
		return hit
	}
	m.getOld(k) // which a Get leaves
	if hit {
		m.compare(k, want, modelEntry{m.buf, info.Flags, info.Version, info.Deadline, info.Absent})
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
	w := Write{Value: m.value(), Deadline: m.deadline()}
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

// evictedBy settles whether a write to a present key evicted that very key
// while it made room: if it stored, the store's count of overwrites tells.
func (m *model) evictedBy(k modelKey, stored bool) bool {
	if !stored {
		_, still := m.sync(k)
		return !still
	}
	var n int64
	for _, sh := range m.store.shards {
		n += sh.n.overwritten
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
	v, _, had := m.store.Touch(m.key(k), d, m.now)
	if ok = ok && !e.absent; !ok {
		e.version = 0
	}
	if had != ok || v != e.version {
		m.t.Errorf("Touch(%v) = %v, %v, want %v, %v", k, v, had, e.version, ok)
	}
	if ok {
		e.deadline = d
		m.want[k] = e
	}
}

func (m *model) incr(k modelKey) {
	e, ok := m.sync(k)
	delta, create, d := int64(m.rnd.IntN(100)-50), m.rnd.IntN(2) == 0, m.deadline()
	sum, v, r := m.store.Incr(m.key(k), delta, create, 5, d, m.now)
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
	m.want[k] = next
}

func (m *model) flush(ns kv.NamespaceID) {
	m.syncAll()
	floor := m.store.cfg.Versions.Next(m.now.Wall)
	all := m.rnd.IntN(4) == 0
	if all {
		m.store.FlushAll(floor)
	} else {
		m.store.Flush(ns, floor)
	}
	for _, n := range modelNamespaces {
		if all || n.id == ns {
			m.floors[n.id] = m.store.cfg.Versions.Next(m.now.Wall)
		}
	}
	flushed := func(k modelKey) bool { return all || k.ns == ns }
	maps.DeleteFunc(m.want, func(k modelKey, _ modelEntry) bool { return flushed(k) })
	maps.DeleteFunc(m.old, func(k modelKey, _ modelOld) bool { return flushed(k) })
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
	m.store.Holding(p)
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
			m.compare(k, w, modelEntry{e.Value, e.Flags, e.Version, e.Deadline, e.Absent})
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
