package segment

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

const (
	testGrace = 10 * time.Second
	testStale = time.Minute
)

// newStaleStore returns a store whose namespace has a grace and a limit on stale values.
func newStaleStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	cfg.Size = MinSize
	s := newTestStore(t, cfg)
	s.SetNamespace(0, testSeed, 0, Limits{Grace: testGrace, Stale: testStale})
	return s
}

func later(d time.Duration) kv.Moment {
	return kv.Moment{Wall: testNow.Wall + d.Milliseconds(), Boot: testNow.Boot + d}
}

// TestStale checks that only GetStale returns a value from its deadline on, and that no
// call returns it from the end of the grace on.
func TestStale(t *testing.T) {
	for _, size := range []int{5, 300 << 10} { // an entry, and a chain
		s := newStaleStore(t, Config{})
		k, value := testKey("k"), bytes.Repeat([]byte{7}, size)
		v := mustPut(t, s, "k", Write{Value: value, Facts: kv.Facts{Attributes: kv.Attributes{Flags: 3}, Deadline: kv.After(testNow.Boot, time.Second)}})
		for _, tc := range []struct {
			after       time.Duration
			live, stale bool
		}{
			{0, true, false},
			{time.Second - 1, true, false},
			{time.Second, false, true},
			{time.Second + testGrace - 1, false, true},
			{time.Second + testGrace, false, false},
		} {
			now := later(tc.after)
			if _, ok := s.Peek(k, now.Boot); ok != tc.live {
				t.Errorf("%d bytes after %v: Peek = %v", size, tc.after, ok)
			}
			if tc.after == time.Second+testGrace-1 {
				s.Reclaim(now.Boot) // leaves it
			}
			got, old, ok := s.GetStale([]byte("x"), k, now.Boot)
			if ok != tc.stale {
				t.Errorf("%d bytes after %v: GetStale = %v, want %v", size, tc.after, ok, tc.stale)
			}
			if want := append([]byte("x"), value...); ok && (!bytes.Equal(got, want) || old.Ended != tc.after-time.Second || old.Invalidated ||
				old.Flags != 3 || old.Version != v || old.Deadline != kv.After(testNow.Boot, time.Second+testGrace)) {
				t.Errorf("%d bytes after %v: %d bytes, %+v", size, tc.after, len(got), old)
			}
			if _, _, ok := s.Get(nil, k, NoLimit, now.Boot); ok != tc.live {
				t.Errorf("%d bytes after %v: Get = %v", size, tc.after, ok)
			}
		}
		if st := s.Stats(); st.Expired != 1 || st.Entries != 0 {
			t.Errorf("%d expired, %d left", st.Expired, st.Entries)
		}
	}
}

// absentTo expects that all conditional writes find nothing under a key. Each write has a
// store of its own.
func absentTo(t *testing.T, leave func(*Store, kv.Key), now kv.Moment) {
	t.Helper()
	k := testKey("k")
	put := func(m Mode) func(*Store) Result {
		return func(s *Store) Result {
			_, r := s.Put(k, Write{Value: []byte("w"), Mode: m, Compare: 1}, now)
			return r
		}
	}
	for _, tc := range []struct {
		name string
		do   func(*Store) Result
		want Result
	}{
		{"add", put(Add), Stored},
		{"replace", put(Replace), Absent},
		{"compare and swap", put(CompareAndSwap), Absent},
		{"set", put(Set), Stored},
		{"incr", func(s *Store) Result { _, _, _, r := s.Incr(k, Increment{Delta: 1}, now); return r }, Absent},
		{"incr with an initial value", func(s *Store) Result {
			n, _, _, r := s.Incr(k, Increment{Delta: 1, Create: true, Initial: 5}, now)
			if n != 5 {
				t.Errorf("incr counted from what was there: %d", n)
			}
			return r
		}, Stored},
		{"append", func(s *Store) Result {
			_, r := s.Concat(k, Write{Value: []byte("x"), Mode: Append}, false, now)
			return r
		}, Absent},
		{"touch", func(s *Store) Result {
			if _, _, r := s.Touch(k, 0, 0, now); r == Stored {
				return Stored
			}
			return Absent
		}, Absent},
		{"delete", func(s *Store) Result {
			if _, ok := s.Delete(k, now); ok {
				return Stored
			}
			return Absent
		}, Absent},
		{"soften", func(s *Store) Result {
			if _, ok := s.Soften(k, now); ok {
				return Stored
			}
			return Absent
		}, Absent},
	} {
		s := newStaleStore(t, Config{})
		leave(s, k)
		if got := tc.do(s); got != tc.want {
			t.Errorf("%s = %d, want %d", tc.name, got, tc.want)
		}
		info, ok := s.Peek(k, now.Boot)
		if tc.want == Stored && (!ok || info.Kind == kv.Absent) {
			t.Errorf("%s: the new value is not there: %+v, %v", tc.name, info, ok)
		}
		if _, _, stale := s.GetStale(nil, k, now.Boot); tc.want == Stored && stale {
			t.Errorf("%s left the old value", tc.name)
		}
	}
}

