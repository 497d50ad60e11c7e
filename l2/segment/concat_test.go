package segment

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

func TestJoin(t *testing.T) {
	end := kv.After(testNow.Boot, time.Hour)
	for _, tc := range []struct {
		name          string
		before, added int // lengths; before below zero: absent
		mode          Mode
		create, other bool // other: with the version of another value
		want          Result
	}{
		{"append", 3, 2, Append, false, false, Stored},
		{"prepend", 3, 2, Prepend, false, false, Stored},
		{"append to nothing", 0, 2, Append, false, false, Stored},
		{"append nothing", 3, 0, Append, false, false, Stored},
		{"absent", -1, 2, Append, false, false, Absent},
		{"absent, created", -1, 2, Append, true, false, Stored},
		{"absent, created empty", -1, 0, Prepend, true, false, Stored},
		{"absent, created, another version", -1, 2, Append, true, true, Absent},
		{"another version", 3, 2, Append, false, true, Exists},
		{"it becomes a chain", 7 << 10, 7 << 10, Append, false, false, Stored},
		{"a chain before a short one", 300 << 10, 2, Prepend, false, false, Stored},
		{"a chain behind a chain", 300 << 10, 200 << 10, Append, false, false, Stored},
		{"to the limit", 1<<20 - 5, 5, Append, false, false, Stored},
		{"too large", 1<<20 - 5, 6, Append, false, false, TooLarge},
	} {
		s := newTestStore(t, Config{Size: 2 * MinSize, MaxValue: 1 << 20})
		k := testKey("k")
		before, added := bytes.Repeat([]byte("b"), max(0, tc.before)), bytes.Repeat([]byte("a"), tc.added)
		w := Write{Value: added, Facts: kv.Facts{Attributes: kv.Attributes{Flags: 3}, Deadline: end}, Mode: tc.mode}
		var v kv.Version
		if tc.before >= 0 {
			v = mustPut(t, s, "k", Write{Value: before, Facts: kv.Facts{Attributes: kv.Attributes{Flags: 9}}})
		}
		if w.Compare = v; tc.other {
			w.Compare = v + 1
		}
		got, r := s.Concat(k, w, tc.create, testNow)
		if r != tc.want || r == Exists && got != v {
			t.Errorf("%s: %d with %v, want %d", tc.name, r, got, tc.want)
		}
		want, flags, deadline := before, uint32(9), kv.Deadline(0)
		switch {
		case r == Stored && tc.before < 0:
			want, flags, deadline = added, 3, end
		case r == Stored && tc.mode == Append:
			want = append(bytes.Clone(before), added...)
		case r == Stored:
			want = append(bytes.Clone(added), before...)
		}
		b, info, ok := s.Get(nil, k, NoLimit, testNow.Boot)
		if ok != (tc.before >= 0 || r == Stored) || !bytes.Equal(b, want) {
			t.Errorf("%s: %d bytes, %v, want %d", tc.name, len(b), ok, len(want))
		}
		if ok && (info.Flags != flags || info.Deadline != deadline || r == Stored && info.Version != got) {
			t.Errorf("%s: %+v, want flags %d and deadline %d", tc.name, info, flags, deadline)
		}
	}
}

// TestConcatLosesNothing checks that no value is lost that is joined at the time of others,
// with the lock or without it, and that a deadline that a touch gives stays.
func TestConcatLosesNothing(t *testing.T) {
	for _, size := range []int{1, 40 << 10} {
		s := newTestStore(t, Config{Size: 8 * MinSize, MaxValue: 2 << 20})
		k := testKey("k")
		mustPut(t, s, "k", Write{Value: []byte{}})
		end := kv.After(testNow.Boot, time.Hour)
		const writers, each = 4, 8
		var all sync.WaitGroup
		for n := range writers {
			all.Go(func() {
				for range each {
					w := Write{Value: bytes.Repeat([]byte{byte(n)}, size), Mode: Append + Mode(n%2)}
					r := Contended
					for r == Contended {
						_, r = s.Concat(k, w, false, testNow)
					}
					if r != Stored {
						t.Errorf("joined: %d", r)
					}
				}
				s.Touch(k, end, 0, testNow)
			})
		}
		all.Wait()
		b, info, _ := s.Get(nil, k, NoLimit, testNow.Boot)
		for n := range writers {
			if got := bytes.Count(b, []byte{byte(n)}); got != each*size {
				t.Errorf("%d bytes a value: %d bytes of writer %d, want %d", size, got, n, each*size)
			}
		}
		if info.Deadline != end {
			t.Errorf("%d bytes a value: deadline %d, want %d", size, info.Deadline, end)
		}
	}
}

// TestConcatKeepsDeadline touches a key while a long value is joined to it without the lock.
func TestConcatKeepsDeadline(t *testing.T) {
	var s *Store
	end := kv.After(testNow.Boot, time.Hour)
	k := testKey("k")
	asked := 0
	cfg := Config{Size: 4 * MinSize, MaxValue: 1 << 20, Overdue: func(time.Duration) bool { asked++; return false }}
	s = newTestStore(t, cfg)
	mustPut(t, s, "k", Write{Value: make([]byte, 300<<10)})
	w := Write{Value: []byte("x"), Mode: Append, ExecuteBefore: 1}
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	joined, _, _, _ := sh.concat(k, &w, false, testNow)
	sh.mu.Unlock()
	s.Touch(k, end, 0, testNow)
	if _, r := s.Put(k, joined, testNow); r != Stored || asked == 0 {
		t.Fatal(r, asked)
	}
	if info, _ := s.Peek(k, testNow.Boot); info.Deadline != end || info.Size != 300<<10+1 {
		t.Errorf("%+v, want deadline %d", info, end)
	}
}
