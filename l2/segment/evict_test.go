package segment

import (
	"fmt"
	"math"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// evictStore is one shard of 100 segments, each with room for ten entries of evictEntry.
func evictStore(t *testing.T) (s *Store, put func(name string), read func(name string, times int) bool) {
	t.Helper()
	s = newTestStore(t, Config{Segments: 100, SegmentSize: 10 * (headerSize + 8 + 12)})
	put = func(name string) { mustPut(t, s, name, Write{Value: make([]byte, 12)}) }
	read = func(name string, times int) (ok bool) {
		for range times {
			_, _, ok = s.Get(nil, testKey(name), NoLimit, testNow.Boot)
		}
		return ok
	}
	return s, put, read
}

// TestWhatIsReadStays reads a tenth of a store again and again, while keys pass through both queues, half of them
// read at their beginning and never again.
func TestWhatIsReadStays(t *testing.T) {
	s, put, read := evictStore(t)
	name := func(i int) string { return fmt.Sprintf("hot%05d", i) }
	for i := range 100 {
		put(name(i))
		read(name(i), promoteHits)
	}
	for i := range 20_000 {
		put(fmt.Sprintf("new%05d", i))
		read(fmt.Sprintf("new%05d", i), i%2*promoteHits)
		read(name(i%100), 1)
	}
	for i := range 100 {
		if !read(name(i), 1) {
			t.Errorf("%s is gone", name(i))
		}
	}
	if st := s.Stats(); st.Reinserted == 0 {
		t.Error("no entry has gone round the main queue: the test proves nothing")
	}
}

// TestAnotherLap follows entries through admission, by how often they were read there.
func TestAnotherLap(t *testing.T) {
	s, put, read := evictStore(t)
	sh := s.shards[0]
	put("once")
	read("once", 1)
	put("twice")
	read("twice", promoteHits)
	for i := range 10 {
		put(fmt.Sprintf("%08d", i)) // seals the segment of both
	}
	sh.evictOne(testNow.Boot, false, 0)
	where := func(name string) string {
		_, w, _, _, ok := sh.find(testKey(name))
		if !ok {
			return "gone"
		}
		id, _ := s.split(w.loc())
		return fmt.Sprintf("queue %d, %d hits", s.meta[id].queue, w.hits())
	}
	if got, want := where("once"), fmt.Sprintf("queue %d, 0 hits", admission); got != want {
		t.Errorf("read once: %s, want %s", got, want)
	}
	if got, want := where("twice"), fmt.Sprintf("queue %d, 0 hits", mainQueue); got != want {
		t.Errorf("read twice: %s, want %s", got, want)
	}
	for i := range 3000 {
		put(fmt.Sprintf("new%05d", i))
	}
	if got := where("once"); got != "gone" {
		t.Errorf("read once, another lap later: %s", got)
	}
}

// TestSegmentsMovedForOne reads every entry of a full store more often than its hits can count. However often that
// happens, few segments are moved for one that becomes free.
func TestSegmentsMovedForOne(t *testing.T) {
	s, put, read := evictStore(t)
	sh, most := s.shards[0], int64(0)
	for i := range 1500 {
		put(fmt.Sprintf("%08d", i))
		if _, free, _ := s.pool.counts(); free > 0 {
			continue
		}
		for j := range i + 1 {
			read(fmt.Sprintf("%08d", j), maxHits)
		}
		before := sh.n.SegmentEvictions
		if !sh.freeOne(testNow.Boot, 0) {
			t.Fatal("no segment became free")
		}
		most = max(most, sh.n.SegmentEvictions-before)
	}
	t.Log("segments moved for one:", most)
	if bound := int64(patience + minGain + 1); most > bound || most <= patience {
		t.Errorf("%d segments were moved for one, want more than %d and at most %d", most, patience, bound)
	}
}

// TestLessons writes keys anew that the queues dropped. It counts what each teaches, once, and no more than to the
// bounds of the share.
func TestLessons(t *testing.T) {
	s, put, _ := evictStore(t)
	sh := s.shards[0]
	for i := range 3000 { // the tables are there
		put(fmt.Sprintf("%08d", i))
	}
	sh.counts[0].hits = 1
	sh.weigh()
	entry := 1 / float64(sh.index.count)
	old, fresh, lost := testKey("old"), testKey("fresh"), testKey("lost")
	sh.ghosts.drop(old.Hash)
	for i := range sh.index.count / 5 {
		sh.ghosts.drop(testKey(fmt.Sprint("other", i)).Hash)
	}
	for _, step := range []struct {
		name  string
		key   kv.Key
		drop  func(kv.Hash)
		moves float64
	}{
		{"a ghost of admission that is not fresh", old, func(kv.Hash) {}, 0},
		{"a fresh one", fresh, sh.ghosts.drop, 1},
		{"spent", fresh, func(kv.Hash) {}, 0},
		{"a ghost of the main queue", lost, sh.lost.drop, -1.5},
		{"spent", lost, func(kv.Hash) {}, 0},
	} {
		step.drop(step.key.Hash)
		before := sh.share
		sh.learn(step.key, sh.ghosts.find(step.key.Hash))
		if got := (sh.share - before) / entry; math.Abs(got-step.moves) > 1e-6 {
			t.Errorf("%s: the share moved by %v entries, want %v", step.name, got, step.moves)
		}
	}
	again := func(k kv.Key, drop func(kv.Hash)) float64 {
		for range 2000 {
			drop(k.Hash)
			sh.learn(k, sh.ghosts.find(k.Hash))
		}
		return sh.share
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: share %v, want %v", what, got, want)
		}
	}
	near("too short all the time", again(fresh, sh.ghosts.drop), mostShare)
	near("too long all the time", again(lost, sh.lost.drop), leastShare)

	// Another namespace has a quarter of the hits, and a third has none.
	rest := kv.Key{Hash: fresh.Hash, Namespace: 3}
	near("no hits", again(rest, sh.ghosts.drop), leastShare)
	sh.counts[0].hits, sh.counts[2].hits = 300, 100
	sh.weigh()
	rest.Namespace = 2
	near("a quarter of the hits", again(rest, sh.ghosts.drop), leastShare*3/4+mostShare/4)
	near("all of it against that", again(fresh, sh.ghosts.drop), mostShare)
}

