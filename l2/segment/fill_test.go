package segment

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func always() bool { return true }

// mustFill stores the result of a load that begins now, unless f has a version.
func mustFill(t testing.TB, s *Store, name string, f Fill) kv.Version {
	t.Helper()
	k := testKey(name)
	if f.Version == 0 {
		f.Version = s.cfg.Versions.Next(testNow.Wall)
	}
	f.Generation, f.Admit = s.Generation(k.Hash.Partition()), always
	if _, r := s.Fill(k, f, testNow); r != Stored {
		t.Fatalf("Fill(%s) = %d", name, r)
	}
	return f.Version
}

// TestFillTellsOfChanges checks that Fill calls Changed if, and only if, it replaces or
// removes a live value that may have copies.
func TestFillTellsOfChanges(t *testing.T) {
	var (
		big    = bytes.Repeat([]byte{7}, 300<<10) // a chain
		minute = kv.After(testNow.Boot, time.Minute)
		hour   = kv.After(testNow.Boot, time.Hour)
		passed = kv.Deadline(1)
	)
	put := func(w Write) func(*Store) { return func(s *Store) { mustPut(t, s, "k", w) } }
	fill := func(f Fill) func(*Store) { return func(s *Store) { mustFill(t, s, "k", f) } }
	for _, tc := range []struct {
		name   string
		before func(*Store)
		fill   Fill
		live   bool // what was before
		gone   bool // no entry is there afterwards
	}{
		{"nothing was there", func(*Store) {}, Fill{Value: []byte("v")}, false, false},
		{"nothing was there, and is", func(*Store) {}, Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: minute}}, false, false},
		{"nothing to remove", func(*Store) {}, Fill{Facts: kv.Facts{Kind: kv.Absent}}, false, true},
		{"the same", put(Write{Value: []byte("v"), Facts: kv.Facts{Attributes: kv.Attributes{Flags: 1}, Deadline: minute}}), Fill{Value: []byte("v"), Facts: kv.Facts{Attributes: kv.Attributes{Flags: 1}, Deadline: hour}}, true, false},
		{"other bytes", put(Write{Value: []byte("v")}), Fill{Value: []byte("w")}, true, false},
		{"another length", put(Write{Value: []byte("v")}), Fill{Value: []byte("vv")}, true, false},
		{"none instead of a value", put(Write{Value: []byte("v")}), Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: minute}}, true, false},
		{"an empty value instead of none", fill(Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: minute}}), Fill{Facts: kv.Facts{Deadline: minute}}, true, false},
		{"none instead of none", fill(Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: minute}}), Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: hour}}, true, false},
		{"a value removed", put(Write{Value: []byte("v")}), Fill{Facts: kv.Facts{Kind: kv.Absent}}, true, true},
		{"a value removed by what has passed", put(Write{Value: []byte("v")}), Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: passed}}, true, true},
		{"none removed", fill(Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: minute}}), Fill{Facts: kv.Facts{Kind: kv.Absent}}, true, true},
		{"a softened value replaced", func(s *Store) {
			mustPut(t, s, "k", Write{Value: []byte("v")})
			s.Soften(testKey("k"), testNow)
		}, Fill{Value: []byte("w")}, false, false},
		{"a softened value removed", func(s *Store) {
			mustPut(t, s, "k", Write{Value: []byte("v")})
			s.Soften(testKey("k"), testNow)
		}, Fill{Facts: kv.Facts{Kind: kv.Absent}}, false, true},
		{"an expired value replaced", put(Write{Value: []byte("v"), Facts: kv.Facts{Deadline: kv.Deadline(testNow.Boot / time.Millisecond)}}), Fill{Value: []byte("w")}, false, false},
		{"a chain, the same", put(Write{Value: big, Facts: kv.Facts{Deadline: minute}}), Fill{Value: big, Facts: kv.Facts{Deadline: hour}}, true, false},
		{"a chain instead of an entry", put(Write{Value: []byte("v")}), Fill{Value: big}, true, false},
		{"none instead of a chain", put(Write{Value: big}), Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: minute}}, true, false},
	} {
		for _, given := range []bool{false, true} {
			var told []kv.Version
			s := newStaleStore(t, Config{Changed: func(k kv.Key, v kv.Version) {
				if k.Hash != testKey("k").Hash {
					t.Errorf("%s: told of another key", tc.name)
				}
				told = append(told, v)
			}})
			tc.before(s)
			s.Get(nil, testKey("k"), NoLimit, testNow.Boot)
			if given {
				s.Read(nil, testKey("k"), NoLimit, true, testNow.Boot)
			}
			told = nil
			v := mustFill(t, s, "k", tc.fill)
			if want := map[bool]int{true: 1}[given && tc.live]; len(told) != want {
				t.Errorf("%s, given %v: told of %d changes, want %d", tc.name, given, len(told), want)
			}
			if len(told) > 0 && told[0] <= v {
				t.Errorf("%s: the change has version %v, and the load %v", tc.name, told[0], v)
			}
			got, info, ok := s.Get(nil, testKey("k"), NoLimit, testNow.Boot)
			if ok == tc.gone || ok && (info.Version != v || info.Deadline != tc.fill.Deadline || info.Flags != tc.fill.Flags ||
				info.Kind != tc.fill.Kind || !bytes.Equal(got, tc.fill.Value)) {
				t.Errorf("%s: %d bytes, %+v, %v", tc.name, len(got), info, ok)
			}
			if _, _, ok := s.GetStale(nil, testKey("k"), testNow.Boot); ok {
				t.Errorf("%s: the old value is still there", tc.name)
			}
		}
	}
}

