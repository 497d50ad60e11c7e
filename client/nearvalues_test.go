package client

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// check checks that the parts of each shard agree, and that its bytes are within the
// limit.
func (values *keptValues) check(t *testing.T) {
	t.Helper()
	for i := range values.shards {
		s := &values.shards[i]
		n, bytes, hand := 0, int64(0), s.hand == nil
		var last *kept
		for k := s.newest; k != nil; k = k.next {
			if k.prev != last || s.byHash[k.hash] != k {
				t.Fatalf("shard %d: the list is broken at %s", i, k.key)
			}
			n, bytes, hand, last = n+1, bytes+k.cost(), hand || k == s.hand, k
		}
		if n != len(s.byHash) || bytes != s.bytes || bytes > values.limit || s.oldest != last || !hand {
			t.Fatalf("shard %d: %d of %d in the list, %d of %d bytes, at most %d", i, n, len(s.byHash), bytes, s.bytes, values.limit)
		}
	}
}

func testKey(i int) kv.Key {
	b := fmt.Appendf(nil, "key%d", i)
	return kv.Key{Hash: kv.HashKey(1, b), Bytes: b}
}

func testKept(i, size int) *kept {
	k := testKey(i)
	return &kept{hash: k.Hash, key: string(k.Bytes), value: make([]byte, size)}
}

func TestKeptAgainstMap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	v := newKeptValues(1 << 20)
	latest := map[int]*kept{}
	found := 0
	for step := range 50_000 {
		i := rnd.IntN(3000)
		switch rnd.IntN(10) {
		case 0, 1, 2, 3:
			k := testKept(i, rnd.IntN(2000))
			latest[i] = k
			v.put(k)
		case 4:
			v.outdate(testKey(i).Hash, math.MaxUint64)
			delete(latest, i)
		default:
			if got := v.get(testKey(i)); got != nil {
				if found++; got != latest[i] {
					t.Fatalf("step %d: key%d is not what was put last", step, i)
				}
			}
		}
		if step%1000 == 0 {
			v.check(t)
		}
	}
	v.check(t)
	if entries, bytes := v.size(); found < 1000 || entries < 100 || bytes < 900<<10 {
		t.Errorf("%d found, %d kept of %d bytes", found, entries, bytes)
	}
	v.clear()
	v.check(t)
	if entries, bytes := v.size(); entries != 0 || bytes != 0 {
		t.Errorf("%d entries of %d bytes are left", entries, bytes)
	}
}

// TestKeptComparesKeys checks that an equal hash alone is not a match.
func TestKeptComparesKeys(t *testing.T) {
	v := newKeptValues(1 << 20)
	v.put(testKept(1, 1))
	k := testKey(1)
	other := k
	other.Bytes = []byte("other")
	space := k
	space.Namespace = 1
	if v.get(k) == nil || v.get(other) != nil || v.get(space) != nil {
		t.Errorf("another key of the same hash is taken for it")
	}
}

// TestKeptScan checks that values that are read often survive a scan of others.
func TestKeptScan(t *testing.T) {
	v := newKeptValues(1 << 20)
	for i := range 100 {
		v.put(testKept(i, 100))
	}
	for i := range 100_000 {
		if i%100 == 0 {
			for j := range 100 {
				v.get(testKey(j))
			}
		}
		v.put(testKept(1000+i, 100))
	}
	left := 0
	for i := range 100 {
		if v.get(testKey(i)) != nil {
			left++
		}
	}
	if left < 95 {
		t.Errorf("%d of 100 that were read all the time are left", left)
	}
}
