package segment

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

func everywhere(uint16) bool { return true }

// TestList lists a store in pages while other keys come and go, so that index pages split
// and merge between them. Each key that is there throughout is listed exactly once, with
// its numbers.
func TestList(t *testing.T) {
	for _, most := range []int{1, 7, 1000} {
		t.Run(fmt.Sprint("pages of ", most), func(t *testing.T) {
			s := newTestStore(t, Config{Size: 8 << 20, Shards: 4})
			deadline := kv.After(testNow.Boot, time.Hour)
			versions := map[string]kv.Version{}
			for i := range 3000 {
				name := fmt.Sprint("stays:", i)
				versions[name] = mustPut(t, s, name, Write{Value: make([]byte, i%50), Facts: kv.Facts{Attributes: kv.Attributes{Flags: uint32(i % 2)}, Deadline: deadline}})
			}
			w := &Wanted{Prefix: []byte("stays:"), Partition: everywhere, Now: testNow.Boot}
			before := s.Stats()
			seen := map[string]bool{}
			var list []Listed
			for p, ok, comes := (Position{}), true, 0; ok; {
				list, p, _, ok = s.List(p, w, most, list[:0])
				if len(list) > most+maxAlike-1 {
					t.Fatalf("a page has %d keys", len(list))
				}
				for _, l := range list {
					name := string(l.Key)
					var i int
					if _, err := fmt.Sscanf(name, "stays:%d", &i); err != nil || seen[name] {
						t.Fatalf("%q, listed before: %v, %v", name, seen[name], err)
					}
					seen[name] = true
					memory := alignUp(headerSize+flagsSize*(i%2)+len(name)+i%50) + 8
					if l.Size != i%50 || l.Memory != memory || l.Version != versions[name] || l.Deadline != deadline {
						t.Fatalf("%s: %+v, want a size of %d, memory of %d", name, l, i%50, memory)
					}
				}
				for range 20 * most {
					if comes++; comes < 50_000 {
						mustPut(t, s, fmt.Sprint("comes:", comes), Write{})
					}
				}
				if st := s.Stats(); st.Evicted > before.Evicted {
					t.Fatal("the store is too small for this test")
				}
			}
			if len(seen) != len(versions) {
				t.Errorf("%d of %d keys are listed", len(seen), len(versions))
			}
			if st := s.Stats(); st.IndexSplits < before.IndexSplits+50 {
				t.Errorf("%d index pages were split meanwhile", st.IndexSplits-before.IndexSplits)
			}
		})
	}
}

// TestListMerged lists a store whose pages merge: everything is deleted while it is
// listed, but for some keys, which are listed exactly once.
func TestListMerged(t *testing.T) {
	s := newTestStore(t, Config{Size: 32 << 20, Shards: 2})
	const keys = 60_000
	for i := range keys {
		mustPut(t, s, fmt.Sprint("key:", i), Write{})
	}
	w := &Wanted{Partition: everywhere, Now: testNow.Boot}
	seen := map[string]int{}
	next := 0
	var list []Listed
	for p, ok := (Position{}), true; ok; {
		list, p, _, ok = s.List(p, w, 10, list[:0])
		for _, l := range list {
			seen[string(l.Key)]++
		}
		for range 20 {
			if next++; next%100 != 0 && next < keys {
				s.Delete(testKey(fmt.Sprint("key:", next)), testNow)
			}
		}
	}
	if st := s.Stats(); st.IndexMerges == 0 {
		t.Error("no index page was merged meanwhile")
	}
	for i := 0; i < keys; i += 100 {
		if n := seen[fmt.Sprint("key:", i)]; n != 1 {
			t.Errorf("key:%d is listed %d times", i, n)
		}
	}
}