func TestExpiredIsAbsentToWrites(t *testing.T) {
	absentTo(t, func(s *Store, k kv.Key) {
		mustPut(t, s, "k", Write{Value: []byte("7"), Facts: kv.Facts{Deadline: kv.After(testNow.Boot, time.Second)}})
	}, later(2*time.Second))
}

func TestSoftenedIsAbsentToWrites(t *testing.T) {
	absentTo(t, func(s *Store, k kv.Key) {
		mustPut(t, s, "k", Write{Value: []byte("7")})
		if _, ok := s.Soften(k, testNow); !ok {
			t.Error("Soften found no live value")
		}
	}, later(time.Second))
}

// TestSoften checks how long a softened value stays, and since when it counts as stale.
func TestSoften(t *testing.T) {
	ttl := kv.After(testNow.Boot, 5*time.Second)
	type stale struct {
		there bool
		ended time.Duration
	}
	for _, tc := range []struct {
		name     string
		deadline kv.Deadline
		limits   Limits
		soften   []time.Duration
		live     bool // when Soften is called first
		look     time.Duration
		want     stale
	}{
		{"live", 0, Limits{Stale: testStale}, []time.Duration{time.Second}, true, 3 * time.Second, stale{true, 2 * time.Second}},
		{"its own deadline counts no more", ttl, Limits{Stale: testStale}, []time.Duration{time.Second}, true, 10 * time.Second, stale{true, 9 * time.Second}},
		{"until the limit", 0, Limits{Stale: testStale}, []time.Duration{time.Second}, true, time.Second + testStale - 1, stale{true, testStale - 1}},
		{"at the limit", 0, Limits{Stale: testStale}, []time.Duration{time.Second}, true, time.Second + testStale, stale{}},
		{"no grace beyond the limit", 0, Limits{time.Hour, testStale}, []time.Duration{time.Second}, true, time.Second + testStale, stale{}},
		{"twice: since the first", 0, Limits{Stale: testStale}, []time.Duration{0, 9 * time.Second}, true, 10 * time.Second, stale{true, 10 * time.Second}},
		{"in its grace", ttl, Limits{time.Hour, testStale}, []time.Duration{6 * time.Second}, false, 7 * time.Second, stale{true, time.Second}},
		{"in its grace, until the limit", ttl, Limits{time.Hour, testStale}, []time.Duration{6 * time.Second}, false, 6*time.Second + testStale, stale{}},
		{"expired without one", ttl, Limits{Stale: testStale}, []time.Duration{6 * time.Second}, false, 6 * time.Second, stale{}},
		{"no limit", 0, Limits{Grace: time.Hour}, []time.Duration{time.Second}, true, time.Second, stale{}},
		{"no limit, in its grace", ttl, Limits{Grace: time.Hour}, []time.Duration{6 * time.Second}, false, 6 * time.Second, stale{}},
	} {
		changes := 0
		s := newTestStore(t, Config{Size: MinSize, Changed: func(kv.Key, kv.Version) { changes++ }})
		s.SetNamespace(0, testSeed, 0, tc.limits)
		k := testKey("k")
		mustPut(t, s, "k", Write{Value: []byte("v"), Facts: kv.Facts{Deadline: tc.deadline}})
		for i, d := range tc.soften {
			if _, had := s.Soften(k, later(d)); had != (tc.live && i == 0) {
				t.Errorf("%s: Soften at %v = %v", tc.name, d, had)
			}
		}
		if want := 1 + len(tc.soften); changes != want {
			t.Errorf("%s: told of %d changes, want %d", tc.name, changes, want)
		}
		s.Reclaim(later(tc.look).Boot)
		if _, ok := s.Peek(k, later(tc.look).Boot); ok {
			t.Errorf("%s: it is still live", tc.name)
		}
		got, old, ok := s.GetStale(nil, k, later(tc.look).Boot)
		if (stale{ok, old.Ended}) != tc.want || ok && (!old.Invalidated || string(got) != "v") {
			t.Errorf("%s: %q, %+v, %v, want %+v", tc.name, got, old, ok, tc.want)
		}
	}
}

