package segment

import (
	"bytes"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestRead checks when an entry counts as read.
func TestRead(t *testing.T) {
	k := testKey("k")
	get := func(s *Store) { s.Get(nil, k, NoLimit, testNow.Boot) }
	look := func(q Query) func(*Store) { return func(s *Store) { s.Look(nil, k, q, testNow) } }
	put := func(n int) func(*Store) {
		return func(s *Store) { s.Put(k, Write{Value: make([]byte, n)}, testNow) }
	}
	for _, tc := range []struct {
		name  string
		steps []func(*Store)
		want  bool
	}{
		{"written", nil, false},
		{"got", []func(*Store){get}, true},
		{"looked at", []func(*Store){look(Query{Limit: -1})}, true},
		{"looked at, as no read", []func(*Store){look(Query{Limit: NoLimit, Unread: true})}, false},
		{"served elsewhere", []func(*Store){func(s *Store) { s.Touched(k) }}, true},
		{"peeked at", []func(*Store){func(s *Store) { s.Peek(k, testNow.Boot) }}, false},
		{"touched", []func(*Store){func(s *Store) { s.Touch(k, 0, 0, testNow) }}, false},
		{"got, written in place", []func(*Store){get, put(5)}, false},
		{"got, written elsewhere", []func(*Store){get, put(500)}, false},
		{"got, softened", []func(*Store){get, func(s *Store) { s.Soften(k, testNow) }}, true},
		{"a chain, got", []func(*Store){put(300 << 10), get}, true},
	} {
		s := newStaleStore(t, Config{Size: MinSize})
		mustPut(t, s, "k", Write{Value: make([]byte, 5)})
		used := s.Stats().Memory.Dead
		for _, step := range tc.steps {
			step(s)
		}
		_, seen, r := s.Look(nil, k, Query{Limit: -1, Unread: true}, testNow)
		if r != Found || seen.Read != tc.want {
			t.Errorf("%s: %d, read %v, want %v", tc.name, r, seen.Read, tc.want)
		}
		if dead := s.Stats().Memory.Dead; tc.name == "got, written in place" && dead != used {
			t.Errorf("%s: %d dead bytes more", tc.name, dead-used)
		}
	}
}

func TestLookTouches(t *testing.T) {
	s := newStaleStore(t, Config{Size: MinSize})
	end := kv.After(testNow.Boot, time.Hour)
	v := mustPut(t, s, "k", Write{Value: []byte("v"), Facts: kv.Facts{Attributes: kv.Attributes{Flags: 4}}})
	touch := Query{Limit: NoLimit, Touch: true, Deadline: end}
	b, seen, r := s.Look([]byte("x"), testKey("k"), touch, testNow)
	if r != Found || string(b) != "xv" || seen.Version != v || seen.Flags != 4 || seen.Deadline != end || seen.Event <= v {
		t.Errorf("%q, %+v, %d", b, seen, r)
	}
	if info, _ := s.Peek(testKey("k"), testNow.Boot); info.Deadline != end {
		t.Errorf("deadline %d, want %d", info.Deadline, end)
	}
	s.Soften(testKey("k"), testNow)
	if b, seen, r := s.Look(nil, testKey("k"), touch, testNow); r != Found || seen.Kind != kv.Stale || seen.Event != 0 || seen.Deadline == end || string(b) != "v" {
		t.Errorf("stale: %q, %+v, %d", b, seen, r)
	}
	if _, _, r := s.Look(nil, testKey("absent"), touch, testNow); r != Absent {
		t.Errorf("absent: %d", r)
	}
}

// TestLookEnds ends entries of each kind and size. What was there is returned whole, and is gone.
func TestLookEnds(t *testing.T) {
	end := Query{Limit: NoLimit, End: true}
	for _, tc := range []struct {
		name, before string // live, softened, negative, expired or absent
		size         int
		want         Result
	}{
		{"live", "live", 5, Found},
		{"a chain", "live", 300 << 10, Found},
		{"softened", "softened", 5, Found},
		{"a softened chain", "softened", 300 << 10, Found},
		{"negative", "negative", 0, Found},
		{"expired", "expired", 5, Absent},
		{"absent", "absent", 0, Absent},
	} {
		changes, now := 0, testNow
		s := newStaleStore(t, Config{Size: MinSize, Changed: func(kv.Key, kv.Version) { changes++ }})
		k, value := testKey("k"), bytes.Repeat([]byte("v"), tc.size)
		switch tc.before {
		case "absent":
		case "negative":
			mustPut(t, s, "k", Write{Facts: kv.Facts{Kind: kv.Absent, Deadline: kv.After(now.Boot, time.Minute)}})
		default:
			mustPut(t, s, "k", Write{Value: value, Facts: kv.Facts{Deadline: kv.After(now.Boot, time.Minute)}})
		}
		switch tc.before {
		case "softened":
			s.Soften(k, now)
		case "expired":
			now.Boot += time.Minute
		}
		changes = 0
		b, seen, r := s.Look(nil, k, end, now)
		if r != tc.want || r == Found && !bytes.Equal(b, value) || seen.Event == 0 || changes != 1 {
			t.Errorf("%s: %d, %d bytes, event %d, %d changes", tc.name, r, len(b), seen.Event, changes)
		}
		if _, _, r := s.Look(nil, k, Query{}, now); r != Absent {
			t.Errorf("%s: it is there afterwards", tc.name)
		}
	}
}

// TestRemoveCompares checks conditional removals, of live and of softened values.
func TestRemoveCompares(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before string // live, softened or absent
		r      Removal
		other  bool // with another version
		want   Result
		after  string
	}{
		{"live", "live", Removal{}, false, Stored, "absent"},
		{"live, another version", "live", Removal{}, true, Exists, "live"},
		{"live, soft", "live", Removal{Soft: true}, false, Stored, "softened"},
		{"live, soft, another version", "live", Removal{Soft: true}, true, Exists, "live"},
		{"softened", "softened", Removal{}, false, Stored, "absent"},
		{"softened, another version", "softened", Removal{}, true, Exists, "softened"},
		{"softened, soft", "softened", Removal{Soft: true}, false, Stored, "softened"},
		{"absent", "absent", Removal{}, false, Absent, "absent"},
	} {
		changes := 0
		s := newStaleStore(t, Config{Size: MinSize, Changed: func(kv.Key, kv.Version) { changes++ }})
		k, v := testKey("k"), kv.Version(5)
		if tc.before != "absent" {
			v = mustPut(t, s, "k", Write{Value: []byte("v")})
		}
		if tc.before == "softened" {
			s.Soften(k, testNow)
		}
		if tc.r.Compare = v; tc.other {
			tc.r.Compare++
		}
		changes = 0
		got, r := s.Remove(k, tc.r, testNow)
		if r != tc.want || (r == Exists) != (got == v) || (r == Stored) != (changes == 1) {
			t.Errorf("%s: %d, %v, %d changes, want %d", tc.name, r, got, changes, tc.want)
		}
		after := "absent"
		if _, seen, r := s.Look(nil, k, Query{}, testNow); r == Found {
			after = map[bool]string{false: "live", true: "softened"}[seen.Kind == kv.Stale]
		}
		if after != tc.after {
			t.Errorf("%s: it is %s, want %s", tc.name, after, tc.after)
		}
	}
}

