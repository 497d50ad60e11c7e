package segment

import (
	"fmt"
	"testing"
)

// TestQuotaComesAndGoes: a quota may come while there are entries, change and go. It
// counts what is there, and removes the keys from before it like others.
func TestQuotaComesAndGoes(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	s.SetNamespace(3, testSeed, 0, Limits{})
	put := func(what string, n int) {
		t.Helper()
		for i := range n {
			k := testKey(fmt.Sprint(what, i))
			k.Namespace = 3
			if _, r := s.Put(k, Write{Value: make([]byte, 100)}, testNow); r != Stored {
				t.Fatalf("put %s%d = %d", what, i, r)
			}
		}
	}
	audit := func(when string, least, most int64) {
		t.Helper()
		if err := s.check(); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if st := s.NamespaceStats(3); st.Bytes < least || st.Bytes > most {
			t.Errorf("%s: %d bytes, want %d to %d", when, st.Bytes, least, most)
		}
	}
	const quota = 100_000
	put("a", 5000)
	s.Meter(3)
	s.SetLimits(3, quota, Limits{})
	s.Shrink(3, testNow.Boot)
	audit("a quota has come", quota*9/10, quota)
	put("b", 5000)
	audit("more keys", quota*9/10, quota)
	s.SetLimits(3, quota/2, Limits{})
	s.Shrink(3, testNow.Boot)
	audit("a smaller one", quota*4/10, quota/2)
	s.SetLimits(3, 0, Limits{})
	put("c", 5000)
	audit("none", 5*quota, 20*quota)
	s.Clear(3, testNow)
	s.Sweep(t.Context())
	s.SetLimits(3, quota, Limits{})
	audit("none, and again one", 0, 0)
	put("d", 5000)
	audit("keys after that", quota*9/10, quota)
}
