package l1

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/race"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func newTestCache(t testing.TB, cfg Config) *Cache {
	t.Helper()
	c, err := New(cfg)
	testenv.Must(t, err)
	t.Cleanup(c.Close)
	return c
}

func key(name string) kv.Key {
	return kv.Key{Hash: kv.HashKey(1, []byte(name)), Bytes: []byte(name)}
}

func copyOf(name, value string) *Copy {
	c := &Copy{Hash: key(name).Hash, Facts: kv.Facts{Version: 7}, AsOf: 9}
	c.SetBytes([]byte(name), []byte(value))
	return c
}

func (c *Cache) wait() { c.store.Wait() }

func TestPutAndGet(t *testing.T) {
	c := newTestCache(t, Config{})
	if _, ok := c.Get(key("k")); ok {
		t.Error("a hit in an empty cache")
	}
	c.Put(copyOf("k", "v"))
	c.wait()
	got, ok := c.Get(key("k"))
	if !ok || string(got.Value()) != "v" || got.Version != 7 || got.AsOf != 9 {
		t.Errorf("%+v, %v", got, ok)
	}
	c.Outdate(key("k").Hash, math.MaxUint64)
	c.wait()
	if _, ok := c.Get(key("k")); ok {
		t.Error("a hit after Outdate")
	}
}

// TestHashIsNoProof uses two keys of one hash, and one key in two namespaces.
func TestHashIsNoProof(t *testing.T) {
	c := newTestCache(t, Config{})
	c.Put(copyOf("k", "v"))
	c.wait()
	other := key("other")
	other.Hash = key("k").Hash
	if got, ok := c.Get(other); ok {
		t.Errorf("another key of the same hash gets %s", got.Value())
	}
	elsewhere := key("k")
	elsewhere.Namespace = 3
	if got, ok := c.Get(elsewhere); ok {
		t.Errorf("another namespace gets %s", got.Value())
	}
}

func TestLongValuesAreNotKept(t *testing.T) {
	c := newTestCache(t, Config{MaxValue: 100})
	c.Put(copyOf("fits", strings.Repeat("x", 100)))
	c.Put(copyOf("long", strings.Repeat("x", 101)))
	c.wait()
	if _, ok := c.Get(key("fits")); !ok {
		t.Error("the longest value is not kept")
	}
	if _, ok := c.Get(key("long")); ok || c.Stats().NotKept != 1 {
		t.Errorf("a longer one is kept: %v, %+v", ok, c.Stats())
	}
}

// TestBound checks that the account stays within the limit, whatever is put in, and that
// the account is true.
func TestBound(t *testing.T) {
	const limit = 4 << 20
	c := newTestCache(t, Config{Bytes: limit})
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 50_000 {
		c.Put(copyOf(fmt.Sprint("k", rnd.IntN(30_000)), strings.Repeat("x", rnd.IntN(500))))
		if i%1000 == 0 {
			c.wait()
			if st := c.Stats(); st.Used > limit+limit/8 {
				t.Fatalf("%d bytes of %d", st.Used, limit)
			}
		}
	}
	c.wait()
	found, bytes := int64(0), int64(0)
	for i := range 30_000 {
		if got, ok := c.Get(key(fmt.Sprint("k", i))); ok {
			found++
			bytes += got.cost()
		}
	}
	if st := c.Stats(); st.Entries != found || st.Used != bytes || found < 1000 {
		t.Errorf("the account says %d entries, %d bytes; there are %d, %d", st.Entries, st.Used, found, bytes)
	}
}

// TestChargeIsEnough checks that the heap grows by little more than the charge.
func TestChargeIsEnough(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	if testing.Short() {
		t.Skip("measures the heap")
	}
	for _, n := range []int{10, 100, 1000} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		c := newTestCache(t, Config{Bytes: 32 << 20})
		runtime.GC()
		var empty runtime.MemStats
		runtime.ReadMemStats(&empty)
		value := strings.Repeat("x", n)
		for i := range 32 << 20 / (n + 200) {
			c.Put(copyOf(fmt.Sprint("key", i), value))
		}
		c.wait()
		runtime.GC()
		runtime.ReadMemStats(&after)
		st := c.Stats()
		ratio := float64(after.HeapAlloc-empty.HeapAlloc) / float64(st.Used)
		t.Logf("values of %4d bytes: %d copies, charged %d, heap %.2f times that, empty cache %d", n, st.Entries, st.Used, ratio, empty.HeapAlloc-before.HeapAlloc)
		if ratio > 1.35 {
			t.Errorf("values of %d bytes take %.2f times what they are charged", n, ratio)
		}
	}
}