// evict stores values until a key has been evicted.
func evict(t testing.TB, s *Store, name string) {
	t.Helper()
	value, new := make([]byte, 2000), s.cfg.Versions.Next(0)
	for i := range 20 * s.cfg.Size / int64(len(value)) {
		if _, there := s.Peek(testKey(name), testNow.Boot); !there {
			return
		}
		other := fmt.Sprint("other ", new, i)
		mustPut(t, s, other, Write{Value: value})
		for range promoteHits { // else it would not push out what was read
			s.Get(nil, testKey(other), NoLimit, testNow.Boot)
		}
	}
	t.Fatalf("%s is not evicted", name)
}

// TestFillAfterEviction checks that a fill is a change if the last value of its key was given
// out and evicted, once; and that an older value does not come back in its place.
func TestFillAfterEviction(t *testing.T) {
	k, minute := testKey("k"), kv.After(testNow.Boot, time.Minute)
	for _, tc := range []struct {
		name  string
		value []byte
		quota int64
		fill  Fill
	}{
		{"a value", []byte("v"), 0, Fill{Value: []byte("w")}},
		{"the same", []byte("v"), 0, Fill{Value: []byte("v")}},
		{"none", []byte("v"), 0, Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: minute}}},
		{"nothing", []byte("v"), 0, Fill{Facts: kv.Facts{Kind: kv.Absent}}},
		{"over a quota", []byte("v"), 1 << 20, Fill{Value: []byte("w")}},
		{"a chain", make([]byte, 300<<10), 0, Fill{Value: []byte("w")}},
	} {
		for _, given := range []bool{false, true} {
			var told []kv.Version
			s := newTestStore(t, Config{
				Size: MinSize, Changed: func(_ kv.Key, v kv.Version) { told = append(told, v) },
				Forgotten: func(kv.PartitionSet, kv.Version) { t.Error("forgotten") },
			})
			s.SetLimits(0, tc.quota, Limits{})
			first := mustPut(t, s, "k", Write{Value: tc.value})
			if _, ok := s.Still(k, first-1, true, testNow.Boot); ok {
				t.Error("it has another version")
			}
			if _, ok := s.Still(k, first, given, testNow.Boot); !ok {
				t.Error("it has not its version")
			}
			evict(t, s, "k")
			old := kv.Entry{Key: k, Facts: kv.Facts{Version: first}, Value: tc.value}
			if given {
				if r := s.Restore(old, s.Generation(k.Hash.Partition()), 0, always, testNow); r != Outdated {
					t.Errorf("%s: Restore = %d", tc.name, r)
				}
			}
			told = nil
			v := mustFill(t, s, "k", tc.fill)
			if want := map[bool]int{true: 1}[given]; len(told) != want || given && told[0] <= v {
				t.Errorf("%s, given %v: told of %v, the fill has version %v", tc.name, given, told, v)
			}
			if tc.fill.Deadline != 0 {
				continue // it stands in an open segment, alone
			}
			evict(t, s, "k")
			told = nil
			if mustFill(t, s, "k", Fill{Value: []byte("x")}); len(told) != 0 {
				t.Errorf("%s, given %v: told of %d changes of a value that nobody was given", tc.name, given, len(told))
			}
		}
	}
}

