package segment

import (
	"fmt"
	"testing"
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