// TestListWants checks which entries are listed: those of the namespace, with the prefix,
// of the partitions, with a value that may be served. Listing is no hit.
func TestListWants(t *testing.T) {
	s := newStaleStore(t, Config{})
	soon := kv.After(testNow.Boot, time.Second)
	mustPut(t, s, "a:1", Write{Value: []byte("v")})
	mustPut(t, s, "a:long", Write{Value: make([]byte, 300<<10)}) // a chain
	mustPut(t, s, "b", Write{Value: []byte("v")})
	mustPut(t, s, "a:expired", Write{Value: []byte("v"), Facts: kv.Facts{Deadline: soon}})
	mustPut(t, s, "a:softened", Write{Value: []byte("v")})
	s.Soften(testKey("a:softened"), testNow)
	mustFill(t, s, "a:absent", Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: kv.After(testNow.Boot, time.Minute)}})
	other := kv.Key{Hash: kv.HashKey(s.namespaces[1].seed.Load(), []byte("a:other")), Namespace: 1, Bytes: []byte("a:other")}
	if _, r := s.Put(other, Write{}, testNow); r != Stored {
		t.Fatal(r)
	}
	for _, tc := range []struct {
		prefix string
		want   func(uint16) bool
		keys   string
	}{
		{"", everywhere, "a:1 a:long b"},
		{"a:", everywhere, "a:1 a:long"},
		{"a:1", everywhere, "a:1"},
		{"a:12", everywhere, ""},
		{"", func(p uint16) bool { return p == testKey("b").Hash.Partition() }, "b"},
	} {
		w := &Wanted{Prefix: []byte(tc.prefix), Partition: tc.want, Now: later(2 * time.Second).Boot}
		var list []Listed
		for p, ok := (Position{}), true; ok; {
			list, p, _, ok = s.List(p, w, 100, list)
		}
		var got []string
		for _, l := range list {
			got = append(got, string(l.Key))
			if string(l.Key) == "a:long" && (l.Size != 300<<10 || l.Memory != 2*s.cfg.SegmentSize+8 && l.Memory < 300<<10) {
				t.Errorf("%+v", l)
			}
		}
		if slices.Sort(got); strings.Join(got, " ") != tc.keys {
			t.Errorf("prefix %q lists %q, want %q", tc.prefix, got, tc.keys)
		}
	}
	_, word, _, _, _ := s.shard(testKey("b").Hash).find(testKey("b"))
	if word.hits() != 0 {
		t.Error("listing counts as a hit")
	}
}

// TestListOneHash checks that entries of one hash stay together, beyond the limit.
func TestListOneHash(t *testing.T) {
	s := newTestStore(t, Config{Size: 8 << 20})
	for i := range maxAlike {
		if _, r := s.Put(alikeKey(testSeed, i), Write{}, testNow); r != Stored {
			t.Fatal(r)
		}
	}
	w := &Wanted{Partition: everywhere, Now: testNow.Boot}
	total := 0
	for p, ok := (Position{}), true; ok; {
		var list []Listed
		if list, p, _, ok = s.List(p, w, 1, nil); len(list) != 0 && len(list) != maxAlike {
			t.Errorf("a page has %d of them", len(list))
		}
		total += len(list)
	}
	if total != maxAlike {
		t.Errorf("%d of %d are listed", total, maxAlike)
	}
}

// TestListLongKeys checks that one page copies at most 64 KiB of keys, and one key more.
func TestListLongKeys(t *testing.T) {
	s := newTestStore(t, Config{Size: 8 << 20})
	for i := range 2000 {
		mustPut(t, s, fmt.Sprintf("%01000d", i), Write{})
	}
	w := &Wanted{Partition: everywhere, Now: testNow.Boot}
	most, total := 0, 0
	for p, ok := (Position{}), true; ok; {
		var list []Listed
		list, p, _, ok = s.List(p, w, 1000, nil)
		most = max(most, len(list))
		total += len(list)
	}
	if most != scanCopy/1000+1 || total != 2000 {
		t.Errorf("%d keys, %d of them at once", total, most)
	}
}

// TestListPosition checks the bounds of positions.
func TestListPosition(t *testing.T) {
	s := newTestStore(t, Config{Size: 8 << 20, Shards: 4})
	base := s.shards[3].index.base
	for p, want := range map[Position]bool{
		{}: true, {3, uint16(base - 1), 1<<64 - 1}: true, {4, 0, 0}: false, {3, uint16(base), 0}: false,
	} {
		if s.Valid(p) != want {
			t.Errorf("%+v is valid: %v", p, !want)
		}
		if want {
			s.List(p, &Wanted{Partition: everywhere, Now: testNow.Boot}, 1, nil)
		}
	}
}
