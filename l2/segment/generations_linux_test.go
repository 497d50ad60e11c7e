package segment

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// keptStore returns a store that has taken the entries of another one over. Its ownerships have begun, and
// nothing is adopted.
func keptStore(t *testing.T, s *Store) (next *Store) {
	t.Helper()
	cfg := s.cfg
	cfg.Keep = &Keep{File: saved(t, s, ""), Accept: func([]byte) error { return nil }}
	next, err := New(cfg)
	if err != nil || next.Taken().Why != nil {
		t.Fatal(err, next.Taken())
	}
	next.Own()
	next.SetLimits(0, 0, Limits{Grace: time.Hour, Stale: time.Hour})
	for p := range uint16(kv.Partitions) {
		next.NewOwnership(p)
	}
	return next
}

// TestKeptUntilAdopted changes keys of entries that are kept: after Adopt a key has what it was given since, and
// else what was kept, whatever the change was.
func TestKeptUntilAdopted(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	s, err := New(Config{Size: 64 << 20, Versions: kv.NewHLC(1), Keep: &Keep{}})
	testenv.Must(t, err)
	s.SetNamespace(0, testSeed, 0, Limits{Grace: time.Hour, Stale: time.Hour})
	want := map[string]string{}
	always := func() bool { return true }
	for round := range 5 {
		for i := range 400 {
			name := fmt.Sprint("k", i)
			want[name] = string(bytes.Repeat([]byte(fmt.Sprint(round, name, " ")), 1+rnd.IntN(20)))
			if i%40 == 0 { // a chain
				want[name] += string(make([]byte, 1_200_000))
			}
			mustPut(t, s, name, Write{Value: []byte(want[name])})
		}
		s = keptStore(t, s)
		kept := maps.Clone(want)
		for n := range 2000 {
			name := fmt.Sprint("k", rnd.IntN(500))
			k := testKey(name)
			if _, _, there := s.Get(nil, k, NoLimit, testNow.Boot); there && kept[name] != "" && want[name] == kept[name] {
				t.Fatalf("round %d: %s is there before it is adopted", round, name)
			}
			value := fmt.Sprint("new", round, n)
			switch op := rnd.IntN(40); op {
			case 0:
				mustPut(t, s, name, Write{Value: []byte(value)})
				want[name] = value
			case 1:
				s.Delete(k, testNow)
				want[name] = ""
			case 2:
				s.Soften(k, testNow)
				want[name] = ""
			case 3:
				f := Fill{Value: []byte(value), Facts: kv.Facts{Version: s.cfg.Versions.Next(testNow.Wall)}, Generation: s.Generation(k.Hash.Partition()), Admit: always}
				if _, r := s.Fill(k, f, testNow); r != Stored {
					t.Fatal(r)
				}
				want[name] = value
			case 4:
				f := Fill{Facts: kv.Facts{Kind: kv.Absent, Version: s.cfg.Versions.Next(testNow.Wall)}, Generation: s.Generation(k.Hash.Partition()), Admit: always}
				if _, r := s.Fill(k, f, testNow); r != Stored {
					t.Fatal(r)
				}
				want[name] = ""
			case 5:
				s.Invalidate(k.Hash, testNow)
				want[name] = ""
			case 6:
				s.DropChanged(k.Hash)
				if want[name] == kept[name] {
					want[name] = ""
				}
			case 7:
				if _, _, r := s.Look(nil, k, Query{End: true}, testNow); r != NotOwner {
					want[name] = ""
				}
			case 8:
				if kept[name] == want[name] { // nothing is there to touch, replace or compare with
					if _, _, r := s.Touch(k, 0, 0, testNow); r != Absent {
						t.Fatal(r)
					}
					if _, r := s.Put(k, Write{Mode: Replace}, testNow); r != Absent {
						t.Fatal(r)
					}
					if _, _, stale := s.GetStale(nil, k, testNow.Boot); stale {
						t.Fatalf("%s is there as a stale value", name)
					}
				}
			case 9:
				s.Sweep(context.Background())
			case 10:
				s.Reclaim(testNow.Boot)
			case 11:
				for hits := range MaxHits + 1 {
					s.Scan(func(uint16) bool { return true }, hits, testNow.Boot, func(e kv.Entry) bool {
						if name := string(e.Key.Bytes); want[name] == kept[name] {
							t.Errorf("the scan has %s", name)
						}
						return true
					})
				}
			}
		}
		for p := range uint16(kv.Partitions) {
			if !s.Adopt(p, s.Generation(p)) || s.Adopt(p, s.Generation(p)) {
				t.Fatal("the entries are not adopted, or twice")
			}
		}
		for i := range 500 {
			name := fmt.Sprint("k", i)
			if b, _, _ := s.Get(nil, testKey(name), NoLimit, testNow.Boot); string(b) != want[name] {
				t.Errorf("round %d: %s is %.30q, want %.30q", round, name, b, want[name])
			}
		}
		if err := s.check(); err != nil || t.Failed() {
			t.Fatal(err)
		}
	}
	_ = s.Close()
}