// TestShareFollowsTheWorkload reads what is written twice soon, and then runs round a loop that is longer than the
// store.
func TestShareFollowsTheWorkload(t *testing.T) {
	s, put, read := evictStore(t)
	get := func(name string) {
		if !read(name, 1) {
			put(name)
		}
	}
	for i := range 20_000 {
		get(fmt.Sprintf("%08d", i))
		get(fmt.Sprintf("%08d", max(0, i-150)))
		get(fmt.Sprintf("%08d", max(0, i-170)))
	}
	soon := s.Stats().Admission.Median
	for i := range 60_000 {
		get(fmt.Sprintf("loop%05d", i%1100))
	}
	loop := s.Stats().Admission.Median
	t.Logf("share %v, in a loop %v", soon, loop)
	if soon < 2*firstShare || loop > firstShare/2 {
		t.Errorf("share %v, in a loop %v, want at least %v and at most %v", soon, loop, 2*firstShare, firstShare/2)
	}
}

// TestPartsAreThoseOfTheHits has three namespaces, of which one only writes, however much.
func TestPartsAreThoseOfTheHits(t *testing.T) {
	s, _, _ := evictStore(t)
	reads := []int{0, 1, 3}
	for i := range 12_000 {
		ns := kv.NamespaceID(max(0, i%10-7)) // eight of ten keys are of the writer
		k := testKey(fmt.Sprintf("%08d", i))
		k.Namespace = ns
		k.Hash = kv.HashKey(s.namespaces[ns].seed.Load(), k.Bytes)
		if _, r := s.Put(k, Write{Value: make([]byte, 12)}, testNow); r != Stored {
			t.Fatalf("put = %d", r)
		}
		for range reads[ns] {
			s.Get(nil, k, NoLimit, testNow.Boot)
		}
	}
	counts := &s.shards[0].counts
	for ns, want := range []float64{0, 0.25, 0.75} {
		if got := counts[ns].part; math.Abs(got-want) > 0.1 {
			t.Errorf("reads of each key %v: the part of namespace %d is %.2f, want about %v", reads, ns, got, want)
		}
	}
}
