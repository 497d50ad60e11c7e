package segment

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestHiddenAgainstModel makes random operations while entries of an earlier process are hidden, and compares what
// is there once they are adopted or dropped. A key has one of: a value that must not come back, the value that a
// later operation left, or the value from before, which may have been evicted.
func TestHiddenAgainstModel(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	seeds := uint64(2)
	if thorough() {
		seeds = 4
	}
	for seed := range seeds {
		hiddenModel(t, rand.New(rand.NewPCG(seed, 1)), seed)
	}
}

type hiddenKey struct {
	kv.Key
	value string // "": absent
	may   bool   // or absent
	soft  bool
}

func hiddenModel(t *testing.T, rnd *rand.Rand, seed uint64) {
	t.Helper()
	now := testNow
	accept := func([]byte) error { return nil }
	cfg := Config{Size: MinSize, Versions: kv.NewHLC(1), Keep: &Keep{Accept: accept}}
	s, err := New(cfg)
	testenv.Must(t, err)
	limits := Limits{Grace: time.Minute, Stale: time.Minute}
	s.SetNamespace(0, testSeed, 0, limits)
	s.SetNamespace(1, testSeed+1, 1<<20, limits)
	var keys []*hiddenKey
	for i := range 600 {
		k := kv.Key{Namespace: kv.NamespaceID(i % 2), Bytes: fmt.Appendf(nil, "key%d", i)}
		k.Hash = s.hash(k.Namespace, k.Bytes)
		keys = append(keys, &hiddenKey{Key: k})
	}
	near := rnd.IntN(2) == 0 // generations wrap around
	if near {
		for _, k := range keys {
			for range rnd.IntN(40) + 65500 {
				s.NewOwnership(k.Hash.Partition())
			}
		}
	}
	number := 0
	value := func() []byte {
		number++
		size := rnd.IntN(200)
		if rnd.IntN(60) == 0 {
			size = 300_000 // a chain
		}
		return append(fmt.Appendf(nil, "%d ", number), bytes.Repeat([]byte("x"), size)...)
	}
	put := func(k *hiddenKey) {
		v := value()
		if _, r := s.Put(k.Key, Write{Value: v}, now); r == Stored {
			k.value, k.may, k.soft = string(v), true, false
		}
	}
	for round := range 12 {
		for range 800 {
			switch k := keys[rnd.IntN(len(keys))]; rnd.IntN(12) {
			case 0:
				s.Delete(k.Key, now)
				k.value = ""
			case 1:
				s.Soften(k.Key, now)
				k.value = ""
			case 2:
				s.Read(nil, k.Key, NoLimit, true, now.Boot)
			default:
				put(k)
			}
		}
		f := saved(t, s, "")
		cfg.Keep = &Keep{File: f, Accept: accept}
		if s, err = New(cfg); err != nil || s.Taken().Why != nil {
			t.Fatal(err, s.Taken().Why)
		}
		s.Own()
		s.SetLimits(0, 0, limits)
		s.SetLimits(1, 1<<20, limits)
		for _, k := range keys {
			if k.soft = false; k.value != "" {
				k.may = true
			}
		}
		generation := map[uint16]uint16{}
		kept := map[uint16]bool{} // may yet be adopted
		for _, k := range keys {
			p := k.Hash.Partition()
			if _, begun := generation[p]; !begun {
				if rnd.IntN(4) == 0 {
					s.Sweep(context.Background())
				}
				if rnd.IntN(10) == 0 { // not known to the next owner
					s.DropKept(p)
				} else {
					kept[p] = true
				}
				generation[p] = s.NewOwnership(p)
				if rnd.IntN(10) == 0 {
					generation[p], kept[p] = s.NewOwnership(p), false
				}
			}
		}
		changed := map[kv.Hash]bool{}
		for range 1500 {
			k := keys[rnd.IntN(len(keys))]
			hiddenOp(t, rnd, s, k, generation[k.Hash.Partition()], now, put, changed)
		}
		if rnd.IntN(3) == 0 {
			s.Sweep(context.Background())
		}
		if rnd.IntN(6) == 0 {
			ns := kv.NamespaceID(rnd.IntN(2))
			s.Clear(ns, now)
			for _, k := range keys {
				if k.Namespace == ns {
					k.value = ""
				}
			}
		}
		for _, k := range keys { // the delta
			if rnd.IntN(8) == 0 && !changed[k.Hash] {
				changed[k.Hash] = true
				s.DropChanged(k.Hash)
				k.value = ""
			}
		}
		for p, g := range generation {
			switch ok := rnd.IntN(6) > 0 && s.Adopt(p, g); {
			case ok && !kept[p]:
				t.Fatalf("seed %d round %d: partition %d is adopted", seed, round, p)
			case !ok:
				s.DropKept(p)
				for _, k := range keys {
					if k.Hash.Partition() == p && !changed[k.Hash] {
						k.value = ""
					}
				}
			}
		}
		if rnd.IntN(3) > 0 {
			s.Sweep(context.Background())
		}
		there := 0
		for _, k := range keys {
			got, _, ok := s.Get(nil, k.Key, NoLimit, now.Boot)
			if ok && string(got) != k.value || !ok && k.value != "" && !k.may {
				t.Fatalf("seed %d round %d: %s is %.20q (%v), want %.20q (may %v)",
					seed, round, k.Bytes, got, ok, k.value, k.may)
			}
			if ok {
				there++
			} else {
				k.value = ""
			}
			if changed[k.Hash] || ok || k.soft {
				continue
			}
			if _, _, stale := s.GetStale(nil, k.Key, now.Boot); stale && !kept[k.Hash.Partition()] {
				t.Fatalf("seed %d round %d: %s is stale", seed, round, k.Bytes)
			}
		}
		if there < 20 {
			t.Fatalf("seed %d round %d: %d", seed, round, there)
		}
		if err := s.check(); err != nil {
			t.Fatalf("seed %d round %d: %v", seed, round, err)
		}
	}
	_ = s.Close()
}