// TestForgotten checks that a store which can remember no more evicted hashes says of which
// partitions it remembers none.
func TestForgotten(t *testing.T) {
	testenv.Takes(t, time.Second)
	told, forgotten := 0, kv.NewPartitionSet(kv.Partitions)
	var floor kv.Version
	s := newTestStore(t, Config{
		Size: MinSize, Changed: func(kv.Key, kv.Version) { told++ },
		Forgotten: func(set kv.PartitionSet, v kv.Version) {
			for p := range set.All() {
				forgotten.Add(p)
			}
			floor = v
		},
	})
	const n = 4 * copiedGroups * maxCopiedHashes
	for i := range n {
		name := fmt.Sprint("given", i)
		mustPut(t, s, name, Write{Value: make([]byte, 50)})
		s.Read(nil, testKey(name), NoLimit, true, testNow.Boot)
	}
	most := 0
	for i := range s.copied {
		most = max(most, len(s.copied[i].hashes))
	}
	if most > maxCopiedHashes || forgotten.Empty() || floor == 0 || floor > s.cfg.Versions.Next(0) {
		t.Errorf("%d hashes of a group, of at most %d; floor %v", most, maxCopiedHashes, floor)
	}
	for i := range n { // a key of which a copy may be alive is remembered, or is of partitions that were forgotten
		name := fmt.Sprint("given", i)
		if _, there := s.Peek(testKey(name), testNow.Boot); there {
			continue
		}
		told = 0
		if mustFill(t, s, name, Fill{Facts: kv.Facts{Kind: kv.Absent}}); told == 0 && !forgotten.Has(testKey(name).Hash.Partition()) {
			t.Fatalf("the fill of %s is no change", name)
		}
	}
}

// TestFillOutdated checks that a fill is refused if the store has something newer than
// the load, and that the newer entry stays.
func TestFillOutdated(t *testing.T) {
	k := testKey("k")
	began := func(s *Store) Fill {
		return Fill{Value: []byte("loaded"), Facts: kv.Facts{Version: s.cfg.Versions.Next(testNow.Wall)}, Generation: s.Generation(k.Hash.Partition()), Admit: always}
	}
	for _, tc := range []struct {
		name  string
		since func(*Store, *Fill) // the load began
		want  Result
		left  string
	}{
		{"nothing", func(*Store, *Fill) {}, Stored, "loaded"},
		{"refused", func(_ *Store, f *Fill) { f.Admit = func() bool { return false } }, Outdated, "old"},
		{"another holding", func(s *Store, _ *Fill) { s.NewOwnership(k.Hash.Partition()) }, Outdated, ""},
		{"a write", func(s *Store, _ *Fill) { mustPut(t, s, "k", Write{Value: []byte("new")}) }, Outdated, "new"},
		{"a write of a long value", func(s *Store, f *Fill) {
			mustPut(t, s, "k", Write{Value: []byte("new")})
			f.Value = make([]byte, 300<<10)
		}, Outdated, "new"},
		{"another load of that moment", func(s *Store, f *Fill) {
			mustFill(t, s, "k", Fill{Value: []byte("same"), Facts: kv.Facts{Version: f.Version}})
		}, Outdated, "same"},
		{"a write that has expired", func(s *Store, _ *Fill) {
			mustPut(t, s, "k", Write{Value: []byte("new"), Facts: kv.Facts{Deadline: kv.Deadline(testNow.Boot / time.Millisecond)}})
		}, Outdated, ""},
		{"a flush", func(s *Store, _ *Fill) { s.Flush(0, s.cfg.Versions.Next(testNow.Wall)) }, Outdated, ""},
		{"a flush, and the sweep", func(s *Store, _ *Fill) {
			s.Flush(0, s.cfg.Versions.Next(testNow.Wall))
			s.Sweep(t.Context())
		}, Outdated, ""},
		{"a long value", func(s *Store, f *Fill) { f.Value = make([]byte, s.cfg.MaxValue+1) }, TooLarge, "old"},
	} {
		for _, removes := range []bool{false, true} {
			changes := 0
			s := newTestStore(t, Config{Size: MinSize, Changed: func(kv.Key, kv.Version) { changes++ }})
			mustPut(t, s, "k", Write{Value: []byte("old")})
			f := began(s)
			tc.since(s, &f)
			want, left := tc.want, tc.left
			if removes {
				f.Kind = kv.Absent
			}
			if removes && want != Outdated {
				want, left = Stored, "" // it has no value, so it is not too large
			}
			before := changes
			if _, got := s.Fill(k, f, testNow); got != want {
				t.Errorf("since: %s, absent %v: %d, want %d", tc.name, removes, got, want)
			}
			if told := changes - before; want == Outdated && told != 0 {
				t.Errorf("since: %s, absent %v: told of %d changes", tc.name, removes, told)
			}
			value, _, ok := s.Get(nil, k, NoLimit, testNow.Boot)
			if string(value) != left || ok != (left != "") {
				t.Errorf("since: %s, absent %v: %q is there, want %q", tc.name, removes, value, left)
			}
		}
	}
}