// TestStaleUsesMemory checks that segments of expired entries are freed after the grace,
// not before it, and soon after it.
func TestStaleUsesMemory(t *testing.T) {
	s := newStaleStore(t, Config{})
	const n = 5000
	for i := range n {
		s.Put(testKey(string(rune('a'+i%26))+time.Duration(i).String()), Write{Value: make([]byte, 500), Facts: kv.Facts{Deadline: kv.After(testNow.Boot, 50*time.Millisecond)}}, testNow)
	}
	for _, tc := range []struct {
		after   time.Duration
		entries int64
	}{{time.Second, n}, {testGrace, n}, {testGrace + 51*time.Millisecond, 0}} {
		s.Reclaim(testNow.Boot + tc.after)
		if st := s.Stats(); st.Entries != tc.entries {
			t.Errorf("after %v: %d entries, want %d", tc.after, st.Entries, tc.entries)
		}
	}
}

// TestStaleInTTLClass checks that the TTL class of an entry includes its grace, so that
// the entries of a segment are due together.
func TestStaleInTTLClass(t *testing.T) {
	s := newStaleStore(t, Config{})
	s.SetNamespace(1, testSeed, 0, Limits{})
	classAt := func(ns kv.NamespaceID, w Write) int {
		k := testKey("k")
		k.Namespace = ns
		if _, r := s.Put(k, w, testNow); r != Stored {
			t.Fatal(r)
		}
		_, word, _, _, _ := s.shard(k.Hash).find(k)
		seg, _ := s.split(word.loc())
		return int(s.meta[seg].class)
	}
	soon := kv.After(testNow.Boot, time.Second)
	if with, without := classAt(0, Write{Facts: kv.Facts{Deadline: soon}}), classAt(1, Write{Facts: kv.Facts{Deadline: soon}}); with != 2 || without != 0 {
		t.Errorf("a second is in class %d, and with a grace of %v in class %d; want 0 and 2", without, testGrace, with)
	}
	if c := classAt(0, Write{}); c != classes-1 {
		t.Errorf("no deadline is in class %d", c)
	}
}

// TestScanGivesWhatCounts checks that a scan yields the live entries, negative ones
// included.
func TestScanGivesWhatCounts(t *testing.T) {
	s := newStaleStore(t, Config{})
	soon := kv.After(testNow.Boot, time.Second)
	mustPut(t, s, "live", Write{Value: []byte("v")})
	mustPut(t, s, "expired", Write{Value: []byte("v"), Facts: kv.Facts{Deadline: soon}})
	mustPut(t, s, "softened", Write{Value: []byte("v")})
	s.Soften(testKey("softened"), testNow)
	mustFill(t, s, "absent", Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: kv.After(testNow.Boot, time.Minute)}})
	mustFill(t, s, "absent and expired", Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: soon}})
	got := map[string]bool{}
	s.Scan(func(uint16) bool { return true }, 0, later(2*time.Second).Boot, func(e kv.Entry) bool {
		got[string(e.Key.Bytes)] = e.Kind == kv.Absent
		if absent := e.Kind == kv.Absent; absent != (len(e.Value) == 0) {
			t.Errorf("%s: %d bytes, absent %v", e.Key.Bytes, len(e.Value), absent)
		}
		return true
	})
	if absent, ok := got["absent"]; len(got) != 2 || !ok || !absent || got["live"] {
		t.Errorf("the scan gives %v", got)
	}
}

