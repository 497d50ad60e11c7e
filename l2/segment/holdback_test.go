package segment

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestHoldBack checks that entries from before HoldBack count as absent until Resume, and are served by
// GetStale alone; that later ones are served; and that what changes meanwhile has changed after Resume.
func TestHoldBack(t *testing.T) {
	s := newStaleStore(t, Config{})
	for _, name := range []string{"kept", "deleted", "softened", "written", "filled"} {
		mustPut(t, s, name, Write{Value: []byte("one")})
	}
	mustPut(t, s, "ending", Write{Value: []byte("one"), Facts: kv.Facts{Deadline: kv.After(testNow.Boot, time.Second)}})
	is := func(when, name, want string) {
		t.Helper()
		got, _, ok := s.Get(nil, testKey(name), NoLimit, testNow.Boot)
		if string(got) != want || ok != (want != "") {
			t.Errorf("%s: %s is %q, want %q", when, name, got, want)
		}
		if _, present := s.Peek(testKey(name), testNow.Boot); present != ok {
			t.Errorf("%s: %s is present: %v", when, name, present)
		}
	}
	s.HoldBack(0, testNow)
	for _, name := range []string{"kept", "deleted", "softened", "written", "filled", "ending"} {
		is("held back", name, "")
		if got, old, ok := s.GetStale(nil, testKey(name), testNow.Boot); !ok || string(got) != "one" || old.Ended != 0 || old.Invalidated {
			t.Errorf("%s is stale: %q, %+v, %v", name, got, old, ok)
		}
	}
	if v, _ := s.Delete(testKey("deleted"), testNow); v == 0 {
		t.Error("a deletion has no version")
	}
	s.Soften(testKey("softened"), testNow)
	mustPut(t, s, "written", Write{Value: []byte("two")})
	past := kv.FirstVersionAt(testNow.Wall - 1000)
	fill := func(version kv.Version, value string) {
		s.Fill(testKey("filled"), Fill{
			Value: []byte(value), Facts: kv.Facts{Version: version}, Generation: s.Generation(testKey("filled").Hash.Partition()), Admit: func() bool { return true },
		}, testNow)
	}
	fill(past, "older")
	fill(s.cfg.Versions.Next(testNow.Wall), "two")
	mustPut(t, s, "new", Write{Value: []byte("two")})
	is("held back", "written", "two")
	is("held back", "filled", "two")
	is("held back", "new", "two")
	n := s.Scan
	n(func(uint16) bool { return true }, 0, testNow.Boot, func(e kv.Entry) bool {
		if string(e.Value) != "two" {
			t.Errorf("%s is handed over", e.Key.Bytes)
		}
		return true
	})
	s.Resume(0)
	for name, want := range map[string]string{"kept": "one", "deleted": "", "softened": "", "written": "two", "filled": "two", "new": "two", "ending": "one"} {
		is("resumed", name, want)
	}
	s.HoldBack(0, testNow)
	s.Clear(0, testNow)
	s.Resume(0)
	is("after a flush", "kept", "")
	is("after a flush", "new", "")
}