// TestFillKeepsPlace checks that a fill over a live entry keeps hits and queue, as any
// other write does.
func TestFillKeepsPlace(t *testing.T) {
	s := newStaleStore(t, Config{})
	k := testKey("k")
	mustPut(t, s, "k", Write{Value: []byte("v")})
	s.Get(nil, k, NoLimit, testNow.Boot)
	s.Get(nil, k, NoLimit, testNow.Boot)
	ttl := kv.After(testNow.Boot, time.Minute)
	last, hits := place(s, k)
	for i, tc := range []struct {
		fill    Fill
		inPlace bool
	}{
		{Fill{Value: []byte("w")}, true},
		{Fill{Value: []byte("longer")}, false},
		{Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: ttl}}, false},
		{Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: ttl}}, true},
		{Fill{Value: []byte("w"), Facts: kv.Facts{Deadline: ttl}}, false},
	} {
		mustFill(t, s, "k", tc.fill)
		loc, n := place(s, k)
		if n != hits || (loc == last) != tc.inPlace {
			t.Errorf("fill %d: %d hits, from %d to %d; want %d hits, in place %v", i, n, last, loc, hits, tc.inPlace)
		}
		last = loc
	}
	if st := s.Stats(); st.Overwritten != 5 || st.Admitted != 1 {
		t.Errorf("%d overwritten, %d admitted", st.Overwritten, st.Admitted)
	}
}

func place(s *Store, k kv.Key) (location, int) {
	_, w, _, _, _ := s.shard(k.Hash).find(k)
	return w.loc(), w.hits()
}

// TestRestore checks that an entry is stored only if the store has no live entry and
// nothing newer.
func TestRestore(t *testing.T) {
	k := testKey("k")
	ttl := kv.After(testNow.Boot, time.Minute)
	for _, tc := range []struct {
		name   string
		before func(*Store)
		entry  kv.Entry
		want   Result
	}{
		{"nothing is there", func(*Store) {}, kv.Entry{Value: []byte("v"), Facts: kv.Facts{Attributes: kv.Attributes{Flags: 4}}}, Stored},
		{"none", func(*Store) {}, kv.Entry{Facts: kv.Facts{Kind: kv.Absent, Deadline: ttl}}, Stored},
		{"none for no time", func(*Store) {}, kv.Entry{Facts: kv.Facts{Kind: kv.Absent}}, Stored},
		{"a value is there", func(s *Store) { mustPut(t, s, "k", Write{Value: []byte("w")}) }, kv.Entry{Value: []byte("v")}, Exists},
		{"none is there", func(s *Store) { mustFill(t, s, "k", Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: ttl}}) }, kv.Entry{Value: []byte("v")}, Exists},
		{"a value is there, for no time", func(s *Store) { mustPut(t, s, "k", Write{Value: []byte("w")}) }, kv.Entry{Facts: kv.Facts{Kind: kv.Absent}}, Exists},
		{"as it was in an earlier holding", func(s *Store) {
			mustPut(t, s, "k", Write{Value: []byte("w")})
			s.NewOwnership(k.Hash.Partition())
		}, kv.Entry{Value: []byte("v")}, Stored},
		{"flushed since", func(s *Store) { s.Flush(0, s.cfg.Versions.Next(testNow.Wall)) }, kv.Entry{Value: []byte("v")}, Outdated},
		{"softened since", func(s *Store) {
			mustPut(t, s, "k", Write{Value: []byte("w")})
			s.Soften(k, testNow)
		}, kv.Entry{Value: []byte("v")}, Outdated},
	} {
		var told []kv.Version
		s := newStaleStore(t, Config{Changed: func(_ kv.Key, v kv.Version) { told = append(told, v) }})
		e := tc.entry
		e.Key, e.Version = k, s.cfg.Versions.Next(testNow.Wall)
		tc.before(s)
		told = nil
		had, live := s.Peek(k, testNow.Boot)
		if got := s.Restore(e, s.Generation(k.Hash.Partition()), 0, always, testNow); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
		if !slices.Equal(told, nil) {
			t.Errorf("%s: told of %v", tc.name, told)
		}
		want := Info{e.Facts, len(e.Value)}
		wantLive := tc.want == Stored && !(e.Kind == kv.Absent && e.Deadline == 0)
		if tc.want == Exists {
			want, wantLive = had, live
		}
		if info, ok := s.Peek(k, testNow.Boot); ok != wantLive || ok && info != want {
			t.Errorf("%s: %+v, %v, want %+v, %v", tc.name, info, ok, want, wantLive)
		}
	}
	// Another host's clock is ahead.
	s := newStaleStore(t, Config{})
	e := kv.Entry{Key: k, Value: []byte("v"), Facts: kv.Facts{Version: kv.NewHLC(2).Next(testNow.Wall + 1000)}}
	if r := s.Restore(e, s.Generation(k.Hash.Partition()), 0, always, testNow); r != Stored {
		t.Fatal(r)
	}
	if v := mustPut(t, s, "k", Write{Value: []byte("w")}); v <= e.Version {
		t.Errorf("a write has %v, after the entry's %v", v, e.Version)
	}
}
