package invalidation

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestNeverForgetsAChange compares the table with a map, in any order, with any collisions,
// and after a handover to a table of another size. The table must know of every change that
// the map knows of. If only the table knows one, the reason is the lack of memory, and it is
// no later than the latest change.
func TestNeverForgetsAChange(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		table := NewBarriers(1 << rnd.IntN(6))
		perfect := map[kv.Hash]time.Duration{}
		hashes := make([]kv.Hash, 1+rnd.IntN(40))
		for i := range hashes {
			hashes[i] = kv.Hash(rnd.Uint64())
		}
		latest, alone := NeverChanged, 0
		for range 2000 {
			h, at := hashes[rnd.IntN(len(hashes))], time.Duration(rnd.IntN(1000)-500)
			switch op := rnd.IntN(100); {
			case op == 0:
				next := NewBarriers(1 << rnd.IntN(6))
				table.Each(func(slot int, h kv.Hash, last, floor time.Duration) {
					next.Note(h, last)
					next.NoteSlot(uint64(slot), table.Slots(), floor)
				})
				table = next
			case op < 40:
				table.Note(h, at)
				if was, ok := perfect[h]; !ok || at > was {
					perfect[h] = at
				}
				latest = max(latest, at)
			default:
				want, known := perfect[h]
				if !known {
					want = NeverChanged
				}
				switch got := table.Last(h); {
				case got < want:
					t.Fatalf("seed %d: %#x changed at %d, want %d", seed, uint64(h), got, want)
				case got > want:
					alone++
				}
			}
		}
		for _, h := range hashes {
			if table.Last(h) > latest {
				t.Errorf("seed %d: a change that is later than any", seed)
			}
		}
		if len(hashes) == 1 && alone > 0 {
			t.Errorf("seed %d: %d changes without a reason", seed, alone)
		}
	}
}

// TestPushedOut: if another key takes a slot, the change of the old key stays, for
// all keys of the slot: the new one may have been there before.
func TestPushedOut(t *testing.T) {
	b := NewBarriers(1)
	b.Note(1, 100)
	b.Note(2, 50)
	if b.Last(1) != 100 || b.Last(3) != 100 || b.Last(2) != 100 {
		t.Error("a change is forgotten with its slot")
	}
	b.Note(1, 60) // back again: with what it had
	if b.Last(1) != 100 {
		t.Error("an earlier change, after it was pushed out, replaces the later one")
	}
	b.Note(1, 200)
	if b.Last(1) != 200 || b.Last(2) != 100 {
		t.Error("a later change of the key that has the slot is not known, or counts for others")
	}
}

// TestNoteSlot: a slot of another table is all slots here that its keys may be in, and no others.
func TestNoteSlot(t *testing.T) {
	const here = 8
	for _, slots := range []int{0, 1, 2, here, 64} { // none counts as one
		b := NewBarriers(here)
		b.NoteSlot(64+13, slots, 100) // beyond the table: a slot within it
		for h := range kv.Hash(256) {
			if want, got := (h^5)&kv.Hash(min(max(slots, 1), here)-1) == 0, b.Last(h) == 100; got != want {
				t.Errorf("slot 13 of %d: %#x has changed: %v", slots, uint64(h), got)
			}
		}
	}
}