// TestSoftenShorter checks how long a softened value stays if the deletion limits it.
func TestSoftenShorter(t *testing.T) {
	for _, tc := range []struct {
		name string
		most []time.Duration // of one deletion after another
		want time.Duration
	}{
		{"no limit of its own", []time.Duration{0}, time.Minute},
		{"shorter", []time.Duration{time.Second}, time.Second},
		{"longer than the namespace's", []time.Duration{time.Hour}, time.Minute},
		{"shorter, then longer", []time.Duration{time.Second, 10 * time.Second}, time.Second},
		{"longer, then shorter", []time.Duration{10 * time.Second, time.Second}, time.Second},
		{"shorter, then without a limit", []time.Duration{time.Second, 0}, time.Second},
	} {
		s := newTestStore(t, Config{Size: MinSize})
		s.SetNamespace(0, testSeed, 0, Limits{Stale: time.Minute})
		k := testKey("k")
		mustPut(t, s, "k", Write{Value: bytes.Repeat([]byte("v"), 9)})
		for _, most := range tc.most {
			s.Remove(k, Removal{Soft: true, Stale: most}, testNow)
		}
		if _, seen, r := s.Look(nil, k, Query{}, testNow); r != Found || seen.Deadline != kv.After(testNow.Boot, tc.want) {
			t.Errorf("%s: %d, deadline %d, want %d", tc.name, r, seen.Deadline, kv.After(testNow.Boot, tc.want))
		}
	}
}
