package invalidation

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestNeverForgetsABarrier compares the table with a map, in any order and with any
// collisions. If the map has a barrier, the table must have it too. If only the table
// has one, the reason is the lack of memory, and it lasts no longer than the longest
// barrier.
func TestNeverForgetsABarrier(t *testing.T) {
	type hold struct {
		until   time.Duration
		version kv.Version
	}
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		holds := NewBarriers(1 << rnd.IntN(6))
		perfect := map[kv.Hash]hold{}
		hashes := make([]kv.Hash, 1+rnd.IntN(40))
		for i := range hashes {
			hashes[i] = kv.Hash(rnd.Uint64())
		}
		longest, alone := time.Duration(0), 0
		for v := kv.Version(1); v < 2000; v++ {
			h, until := hashes[rnd.IntN(len(hashes))], time.Duration(1+rnd.IntN(1000))
			switch op := rnd.IntN(10); {
			case op < 2:
				holds.Begin(h, until)
				holds.Deleted(h, v)
				perfect[h] = hold{max(until, perfect[h].until), v}
				longest = max(longest, until)
			case op < 3:
				holds.Raise(h, until)
				perfect[h] = hold{max(until, perfect[h].until), perfect[h].version}
				longest = max(longest, until)
			case op < 5:
				w := v - kv.Version(rnd.IntN(int(min(v, 20)))) // may be late
				holds.Written(h, w)
				if w > perfect[h].version {
					perfect[h] = hold{0, perfect[h].version}
				}
			default:
				begun := time.Duration(rnd.IntN(1100))
				got, want := holds.Bars(h, begun), begun < perfect[h].until
				if want && !got {
					t.Fatalf("seed %d: %#x is not held at %d, want until %d", seed, uint64(h), begun, perfect[h].until)
				}
				if got && !want {
					alone++
				}
			}
		}
		for _, h := range hashes {
			if holds.Bars(h, longest) {
				t.Errorf("seed %d: held for longer than anything", seed)
			}
		}
		if len(hashes) == 1 && alone > 0 {
			t.Errorf("seed %d: held %d times without a reason", seed, alone)
		}
	}
}

// TestWriteBesideDeletion: the order of a write and a deletion is unknown until the
// deletion has its version.
func TestWriteBesideDeletion(t *testing.T) {
	h := NewBarriers(1)
	h.Begin(7, 100)
	h.Written(7, 5) // was stored before the deletion, or after
	h.Deleted(7, 6)
	if !h.Bars(7, 99) {
		t.Error("a write from before a deletion ends its hold")
	}
	h.Written(7, 5)
	if !h.Bars(7, 99) {
		t.Error("a write from before a deletion, told after it, ends its hold")
	}
	h.Written(7, 7)
	if h.Bars(7, 0) {
		t.Error("a write after the deletion does not end its hold")
	}
	h.Begin(7, 200)
	h.Begin(7, 150)
	h.Deleted(7, 8)
	h.Written(7, 10)
	h.Deleted(7, 9)
	if !h.Bars(7, 199) {
		t.Error("a write ends a hold while a deletion is under way")
	}
	if h.Bars(7, 200) {
		t.Error("held beyond its end")
	}
}

// TestPushedOut: if another key takes a slot, the barrier of the old key stays, for
// all keys of the slot but the new one.
func TestPushedOut(t *testing.T) {
	h := NewBarriers(1)
	h.Raise(1, 100)
	h.Raise(2, 50)
	if !h.Bars(1, 99) || !h.Bars(3, 99) {
		t.Error("a hold is forgotten with its slot")
	}
	h.Written(1, 9) // not in the slot: nothing to end
	if !h.Bars(1, 99) {
		t.Error("a write ends the hold of other keys")
	}
	h.Written(2, 9)
	if h.Bars(2, 0) {
		t.Error("a write does not end its key's hold")
	}
	h.Raise(1, 60) // back again: with what it had
	if !h.Bars(1, 99) {
		t.Error("a shorter hold, after it was pushed out, replaces the longer one")
	}
}