// TestNegative checks the entries that say that the origin has no value.
func TestNegative(t *testing.T) {
	s := newStaleStore(t, Config{})
	k := testKey("k")
	ttl := kv.After(testNow.Boot, time.Minute)
	// Value and flags of the fill must not show.
	v := mustFill(t, s, "k", Fill{Value: []byte("ignored"), Facts: kv.Facts{Attributes: kv.Attributes{Flags: 9}, Kind: kv.Absent, Deadline: ttl}})
	want := Info{Facts: kv.Facts{Version: v, Deadline: ttl, Kind: kv.Absent}}
	value, info, ok := s.Get([]byte("x"), k, NoLimit, testNow.Boot)
	if !ok || info != want || string(value) != "x" {
		t.Errorf("Get = %q, %+v, %v, want %+v", value, info, ok, want)
	}
	if info, ok := s.Peek(k, testNow.Boot); !ok || info != want {
		t.Errorf("Peek = %+v, %v, want %+v", info, ok, want)
	}
	if st := s.Stats(); st.Negative != 1 || st.Entries != 1 || s.NamespaceStats(0).Entries != 1 {
		t.Errorf("%d negative of %d entries, %d in the namespace", st.Negative, st.Entries, s.NamespaceStats(0).Entries)
	}
	for _, after := range []time.Duration{0, time.Minute} { // no grace
		if _, _, ok := s.GetStale(nil, k, later(after).Boot); ok {
			t.Errorf("GetStale after %v finds it", after)
		}
	}
	if _, _, ok := s.Get(nil, k, NoLimit, later(time.Minute).Boot); ok {
		t.Error("it has no end")
	}
	if st := s.Stats(); st.Negative != 0 || st.Entries != 0 {
		t.Errorf("%d negative of %d entries after its end", st.Negative, st.Entries)
	}
}

func TestNegativeIsAbsentToWrites(t *testing.T) {
	absentTo(t, func(s *Store, k kv.Key) {
		mustFill(t, s, "k", Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: kv.After(testNow.Boot, time.Minute)}})
	}, later(time.Second))
	s := newStaleStore(t, Config{})
	for _, remove := range []func(kv.Key, kv.Moment) (kv.Version, bool){s.Delete, s.Soften} {
		mustFill(t, s, "k", Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: kv.After(testNow.Boot, time.Minute)}})
		remove(testKey("k"), testNow)
		if _, ok := s.Peek(testKey("k"), testNow.Boot); ok {
			t.Error("the deletion left it")
		}
	}
}

// TestRewriteKeepsKinds writes values, empty values and negative entries one after
// another in the same room.
func TestRewriteKeepsKinds(t *testing.T) {
	s := newStaleStore(t, Config{})
	ttl := kv.After(testNow.Boot, time.Minute)
	var got []bool
	for _, absent := range []bool{false, true, true, false, false, true} {
		if absent {
			mustFill(t, s, "k", Fill{Facts: kv.Facts{Kind: kv.Absent, Deadline: ttl}})
		} else {
			mustPut(t, s, "k", Write{Facts: kv.Facts{Deadline: ttl}})
		}
		info, _ := s.Peek(testKey("k"), testNow.Boot)
		got = append(got, info.Kind == kv.Absent)
		if want := map[bool]int64{true: 1}[absent]; s.Stats().Negative != want {
			t.Errorf("absent %v: %d negative entries", absent, s.Stats().Negative)
		}
	}
	if want := []bool{false, true, true, false, false, true}; !slices.Equal(got, want) {
		t.Errorf("absent = %v, want %v", got, want)
	}
}
