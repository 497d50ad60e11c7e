package segment

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestServes checks that nothing changes in a partition that is not served, but by a fill.
func TestServes(t *testing.T) {
	serves, changed := true, 0
	s := newTestStore(t, Config{
		Size:    MinSize,
		Serves:  func(uint16) bool { return serves },
		Changed: func(kv.Key, kv.Version) { changed++ },
	})
	now := kv.Moment{Boot: time.Hour}
	k := testKey("k")
	w := Write{Value: []byte("1"), Facts: kv.Facts{Deadline: kv.After(now.Boot, time.Hour)}}
	if _, r := s.Put(k, w, now); r != Stored {
		t.Fatal(r)
	}
	serves, changed = false, 0
	for name, change := range map[string]func() (kv.Version, Result){
		"Put": func() (kv.Version, Result) { return s.Put(k, w, now) },
		"Put large": func() (kv.Version, Result) {
			l := w
			l.Value = make([]byte, s.cfg.SegmentSize)
			return s.Put(k, l, now)
		},
		"Incr": func() (kv.Version, Result) {
			_, v, _, r := s.Incr(k, Increment{Delta: 1, Deadline: w.Deadline}, now)
			return v, r
		},
		"Concat": func() (kv.Version, Result) { w.Mode = Append; return s.Concat(k, w, true, now) },
		"Look": func() (kv.Version, Result) {
			_, seen, r := s.Look(nil, k, Query{Touch: true}, now)
			return seen.Event, r
		},
		"Remove": func() (kv.Version, Result) {
			return s.Remove(k, Removal{Compare: 1}, now)
		},
		"Touch":      func() (kv.Version, Result) { _, v, r := s.Touch(k, w.Deadline, 0, now); return v, r },
		"Delete":     func() (kv.Version, Result) { v, _ := s.Delete(k, now); return v, NotOwner },
		"Soften":     func() (kv.Version, Result) { v, _ := s.Soften(k, now); return v, NotOwner },
		"Invalidate": func() (kv.Version, Result) { return s.Invalidate(k.Hash, now), NotOwner },
	} {
		if v, r := change(); v != 0 || r != NotOwner {
			t.Errorf("%s: version %v, %v, want none and %v", name, v, r, NotOwner)
		}
	}
	if e, ok := s.Peek(k, now.Boot); !ok || changed != 0 {
		t.Errorf("%d changes were told; the entry is %v, there %v", changed, e, ok)
	}
}