// hiddenOp makes one operation on a key. changed has the keys whose value from before must be gone.
func hiddenOp(
	t *testing.T, rnd *rand.Rand, s *Store, k *hiddenKey, generation uint16, now kv.Moment, put func(*hiddenKey),
	changed map[kv.Hash]bool,
) {
	t.Helper()
	first := !changed[k.Hash]
	absent := func(what string, r Result) {
		if first && r != Absent {
			t.Fatalf("%s of a hidden key: %d", what, r)
		}
	}
	stores := func(v string, r Result) {
		if r == Stored {
			k.value, k.may, k.soft, changed[k.Hash] = v, true, false, true
		}
	}
	switch rnd.IntN(20) {
	case 0:
		if put(k); k.value != "" {
			changed[k.Hash] = true
		}
	case 1:
		s.Delete(k.Key, now)
		k.value, changed[k.Hash] = "", true
	case 2:
		s.Soften(k.Key, now)
		k.soft = !first || k.soft
		k.value, changed[k.Hash] = "", true
	case 3:
		_, _, r := s.Touch(k.Key, kv.After(now.Boot, time.Hour), 0, now)
		absent("a touch", r)
	case 4:
		if first {
			_, r := s.Put(k.Key, Write{Value: []byte("r"), Mode: Replace}, now)
			absent("a replace", r)
		}
	case 5:
		if first {
			_, r := s.Put(k.Key, Write{Value: []byte("a"), Mode: Add}, now)
			stores("a", r)
		}
	case 6:
		if first {
			_, _, _, r := s.Incr(k.Key, Increment{Delta: 1, Create: true, Initial: 7}, now)
			stores("7", r)
		}
	case 7:
		if first {
			_, r := s.Concat(k.Key, Write{Value: []byte("c"), Mode: Append}, true, now)
			stores("c", r)
		}
	case 8:
		if first {
			_, _, ok := s.GetStale(nil, k.Key, now.Boot)
			_, there := s.Peek(k.Key, now.Boot)
			if ok || there {
				t.Fatalf("a hidden key is there: %v %v", ok, there)
			}
		}
	case 9:
		if first {
			_, _, r := s.Look(nil, k.Key, Query{Limit: NoLimit, Touch: true, Deadline: 9}, now)
			absent("a look", r)
		}
	case 10:
		s.Look(nil, k.Key, Query{Limit: NoLimit, End: true}, now)
		k.value, k.soft, changed[k.Hash] = "", false, true
	case 11:
		s.Invalidate(k.Hash, now)
		k.value, k.soft, changed[k.Hash] = "", false, true
	case 12:
		if first {
			_, r := s.Fill(k.Key, Fill{
				Value: []byte("fill"), Facts: kv.Facts{Version: s.cfg.Versions.Next(now.Wall)}, Generation: generation,
				Admit: func() bool { return true },
			}, now)
			stores("fill", r)
		}
	case 13:
		if first {
			r := s.Restore(kv.Entry{Key: k.Key, Value: []byte("rest"), Facts: kv.Facts{Version: 1 << 20}}, generation, 2,
				func() bool { return true }, now)
			stores("rest", r)
		}
	case 14:
		if rnd.IntN(4) == 0 {
			if _, _, ok := s.Read(nil, k.Key, NoLimit, true, now.Boot); ok && first {
				t.Fatal("a hidden key is read")
			}
		}
	case 15:
		s.Touched(k.Key)
	case 16:
		if rnd.IntN(50) == 0 {
			s.Sweep(context.Background())
		}
	case 17:
		if rnd.IntN(10) == 0 {
			s.Reclaim(now.Boot)
		}
	}
}
