package namespaces

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func hashOf(kind string, i int) kv.Hash { return kv.HashKey(9, fmt.Appendf(nil, "%s-%d", kind, i)) }

func TestBloomRate(t *testing.T) {
	testenv.Takes(t, time.Second)
	for _, tc := range []struct {
		keys, asked int
		rate        float64
	}{{100000, 1000000, 0.01}, {20000, 1000000, 0.001}, {1, 100000, 0.01}, {1000, 100000, 0.2}} {
		b, err := newBloom(tc.keys, tc.rate)
		if err != nil {
			t.Fatal(err)
		}
		for i := range tc.keys {
			b.add(hashOf("there", i))
		}
		for i := range tc.keys {
			if !b.has(hashOf("there", i)) {
				t.Fatalf("key %d of %d is denied", i, tc.keys)
			}
		}
		passed := 0
		for i := range tc.asked {
			if b.has(hashOf("absent", i)) {
				passed++
			}
		}
		// Allow for the variance of the sample.
		most := tc.rate + 4*math.Sqrt(tc.rate/float64(tc.asked))
		if got := float64(passed) / float64(tc.asked); got > most {
			t.Errorf("%d keys: %.5f pass, stated %.5f", tc.keys, got, tc.rate)
		}
	}
}

func newFilter(t *testing.T, cfg FilterConfig) *Filter {
	t.Helper()
	k, err := NewFilter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// built builds a filter with the keys there-0 to there-n.
func built(t *testing.T, k *Filter, n int, now time.Duration) {
	t.Helper()
	b, ok := k.begin(now)
	if !ok {
		t.Fatal("another build is under way")
	}
	for i := range n {
		b.add(hashOf("there", i))
	}
	if err := b.commit(); err != nil {
		t.Fatal(err)
	}
}

func TestFilter(t *testing.T) {
	absent, there := hashOf("absent", 1), hashOf("there", 1)
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, k *Filter)
		now  time.Duration
		pass bool // whether the absent key passes
	}{
		{"no filter", func(*testing.T, *Filter) {}, 0, true},
		{"a filter", func(t *testing.T, k *Filter) { built(t, k, 100, 0) }, 0, false},
		{"as old as may be", func(t *testing.T, k *Filter) { built(t, k, 100, 0) }, time.Hour, false},
		{"too old", func(t *testing.T, k *Filter) { built(t, k, 100, 0) }, time.Hour + 1, true},
		{"announced", func(t *testing.T, k *Filter) { built(t, k, 100, 0); k.add(absent) }, 0, true},
		{"announced before", func(t *testing.T, k *Filter) { k.add(absent); built(t, k, 100, 0) }, 0, false},
		{"announced while it was built", func(t *testing.T, k *Filter) {
			b, _ := k.begin(0)
			k.add(absent)
			if err := b.commit(); err != nil {
				t.Error(err)
			}
		}, 0, true},
		{"announced to the old one while the next fails", func(t *testing.T, k *Filter) {
			built(t, k, 100, 0)
			b, _ := k.begin(0)
			k.add(absent)
			b.cancel()
		}, 0, true},
		{"its age is the query's", func(t *testing.T, k *Filter) {
			b, _ := k.begin(-time.Hour)
			if err := b.commit(); err != nil {
				t.Error(err)
			}
		}, 1, true},
		{"distrusted", func(t *testing.T, k *Filter) { built(t, k, 100, 0); k.distrust(absent.Partition()) }, 0, true},
		{"distrusted elsewhere", func(t *testing.T, k *Filter) { built(t, k, 100, 0); k.distrust(absent.Partition() + 1) }, 0, false},
		{"distrusted before", func(t *testing.T, k *Filter) { k.distrust(absent.Partition()); built(t, k, 100, 0) }, 0, false},
		{"distrusted while it was built", func(t *testing.T, k *Filter) {
			b, _ := k.begin(0)
			k.distrust(absent.Partition())
			if err := b.commit(); err != nil {
				t.Error(err)
			}
		}, 0, true},
		{"more keys than stated", func(t *testing.T, k *Filter) {
			b, _ := k.begin(0)
			for i := range 1100 {
				b.add(hashOf("there", i))
			}
			if b.commit() == nil || k.stats(0).Refused != 1 {
				t.Error("was taken")
			}
		}, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newFilter(t, FilterConfig{Keys: 1000, FalsePositives: 1e-6})
			tc.do(t, k)
			if got := k.mayExist(absent, tc.now); got != tc.pass {
				t.Errorf("the absent key passes: %v, want %v", got, tc.pass)
			}
			k.add(there)
			if !k.mayExist(there, tc.now) {
				t.Error("a key that was announced is denied")
			}
			if b, ok := k.begin(0); !ok {
				t.Error("a build was left")
			} else if _, ok := k.begin(0); ok {
				t.Error("two builds at once")
			} else if b.cancel(); b.commit() == nil {
				t.Error("a cancelled build was taken")
			}
		})
	}
}

// No key is denied while filters rotate. Each key is committed before it is announced,
// and a query sees what was committed before it began.
func TestFilterRotation(t *testing.T) {
	const keys = 20000
	k := newFilter(t, FilterConfig{Keys: keys, FalsePositives: 1e-4})
	var committed atomic.Int64
	query := func() {
		b, _ := k.begin(0)
		for i := range int(committed.Load()) {
			b.add(hashOf("new", i))
		}
		runtime.Gosched()
		if err := b.commit(); err != nil {
			t.Error(err)
		}
	}
	query()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range keys {
			committed.Add(1)
			k.add(hashOf("new", i))
			if !k.mayExist(hashOf("new", i), 0) {
				t.Errorf("key %d is denied", i)
			}
			if i%100 == 0 {
				runtime.Gosched()
			}
		}
	})
	for committed.Load() < keys || k.stats(0).Builds < 3 {
		query()
	}
	wg.Wait()
	for i := range keys {
		if !k.mayExist(hashOf("new", i), 0) {
			t.Fatalf("key %d is denied at the end", i)
		}
	}
	if s := k.stats(0); s.Builds < 3 || s.Blind != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestFilterConfig(t *testing.T) {
	for _, cfg := range []FilterConfig{{}, {Keys: -1}, {Keys: 1, FalsePositives: 1}, {Keys: 1, FalsePositives: -0.1}, {Keys: 1, MaxAge: -1}, {Keys: 1 << 40}} {
		if _, err := NewFilter(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
