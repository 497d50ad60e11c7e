package segment

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var (
	modelSeeds = flag.Int("model.seeds", 4, "seeds of the model test; under -race at most 4")
	modelOps   = flag.Int("model.ops", 100_000, "operations a seed of the model test")
	modelFirst = flag.Uint64("model.first", 14, "first seed of the model test; from 14 on, four see all that they must")
)

// thorough reports whether stores are large and models run often, as in CI's random-ci.
func thorough() bool { return *modelSeeds >= 20 }

// TestAgainstModel runs random operations on a small store and on a plain map. The map
// never evicts. The entries that the store has lost must be exactly those that it counts
// as evicted.
func TestAgainstModel(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	var total Stats
	var seen sightings
	seeds := *modelSeeds
	if heapArena {
		seeds = min(seeds, 4) // ten times as slow
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
		testenv.Must(t, m.store.Close())
	}
	for _, c := range []struct {
		name string
		n    int64
	}{
		{"segments evicted", total.SegmentEvictions}, {"segments expired", total.SegmentExpirations},
		{"compactions", total.Compactions}, {"chains written", total.Chains},
		{"entries evicted", total.Evicted}, {"of them for one hash", total.Collided}, {"expired", total.Expired}, {"flushed", total.Flushed}, {"moved", total.Moved},
		{"over quota", total.QuotaEvicted}, {"overwritten", total.Overwritten}, {"deleted", total.Deleted},
		{"promoted", total.Promoted}, {"reinserted", total.Reinserted}, {"ghost hits", total.GhostHits},
		{"lessons of admission", total.Longer}, {"lessons of the main queue", total.Shorter},
		{"index pages split", total.IndexSplits}, {"index pages merged", total.IndexMerges},
		{"hits", total.Hits}, {"misses", total.Misses}, {"negative entries", total.Negative},
		{"negative hits", seen.negative}, {"stale values, expired", seen.expired}, {"stale values, invalidated", seen.invalidated},
		{"of them evicted", seen.oldLost}, {"fills stored", seen.filled}, {"fills refused", seen.refused},
		{"fills over a live value that may have copies", seen.outdating}, {"and over an evicted one", seen.outdatingGone},
		{"fills that outdated nothing", seen.silent}, {"fills that removed", seen.removed},
		{"values joined", seen.joined}, {"chains joined", seen.joinedChain}, {"softened values seen", seen.softened},
		{"keys ended by a look", seen.ended},
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
	t.Moved += s.Moved
	t.QuotaEvicted += s.QuotaEvicted
	t.Overwritten += s.Overwritten
	t.Deleted += s.Deleted
	t.Promoted += s.Promoted
	t.Reinserted += s.Reinserted
	t.GhostHits += s.GhostHits
	t.Longer += s.Longer
	t.Shorter += s.Shorter
	t.IndexSplits += s.IndexSplits
	t.IndexMerges += s.IndexMerges
	t.Hits += s.Hits
	t.Misses += s.Misses
	t.Negative += s.Negative
	t.Collided += s.Collided
	t.CrowdedOut += s.CrowdedOut
	t.SplitsRefused += s.SplitsRefused
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
	t       *testing.T
	rnd     *rand.Rand
	cfg     Config
	store   *Store
	carried Stats // of the stores before
	now     kv.Moment
	want    map[modelKey]modelEntry
	old     map[modelKey]modelOld // values that only GetStale returns
	floors  map[kv.NamespaceID]kv.Version
	began   kv.Version                          // of a load
	changes int                                 // calls of Changed
	copies  map[kv.Hash]map[modelKey]modelEntry // that a reader elsewhere has
	given   map[kv.Hash]bool                    // that there was ever such a copy
	seen    *sightings
	lost    int64 // entries that the store no longer had
	// Entries that had expired when the model next looked; some may have been evicted
	// before.
	expired     int64
	overwritten int64 // entries that the store has counted
	space       int   // keys per namespace; changes, so the index grows and shrinks
	readMostly  bool
	size        int // most values are shorter
	buf         []byte
}

const modelSeed = 42

// modelNamespaces have no quota, a small quota, and no quota.
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
		copies: map[kv.Hash]map[modelKey]modelEntry{}, given: map[kv.Hash]bool{},
		space: 8000, size: 600, readMostly: seed%3 == 1,
		now: kv.Moment{Wall: 1_700_000_000_000, Boot: time.Hour},
	}
	cfg.Changed = func(k kv.Key, _ kv.Version) {
		m.changes++
		delete(m.copies, k.Hash)
	}
	cfg.Forgotten = func(set kv.PartitionSet, _ kv.Version) {
		m.seen.forgotten++
		m.outdate(func(h kv.Hash, _ modelKey, _ modelEntry) bool { return set.Has(h.Partition()) })
	}
	s, err := New(cfg)
	testenv.Must(t, err)
	for _, ns := range modelNamespaces {
		s.SetNamespace(ns.id, kv.NamespaceSeed(modelSeed, strconv.Itoa(int(ns.id))), ns.quota, ns.limits)
	}
	m.cfg, m.store = cfg, s
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
			if m.readMostly { // one steady load, so that the queues settle
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
	was := &m.carried
	if got := st.Evicted + st.QuotaEvicted + was.Evicted + was.QuotaEvicted; got < m.lost || got > m.lost+m.expired {
		m.t.Errorf("the store says that it evicted %d entries; %d are gone, %d more may be", got, m.lost, m.expired)
	}
	sum := st.Memory
	if parts := sum.Payload + sum.Headers + sum.Alignment + sum.Dead + sum.Open + sum.Tails + sum.Index + sum.Ghosts + sum.Quotas; parts != sum.Used {
		m.t.Errorf("memory: parts make %d, total %d: %+v", parts, sum.Used, sum)
	}
	if sum.Used > sum.Limit {
		m.t.Errorf("memory: %d of %d", sum.Used, sum.Limit)
	}
}

func (m *model) key(k modelKey) kv.Key {
	seed := kv.NamespaceSeed(modelSeed, strconv.Itoa(int(k.ns)))
	return kv.Key{Hash: kv.HashKey(seed, []byte(k.key)), Namespace: k.ns, Bytes: []byte(k.key)}
}

// sync drops a key from the map if it has expired or been evicted. Otherwise it returns
// the entry that the store must have.
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
	if n%32 == 7 {
		k.key = string(alikeKey(kv.NamespaceSeed(modelSeed, strconv.Itoa(int(ns))), n/32%32).Bytes)
	}
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
	case op < 945:
		m.concat(k)
	case op < 952:
		m.look(k)
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
