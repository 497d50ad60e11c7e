package invalidation

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// perfect is a ledger with unlimited memory.
type perfect struct {
	keys       map[kv.Hash]kv.Version
	partitions map[uint16]kv.Version
	flushes    map[kv.NamespaceID]kv.Version
}

func (p *perfect) admit(ns kv.NamespaceID, h kv.Hash, version, asOf kv.Version) bool {
	return version >= p.flushes[ns] && asOf >= p.partitions[h.Partition()] && asOf >= p.keys[h]
}

// TestNeverAdmitsWhatIsOutdated uses any order, repetition and collision of notes. If
// the perfect ledger refuses, ours must too. If the perfect ledger admits, ours
// refuses only for lack of memory, and admits what is attested anew.
func TestNeverAdmitsWhatIsOutdated(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		slots := 1 << rnd.IntN(6)
		l := NewLedger(slots)
		p := &perfect{map[kv.Hash]kv.Version{}, map[uint16]kv.Version{}, map[kv.NamespaceID]kv.Version{}}
		hashes := make([]kv.Hash, 1+rnd.IntN(50))
		for i := range hashes {
			hashes[i] = kv.Hash(rnd.Uint64())
		}
		refused, asked := 0, 0
		top := kv.Version(1)
		for range 3000 {
			h := hashes[rnd.IntN(len(hashes))]
			ns := kv.NamespaceID(rnd.IntN(3))
			v := kv.Version(1 + rnd.IntN(1000))
			switch op := rnd.IntN(100); {
			case op < 40:
				l.Note(h, v)
				p.keys[h] = max(p.keys[h], v)
			case op < 41:
				l.RaisePartition(h.Partition(), v/8)
				p.partitions[h.Partition()] = max(p.partitions[h.Partition()], v/8)
			case op < 42:
				l.RaiseFlush(ns, v/8)
				p.flushes[ns] = max(p.flushes[ns], v/8)
			default:
				version, asOf := kv.Version(1+rnd.IntN(1100)), v
				got, want := l.Admit(ns, h, version, asOf), p.admit(ns, h, version, asOf)
				asked++
				if got && !want {
					t.Fatalf("seed %d: admits hash %#x version %d asOf %d", seed, uint64(h), version, asOf)
				}
				if want && !got {
					refused++
				}
			}
			top = max(top, v)
		}
		for _, h := range hashes {
			if !l.Admit(0, h, 2000, top+1) {
				t.Errorf("seed %d: what is attested after everything is refused", seed)
			}
		}
		if slots >= 32 && len(hashes) == 1 && refused > 0 {
			t.Errorf("seed %d: %d of %d refused without a collision", seed, refused, asked)
		}
	}
}

// TestLateNote: a note that comes late must not let in what an earlier, newer note of
// another key has put into the floor.
func TestLateNote(t *testing.T) {
	l := NewLedger(1)
	l.Note(1, 100)
	l.Note(2, 50) // late: older than what it pushes out
	if l.Admit(0, 2, 60, 60) {
		t.Error("a version below the floor is admitted because its key was noted late")
	}
	if l.Admit(0, 1, 99, 99) {
		t.Error("the key that was pushed out is admitted below its version")
	}
	if !l.Admit(0, 1, 100, 100) || !l.Admit(0, 2, 100, 100) {
		t.Error("what reaches the floor is refused")
	}
}

func TestVersionAndAsOfAreTwoThings(t *testing.T) {
	l := NewLedger(16)
	l.Note(7, 100)
	if !l.Admit(0, 7, 100, 150) {
		t.Error("an entry written long ago and attested now is refused")
	}
	l.RaisePartition(kv.Hash(7).Partition(), 200)
	if l.Admit(0, 7, 300, 150) {
		t.Error("the partition's floor compares the version, not asOf")
	}
	if !l.Admit(0, 7, 100, 200) {
		t.Error("attested after the partition's floor, and refused")
	}
	l.RaiseFlush(0, 250)
	if l.Admit(0, 7, 100, 300) {
		t.Error("the flush floor compares asOf, not the version")
	}
	if !l.Admit(1, 7, 100, 300) {
		t.Error("a flush of one namespace hides another")
	}
}

// TestConcurrentNotes runs under the race detector, and checks that slots are read as
// units.
func TestConcurrentNotes(t *testing.T) {
	l := NewLedger(2)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			last := map[kv.Hash]kv.Version{}
			for i := range 20_000 {
				h := kv.Hash(g*8 + rnd.IntN(8)) // each goroutine notes keys of its own
				v := kv.Version(i + 1)
				l.Note(h, v)
				last[h] = v
				for k, noted := range last {
					if l.Admit(0, k, noted, noted-1) {
						t.Errorf("admits %d at %d, noted at %d", k, noted-1, noted)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAdmit(b *testing.B) {
	l := NewLedger(DefaultSlots)
	for i := range DefaultSlots {
		l.Note(kv.Hash(i)*0x9e3779b97f4a7c15, kv.Version(i))
	}
	i := 0
	for b.Loop() {
		i++
		l.Admit(0, kv.Hash(i)*0x9e3779b97f4a7c15, 1, 1<<40)
	}
}
