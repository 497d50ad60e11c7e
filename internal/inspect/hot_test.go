package inspect

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func key(name string) kv.Key {
	return kv.Key{Hash: kv.HashKey(1, []byte(name)), Bytes: []byte(name)}
}

func all(string) bool { return true }

// TestZipf reads keys by a Zipf law and compares with exact counts: the ten most read keys
// are found, and every count is within the bound of the package comment.
func TestZipf(t *testing.T) {
	const keys, samples = 100_000, 1_000_000
	rng := rand.New(rand.NewPCG(1, 2))
	z := rand.NewZipf(rng, 1.2, 1, keys-1)
	names := make([]kv.Key, keys)
	for i := range names {
		names[i] = key(fmt.Sprint("key:", i))
	}
	exact := make([]uint64, keys)
	s := NewSketch(0)
	for i := range samples {
		k := z.Uint64()
		exact[k]++
		s.Note("ns", names[k], time.Duration(i)*50*time.Second/samples)
	}
	top := s.Top(10, 50*time.Second, all)
	if top.Reads != samples*SampleRate {
		t.Errorf("%d reads, want %d", top.Reads, samples*SampleRate)
	}
	if len(top.Keys) != 10 {
		t.Fatalf("%d keys", len(top.Keys))
	}
	found := map[string]bool{}
	for _, k := range top.Keys {
		found[string(k.Key)] = true
		var n int
		if _, err := fmt.Sscanf(string(k.Key), "key:%d", &n); err != nil {
			t.Fatal(err)
		}
		if got := k.Reads / SampleRate; got > exact[n] || got+samples/slots < exact[n] {
			t.Errorf("%s: %d samples, %d were noted", k.Key, got, exact[n])
		}
	}
	for n := range 10 { // the law makes them the first ten, with distances of several errors
		if !found[fmt.Sprint("key:", n)] {
			t.Errorf("key:%d, read %d times, is missing in %v", n, exact[n], found)
		}
	}
	if !slices.IsSortedFunc(top.Keys, func(a, b HotKey) int { return int(b.Reads) - int(a.Reads) }) {
		t.Error("the keys are not in the order of their reads")
	}
}

// TestNoFalseHeat checks that a crowd of keys that were read once each does not get counts
// of others' reads.
func TestNoFalseHeat(t *testing.T) {
	s := NewSketch(0)
	for i := range 100_000 {
		s.Note("ns", key(fmt.Sprint(i)), time.Second)
	}
	if top := s.Top(1, time.Second, all); top.Keys[0].Reads != SampleRate {
		t.Errorf("a key that was seen once has %d reads, want %d", top.Keys[0].Reads, SampleRate)
	}
}

// TestWindow checks that reads leave after a minute, part by part, and what the window is.
func TestWindow(t *testing.T) {
	start := 1000 * time.Hour
	s := NewSketch(start)
	for _, tc := range []struct {
		at           time.Duration // since the start
		reads        uint64
		window       time.Duration
		old, present uint64
	}{
		{0, 1, 0, 1, 1},
		{25 * time.Second, 2, 25 * time.Second, 1, 1},
		{59 * time.Second, 3, 59 * time.Second, 1, 1},
		{65 * time.Second, 3, 55 * time.Second, 0, 1}, // the first has left
		{10 * time.Minute, 1, 50 * time.Second, 0, 1}, // all others have left
	} {
		now := start + tc.at
		s.Note("ns", key(fmt.Sprint(tc.at)), now)
		top := s.Top(100, now, all)
		if top.Reads != tc.reads*SampleRate || top.Window != tc.window || len(top.Keys) != int(tc.reads) {
			t.Errorf("after %v: %d reads in %v of %d keys, want %d in %v", tc.at, top.Reads, top.Window, len(top.Keys), tc.reads*SampleRate, tc.window)
		}
		count := func(name string) (n uint64) {
			for _, k := range top.Keys {
				if string(k.Key) == name {
					n += k.Reads
				}
			}
			return n
		}
		if count("0s") != tc.old*SampleRate || count(fmt.Sprint(tc.at)) != tc.present*SampleRate {
			t.Errorf("after %v: %v", tc.at, top.Keys)
		}
	}
}

// TestNamespaces checks that a caller gets keys of its namespaces only.
func TestNamespaces(t *testing.T) {
	s := NewSketch(0)
	s.Note("mine", key("a"), 0)
	s.Note("theirs", key("b"), 0)
	top := s.Top(10, time.Second, func(ns string) bool { return ns == "mine" })
	if len(top.Keys) != 1 || string(top.Keys[0].Key) != "a" || top.Keys[0].Namespace != "mine" || top.Reads != 2*SampleRate {
		t.Errorf("%+v", top)
	}
}

// TestBound fills a sketch with the longest keys and checks its memory against the
// package comment, and that a sample allocates nothing once the sketch is full.
func TestBound(t *testing.T) {
	s := NewSketch(0)
	for i := range windowParts * 2000 {
		k := key(fmt.Sprint(strings.Repeat("k", kv.MaxKeyLen-8), 10_000_000+i))
		s.Note("ns", k, time.Duration(i/2000)*width)
	}
	bytes := 0
	for i := range s.parts {
		p := &s.parts[i]
		if len(p.heap) != slots || len(p.at) != slots {
			t.Errorf("part %d has %d counters and %d places", i, len(p.heap), len(p.at))
		}
		for j := range p.heap {
			bytes += cap(p.heap[j].key) + 64 + 32 // the counter, and its place
		}
	}
	if bytes > 3_600<<10 {
		t.Errorf("%d KiB", bytes>>10)
	}
	long := key(strings.Repeat("x", kv.MaxKeyLen))
	testenv.Allocates(t, "a sample", 0, 1000, func() { long.Hash++; s.Note("ns", long, windowParts*width) })
}

// TestSampler checks the mean gap, also for samplers that live for one read only.
func TestSampler(t *testing.T) {
	const reads = 1 << 21
	taken, fresh := 0, 0
	var s Sampler
	for range reads {
		var one Sampler
		if s.Take() {
			taken++
		}
		if one.Take() {
			fresh++
		}
	}
	for name, n := range map[string]int{"one sampler": taken, "a new sampler for each read": fresh} {
		if off := math.Abs(float64(n)*SampleRate/reads - 1); off > 0.06 { // 5 standard errors
			t.Errorf("%s takes %d of %d reads", name, n, reads)
		}
	}
}