func TestConcurrent(t *testing.T) {
	c := newTestCache(t, Config{Bytes: 1 << 20})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range 5000 {
				name := fmt.Sprint("k", rnd.IntN(5000))
				switch rnd.IntN(10) {
				case 0:
					c.Outdate(key(name).Hash, math.MaxUint64)
				case 1, 2, 3:
					c.Put(copyOf(name, name))
				default:
					if got, ok := c.Get(key(name)); ok && string(got.Value()) != name {
						t.Errorf("%s has the value of %s", name, got.Value())
					}
				}
			}
		})
	}
	wg.Wait()
	c.wait()
	c.check(t)
}

// check verifies that all copies in front are in ristretto as well.
func (c *Cache) check(t *testing.T) {
	t.Helper()
	for i := range c.front {
		if got := c.front[i].copy.Load(); got != nil {
			if below, ok := c.store.Get(uint64(got.Hash)); !ok || below != got {
				t.Errorf("%s has left, and is still in front", got.Key())
			}
		}
	}
}

// TestFront checks that a copy that was read is in front until it is replaced or deleted.
func TestFront(t *testing.T) {
	c := newTestCache(t, Config{})
	for _, value := range []string{"old", "new"} {
		c.Put(copyOf("k", value))
		c.wait()
		for range 100 {
			if got, ok := c.Get(key("k")); !ok || string(got.Value()) != value {
				t.Fatalf("got %v, %v, want %s", got, ok, value)
			}
		}
	}
	c.Touched(key("k").Hash) // no lookups
	c.Touched(key("none").Hash)
	if n, st := c.front.hits(), c.Stats(); n != 198 || st.Hits != 200 || st.Misses != 0 {
		t.Errorf("%d hits, %d in front, %d misses", st.Hits, n, st.Misses)
	}
	c.Outdate(key("k").Hash, math.MaxUint64)
	if _, ok := c.Get(key("k")); ok {
		t.Error("a hit after Outdate")
	}
	c.check(t)
}

// TestPopularStay checks that ristretto learns of reads that front has answered.
func TestPopularStay(t *testing.T) {
	if race.Enabled {
		t.Skip("sync.Pool forgets under the race detector, and with it ristretto")
	}
	c := newTestCache(t, Config{Bytes: 1 << 20})
	popular := make([]kv.Key, 50)
	for i := range popular {
		name := fmt.Sprint("popular", i)
		popular[i] = key(name)
		c.Put(copyOf(name, name))
	}
	c.wait()
	for i := range 30_000 {
		name := fmt.Sprint("k", i)
		c.Put(copyOf(name, name))
		for range 3 {
			c.Get(key(name))
		}
		for _, k := range popular {
			c.Get(k)
		}
	}
	c.wait()
	left := 0
	for _, k := range popular {
		if _, ok := c.Get(k); ok {
			left++
		}
	}
	if left < 45 {
		t.Errorf("%d of %d are left", left, len(popular))
	}
	c.check(t)
}

func TestRefused(t *testing.T) {
	for _, cfg := range []Config{{Bytes: 1000}, {Bytes: -1}, {MaxValue: -1}} {
		if c, err := New(cfg); err == nil {
			c.Close()
			t.Errorf("%+v is accepted", cfg)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	c := newTestCache(b, Config{})
	keys := make([]kv.Key, 10_000)
	for i := range keys {
		name := fmt.Sprint("key", i)
		keys[i] = key(name)
		c.Put(copyOf(name, strings.Repeat("x", 100)))
	}
	c.wait()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		c.Get(keys[i*7919%len(keys)])
	}
}

// TestOutdate checks that only a copy attested before the version is dropped.
func TestOutdate(t *testing.T) {
	c := newTestCache(t, Config{Bytes: 1 << 20})
	n := copyOf("k", "v")
	n.AsOf = 10
	c.Put(n)
	c.wait()
	for _, step := range []struct {
		v     kv.Version
		there bool
	}{{9, true}, {10, true}, {11, false}, {12, false}} {
		c.Outdate(key("k").Hash, step.v)
		c.wait()
		if _, ok := c.Get(key("k")); ok != step.there {
			t.Errorf("after a change at %d it is there: %v", step.v, ok)
		}
	}
}
