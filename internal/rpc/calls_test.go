package rpc

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestCallsUsed checks that calls knows which of its slots are in use, whatever the order in
// which they end.
func TestCallsUsed(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var s calls
	var ids []uint64
	for range 10_000 {
		if len(ids) > 0 && random.IntN(100) < 50 {
			i := random.IntN(len(ids))
			s.endCall(s.find(ids[i]))
			ids = slices.Delete(ids, i, i+1)
		} else {
			ids = append(ids, s.add(nil, time.Time{}))
		}
		var used []uint64
		for at, c := range s.used {
			if used = append(used, c.id); c.at != at {
				t.Fatalf("a slot at %d takes itself for the one at %d", at, c.at)
			}
		}
		slices.Sort(used)
		if want := slices.Sorted(slices.Values(ids)); !slices.Equal(used, want) {
			t.Fatalf("%x are in use, not %x", used, want)
		}
	}
}