// TestKeptOnceOnly checks that entries that were kept go with the second ownership, with an ownership that is
// dropped, and if they are given up; and that they are not those of another ownership.
func TestKeptOnceOnly(t *testing.T) {
	k := testKey("k")
	p := k.Hash.Partition()
	for _, tc := range []struct {
		name string
		do   func(s *Store)
		want bool
	}{
		{"adopted", func(s *Store) { s.Adopt(p, s.Generation(p)) }, true},
		{"of another ownership", func(s *Store) { s.Adopt(p, s.Generation(p)-1) }, false},
		{"a second ownership", func(s *Store) { s.Adopt(p, s.NewOwnership(p)) }, false},
		{"adopted, and a second ownership", func(s *Store) { s.Adopt(p, s.Generation(p)); s.NewOwnership(p) }, false},
		{"adopted and dropped", func(s *Store) { s.Adopt(p, s.Generation(p)); s.Drop(p, s.Generation(p)) }, false},
		{"dropped", func(s *Store) { s.Drop(p, s.Generation(p)); s.Adopt(p, s.Generation(p)) }, false},
		{"given up", func(s *Store) { s.DropKept(p); s.Adopt(p, s.Generation(p)) }, false},
		{"flushed", func(s *Store) {
			s.Flush(0, s.cfg.Versions.Next(testNow.Wall))
			if s.Sweep(context.Background()); s.Stats().Entries > 0 {
				t.Error("the sweep leaves what is flushed, since it is kept")
			}
			s.Adopt(p, s.Generation(p))
		}, false},
		{"after many restarts", func(s *Store) {
			s.generations[p].Store(uint32(s.Generation(p)))
			s.kept[p].Store(maxReach | begun)
			s.Adopt(p, s.Generation(p))
		}, true},
	} {
		s, err := New(Config{Size: MinSize, Versions: kv.NewHLC(1), Keep: &Keep{}})
		testenv.Must(t, err)
		s.SetNamespace(0, testSeed, 0, Limits{})
		mustPut(t, s, "k", Write{Value: []byte("v")})
		s = keptStore(t, s)
		s.Adopt(p, s.Generation(p))
		mustPut(t, s, "k", Write{Value: []byte("w")}) // not as far back as what is kept may be
		s = keptStore(t, s)
		tc.do(s)
		if _, there := s.Peek(k, testNow.Boot); there != tc.want {
			t.Errorf("%s: there %v", tc.name, there)
		}
		s.Sweep(context.Background())
		if n := s.Stats().Entries; (n == 1) != (tc.want || tc.name == "of another ownership") {
			t.Errorf("%s: the sweep leaves %d entries", tc.name, n)
		}
		if err := s.check(); err != nil {
			t.Error(err)
		}
		_ = s.Close()
	}
}

// TestKeptReach checks that a partition whose entries reach back too far begins empty.
func TestKeptReach(t *testing.T) {
	k := testKey("k")
	p := k.Hash.Partition()
	for _, tc := range []struct {
		reach uint32
		want  bool
	}{{maxReach - 2, true}, {maxReach - 1, false}} {
		s, err := New(Config{Size: MinSize, Versions: kv.NewHLC(1), Keep: &Keep{}})
		testenv.Must(t, err)
		s.SetNamespace(0, testSeed, 0, Limits{})
		mustPut(t, s, "k", Write{Value: []byte("v")})
		s.generations[p].Store(uint32(s.Generation(p)) | tc.reach<<16)
		s = keptStore(t, s)
		s.Adopt(p, s.Generation(p))
		if _, there := s.Peek(k, testNow.Boot); there != tc.want {
			t.Errorf("reach %d: there %v", tc.reach, there)
		}
		_ = s.Close()
	}
}

// TestAnnouncedFills checks that a fill of a partition whose former owner keeps its entries is a change.
func TestAnnouncedFills(t *testing.T) {
	changes := 0
	s := newTestStore(t, Config{Size: MinSize, Changed: func(kv.Key, kv.Version) { changes++ }})
	k := testKey("k")
	set, other := kv.NewPartitionSet(kv.Partitions), kv.NewPartitionSet(kv.Partitions)
	set.Add(k.Hash.Partition())
	other.Add(k.Hash.Partition() ^ 1)
	now := testNow
	for _, tc := range []struct {
		name  string
		do    func()
		after time.Duration
		want  int
	}{
		{"before", func() {}, 0, 0},
		{"of another partition", func() { s.AnnounceFills(other, now.Boot, now.Boot+time.Second) }, 0, 0},
		{"announced", func() { s.AnnounceFills(set, now.Boot, now.Boot+time.Second) }, 0, 1},
		{"with another one since", func() { s.AnnounceFills(other, now.Boot, now.Boot+time.Minute) }, 2 * time.Second, 1},
		{"with a shorter one since", func() { s.AnnounceFills(other, now.Boot, now.Boot+time.Second) }, 2 * time.Second, 1},
		{"too late", func() {}, 2 * time.Minute, 0},
		{"forgotten", func() { s.AnnounceFills(other, now.Boot, now.Boot+time.Minute) }, 0, 0},
	} {
		tc.do()
		now.Boot += tc.after
		changes = 0
		for _, kind := range []kv.Kind{kv.Present, kv.Absent} {
			f := Fill{
				Value: []byte("v"), Facts: kv.Facts{Version: s.cfg.Versions.Next(now.Wall), Kind: kind},
				Admit:      func() bool { return true },
				Generation: s.Generation(k.Hash.Partition()),
			}
			if _, r := s.Fill(k, f, now); r != Stored {
				t.Fatal(r)
			}
		}
		if changes != 2*tc.want {
			t.Errorf("%s: %d changes, want %d", tc.name, changes, 2*tc.want)
		}
		s.Delete(k, now)
		changes = 0
		e := kv.Entry{Key: k, Value: []byte("v"), Facts: kv.Facts{Version: s.cfg.Versions.Next(now.Wall)}}
		if r := s.Restore(e, s.Generation(k.Hash.Partition()), 0, func() bool { return true }, now); r != Stored || changes != 0 {
			t.Errorf("%s: an entry from another host: %v, %d changes", tc.name, r, changes)
		}
	}
}
