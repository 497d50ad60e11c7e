package keyfilter

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func hashOf(kind string, i int) kv.Hash { return kv.HashKey(9, nameOf(kind, i)) }

func TestBloomRate(t *testing.T) {
	testenv.Takes(t, time.Second)
	for _, tc := range []struct {
		keys, asked int
		rate        float64
	}{{100000, 1000000, 0.01}, {20000, 1000000, 0.001}, {1, 100000, 0.01}, {1000, 100000, 0.2}} {
		words, err := bloomWords(tc.keys, tc.rate)
		testenv.Must(t, err)
		b := newBloom(words, tc.rate)
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

// newFilter returns a filter whose clock is now. Its seed is that of hashOf.
func newFilter(t *testing.T, of Settings, list loader.Lister, ready func(context.Context) error, now func() time.Duration) *Filter {
	t.Helper()
	k, err := New(of, list, 9, nil, ready)
	testenv.Must(t, err)
	k.now = now
	return k
}

// list lists keys as a function says.
type list func(each func(key []byte) error) error

func (l list) Keys(_ context.Context, each func(key []byte) error) error { return l(each) }

func nameOf(kind string, i int) []byte { return fmt.Appendf(nil, "%s-%d", kind, i) }

// lists calls each for the keys kind-0 to kind-n, and during after that.
func lists(kind string, n int, during func()) list {
	return func(each func(key []byte) error) error {
		for i := range n {
			if err := each(nameOf(kind, i)); err != nil {
				return err
			}
		}
		if during != nil {
			during()
		}
		return nil
	}
}

var errList = errors.New("the list fails")

func TestFilter(t *testing.T) {
	absent, there := hashOf("absent", 1), hashOf("there", 1)
	const keys = 100
	for _, tc := range []struct {
		name string
		do   func(k *Filter, build func(n int, during func()) error) error
		now  time.Duration
		pass bool // whether the absent key passes
	}{
		{"no filter", func(*Filter, func(int, func()) error) error { return nil }, 0, true},
		{"a filter", func(_ *Filter, build func(int, func()) error) error { return build(keys, nil) }, 0, false},
		{"as old as may be", func(_ *Filter, build func(int, func()) error) error { return build(keys, nil) }, time.Hour, false},
		{"too old", func(_ *Filter, build func(int, func()) error) error { return build(keys, nil) }, time.Hour + 1, true},
		{"announced", func(k *Filter, build func(int, func()) error) error {
			err := build(keys, nil)
			k.Add(absent)
			return err
		}, 0, true},
		{"announced before", func(k *Filter, build func(int, func()) error) error { k.Add(absent); return build(keys, nil) }, 0, false},
		{"announced while it was built", func(k *Filter, build func(int, func()) error) error {
			return build(keys, func() { k.Add(absent) })
		}, 0, true},
		{"announced to the old one while the next fails", func(k *Filter, build func(int, func()) error) error {
			err := build(keys, nil)
			k.list = list(func(func([]byte) error) error { k.Add(absent); return errList })
			if _, failed := k.build(context.Background()); !errors.Is(failed, errList) {
				return errors.Join(failed, errors.New("a list that fails was taken"))
			}
			return err
		}, 0, true},
		{"distrusted", func(k *Filter, build func(int, func()) error) error {
			err := build(keys, nil)
			k.distrust(absent.Partition())
			return err
		}, 0, true},
		{"distrusted elsewhere", func(k *Filter, build func(int, func()) error) error {
			err := build(keys, nil)
			k.distrust(absent.Partition() + 1)
			return err
		}, 0, false},
		{"distrusted before", func(k *Filter, build func(int, func()) error) error {
			k.distrust(absent.Partition())
			return build(keys, nil)
		}, 0, false},
		{"distrusted while it was built", func(k *Filter, build func(int, func()) error) error {
			return build(keys, func() { k.distrust(absent.Partition()) })
		}, 0, true},
		{"more keys than stated", func(k *Filter, build func(int, func()) error) error {
			if build(1100, nil) == nil {
				return errors.New("was taken")
			}
			return nil
		}, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			now := time.Duration(0)
			k := newFilter(t, Settings{Keys: 1000, FalsePositives: 1e-6}, nil, atOnce, func() time.Duration { return now })
			err := tc.do(k, func(n int, during func()) error {
				k.list = lists("there", n, during)
				_, err := k.build(t.Context())
				return err
			})
			testenv.Must(t, err)
			if now = tc.now; k.MayExist(absent) != tc.pass {
				t.Errorf("the absent key passes: want %v", tc.pass)
			}
			k.Add(there)
			if !k.MayExist(there) {
				t.Error("a key that was announced is denied")
			}
			if k.building.Load() != nil {
				t.Error("a build was left")
			}
		})
	}
}

// The age of a filter is that of its query.
func TestFilterAge(t *testing.T) {
	now := time.Duration(0)
	k := newFilter(t, Settings{Keys: 1000}, nil, atOnce, func() time.Duration { return now })
	k.list = lists("there", 1, func() { now = time.Hour })
	if _, err := k.build(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k.MayExist(hashOf("absent", 1)) {
		t.Error("one hour after its query began the absent key passes")
	}
	if now++; !k.MayExist(hashOf("absent", 1)) {
		t.Error("after that it is denied")
	}
}

// No key is denied while filters rotate. Each key is committed before it is announced,
// and a query sees what was committed before it began.
func TestFilterRotation(t *testing.T) {
	const keys = 20000
	k := newFilter(t, Settings{Keys: keys, FalsePositives: 1e-4}, nil, atOnce, func() time.Duration { return 0 })
	var committed atomic.Int64
	query := func() {
		k.list = list(func(each func([]byte) error) error {
			return lists("new", int(committed.Load()), runtime.Gosched)(each)
		})
		if _, err := k.build(t.Context()); err != nil {
			t.Error(err)
		}
	}
	query()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range keys {
			committed.Add(1)
			k.Add(hashOf("new", i))
			if !k.MayExist(hashOf("new", i)) {
				t.Errorf("key %d is denied", i)
			}
			if i%100 == 0 {
				runtime.Gosched()
			}
		}
	})
	for committed.Load() < keys || k.Stats().Builds < 3 {
		query()
	}
	wg.Wait()
	for i := range keys {
		if !k.MayExist(hashOf("new", i)) {
			t.Fatalf("key %d is denied at the end", i)
		}
	}
	if s := k.Stats(); s.Builds < 3 || s.Blind != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestFilterSettings(t *testing.T) {
	for _, of := range []Settings{{}, {Keys: -1}, {Keys: 1, FalsePositives: 1}, {Keys: 1, FalsePositives: -0.1}, {Keys: 1, MaxAge: -1}, {Keys: 1 << 40}} {
		if _, err := of.Size(); err == nil {
			t.Errorf("%+v was taken", of)
		}
	}
	if size, err := (&Settings{Keys: 1000}).Size(); err != nil || size < 1000 || size > 2000 {
		t.Errorf("1,000 keys at 1 %% take %d bytes, %v", size, err)
	}
	k := newFilter(t, Settings{Keys: 1, MaxAge: 40 * time.Second}, nil, atOnce, nil)
	if k.gap() != 5*time.Second {
		t.Errorf("a filter that may be 40s old: a gap of %v", k.gap())
	}
}

// TestListed checks that a list ends that gives the keys again and again.
func TestListed(t *testing.T) {
	of, n := Settings{Keys: 100}, 0
	k := newFilter(t, of, list(func(each func([]byte) error) (err error) {
		for l := of.Listed().Begin(t.Context(), each); err == nil && n < 10_000; n++ {
			err = l.Key(nameOf("there", n%100))
		}
		return err
	}), func(context.Context) error { return nil }, func() time.Duration { return 0 })
	if _, err := k.build(t.Context()); !errors.Is(err, loader.ErrPermanent) || n != 2*of.Keys+1001 {
		t.Errorf("%v after %d keys", err, n)
	}
}
