package segment

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Keys that were chosen for their hashes.

// keyOfHash returns the key of 8 bytes that has a hash. For keys of this length xxh3 is a
// bijection; this is its inverse.
func keyOfHash(seed uint64, h kv.Hash) kv.Key {
	const prime, inverse = 0x9fb21c651e98df25, 0x02ab9c720d1024ad // prime × inverse is 1
	x := uint64(h)
	x ^= x>>28 ^ x>>56
	x *= inverse
	x ^= x>>35 + 8
	x *= inverse
	for range 63 { // its 64th power is 1
		x ^= bits.RotateLeft64(x, 49) ^ bits.RotateLeft64(x, 24)
	}
	seed ^= uint64(bits.ReverseBytes32(uint32(seed))) << 32
	secret := [2]uint64{0x1cad21f72c81017c, 0xdb979083e96dd4de}
	x ^= secret[0] ^ secret[1] - seed
	b := binary.LittleEndian.AppendUint32(nil, uint32(x>>32))
	return kv.Key{Hash: h, Bytes: binary.LittleEndian.AppendUint32(b, uint32(x))}
}

// alikeKey returns the i-th of many keys of 32 bytes that have one hash: xxh3 multiplies
// their second word with zero.
func alikeKey(seed uint64, i int) kv.Key {
	b := binary.LittleEndian.AppendUint64(nil, 0xbe4ba423396cfeb8+seed)
	b = binary.LittleEndian.AppendUint64(b, uint64(i)*0x9e3779b97f4a7c15)
	b = append(b, "0123456789abcdef"...)
	return kv.Key{Hash: kv.HashKey(seed, b), Bytes: b}
}

func TestChosenKeys(t *testing.T) {
	for _, seed := range []uint64{0, testSeed, 1<<63 + 12345} {
		for range 1000 {
			h := kv.Hash(rand.Uint64())
			if k := keyOfHash(seed, h); kv.HashKey(seed, k.Bytes) != h {
				t.Fatalf("seed %d: the key for hash %#x has %#x", seed, uint64(h), uint64(kv.HashKey(seed, k.Bytes)))
			}
		}
		if a, b := alikeKey(seed, 1), alikeKey(seed, 2); a.Hash != b.Hash || string(a.Bytes) == string(b.Bytes) {
			t.Fatalf("seed %d: keys of hash %#x and %#x", seed, uint64(a.Hash), uint64(b.Hash))
		}
	}
}

// in puts a key into a namespace that has the seed of namespace 0.
func in(ns kv.NamespaceID, k kv.Key) kv.Key { k.Namespace = ns; return k }

func mustPutKey(t testing.TB, s *Store, k kv.Key, value string) {
	t.Helper()
	if _, r := s.Put(k, Write{Value: []byte(value)}, testNow); r != Stored {
		t.Fatalf("Put(%x) = %d", k.Bytes, r)
	}
}

// TestKeysOfOneHash writes thousands of keys of one hash. The last 8 are there, each with
// its own value. The index does not grow, and other keys lose nothing.
func TestKeysOfOneHash(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	s.SetNamespace(1, testSeed, 0, Limits{})
	for i := range 100 {
		mustPut(t, s, fmt.Sprint("other", i), Write{})
	}
	neighbour := in(1, alikeKey(testSeed, 1_000_000))
	mustPutKey(t, s, neighbour, "neighbour")
	before := s.Stats()
	const n = 2000
	for i := range n {
		mustPutKey(t, s, alikeKey(testSeed, i), fmt.Sprint(i))
		for back := range maxAlike + 2 { // 7 of them and the neighbour's
			b, _, ok := s.Get(nil, alikeKey(testSeed, i-back), NoLimit, testNow.Boot)
			if there := i-back >= 0 && back < maxAlike-1; ok != there || ok && string(b) != fmt.Sprint(i-back) {
				t.Fatalf("after key %d, key %d: %q, %v", i, i-back, b, ok)
			}
		}
	}
	st := s.Stats()
	if st.Collided != n-(maxAlike-1) || st.Evicted != st.Collided {
		t.Errorf("%d entries replaced for one hash, %d evicted, want %d", st.Collided, st.Evicted, n-(maxAlike-1))
	}
	if st.Entries != before.Entries+maxAlike-1 || st.IndexSplits != 0 || st.Memory.Index != before.Memory.Index || st.SplitsRefused+st.CrowdedOut != 0 {
		t.Errorf("before %+v, after %+v", before, st)
	}
	for i := range 100 {
		if _, ok := s.Peek(testKey(fmt.Sprint("other", i)), testNow.Boot); !ok {
			t.Errorf("other %d is gone", i)
		}
	}
	if b, _, _ := s.Get(nil, neighbour, NoLimit, testNow.Boot); string(b) != "neighbour" {
		t.Errorf("the neighbour's key of that hash: %q", b)
	}
	s.Invalidate(neighbour.Hash, testNow)
	if st := s.Stats(); st.Entries != 100 {
		t.Errorf("%d entries after all of the hash were invalidated", st.Entries)
	}
}

// TestKeysOfSharedBits checks that keys whose hashes share low bits, however many, fill
// one page and then replace each other.
func TestKeysOfSharedBits(t *testing.T) {
	testenv.Takes(t, time.Second)
	step := 12
	if thorough() && !heapArena { // which is ten times as slow
		step = 4
	}
	for shared := 24; shared <= 60; shared += step {
		for _, filled := range []int{0, 20_000} {
			t.Run(fmt.Sprint(shared, " bits, beside ", filled), func(t *testing.T) {
				s := newTestStore(t, Config{Size: MinSize, Shards: 1})
				s.SetNamespace(1, testSeed, 0, Limits{})
				for i := range filled {
					mustPut(t, s, fmt.Sprint("other", i), Write{})
				}
				before := s.Stats()
				n := min(20_000, 1<<(64-shared))
				for i := range n {
					k := in(1, keyOfHash(testSeed, kv.Hash(i)<<shared|0x123456789abcdef&(1<<shared-1)))
					mustPutKey(t, s, k, fmt.Sprint(i))
					if b, _, ok := s.Get(nil, k, NoLimit, testNow.Boot); !ok || string(b) != fmt.Sprint(i) {
						t.Fatalf("key %d: %q, %v", i, b, ok)
					}
				}
				st, mine := s.Stats(), s.NamespaceStats(1).Entries
				if splits := st.IndexSplits - before.IndexSplits; splits > 4 {
					t.Errorf("%d pages split for them", splits)
				}
				if pages := (st.Memory.Index - before.Memory.Index) / pageSize; pages > 4 {
					t.Errorf("%d pages for them", pages)
				}
				if mine > fullFill || mine != int64(n)-st.Collided-st.CrowdedOut {
					t.Errorf("%d of %d are there, %d replaced, %d crowded out", mine, n, st.Collided, st.CrowdedOut)
				}
				if n > fullFill && st.Collided+st.CrowdedOut == 0 || st.CrowdedOut > st.SplitsRefused {
					t.Errorf("%d replaced, %d crowded out, %d splits refused", st.Collided, st.CrowdedOut, st.SplitsRefused)
				}
				if left := s.NamespaceStats(0).Entries; left != int64(filled) {
					t.Errorf("%d entries of the other namespace left of %d", left, filled)
				}
			})
		}
	}
}

// TestDeepPages writes keys that are chosen to split as many pages as deep as possible,
// and then deletes keys to leave the pages as empty as possible. The index must not
// exceed what as many random keys may take, and the pages must come back.
func TestDeepPages(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize, Shards: 1})
	first := s.Stats().Memory.Index
	const others, rounds, come, leave = 20_000, 300, 600, 420
	for i := range others {
		mustPut(t, s, fmt.Sprint("other", i), Write{})
	}
	key := func(round uint64, i kv.Hash) kv.Key {
		return keyOfHash(testSeed, (i*0x9e3779b97f4a7c15)<<40|kv.Hash(round*0x9e3779b97f4a7c15)>>24)
	}
	for round := range uint64(rounds) {
		for i := range kv.Hash(come) {
			mustPutKey(t, s, key(round, i), "")
		}
		for i := range kv.Hash(leave) {
			s.Delete(key(round, i), testNow)
		}
		st := s.Stats()
		if st.Memory.Used > MinSize {
			t.Fatalf("round %d: %d bytes of %d", round, st.Memory.Used, MinSize)
		}
		if per := float64(st.Memory.Index-first) / float64(st.Entries+leave); per > pageSize/115. {
			t.Fatalf("round %d: %.0f bytes of the index for each of %d entries", round, per, st.Entries)
		}
		if dir := len(s.shards[0].index.dir); dir > max(8, int(st.Entries+leave)/115) {
			t.Fatalf("round %d: a directory of %d for %d entries", round, dir, st.Entries)
		}
	}
	for i := range others {
		s.Delete(testKey(fmt.Sprint("other", i)), testNow)
	}
	if st := s.Stats(); st.IndexSplits < 100 || st.SplitsRefused == 0 {
		t.Errorf("%d splits, %d refused: too tame a run", st.IndexSplits, st.SplitsRefused)
	}
	for round := range uint64(rounds) {
		for i := range kv.Hash(come) {
			s.Delete(key(round, i), testNow)
		}
	}
	if st := s.Stats(); st.Entries != 0 || st.Memory.Index != first {
		t.Errorf("%d entries, %d bytes of the index, %d to begin with", st.Entries, st.Memory.Index, first)
	}
}

// TestMergedTags: pages that merge may bring together more than 8 words of one tag. The
// next key of that tag reduces them to 8.
func TestMergedTags(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize, Shards: 1})
	const filled = 10_000
	for i := range filled {
		mustPut(t, s, fmt.Sprint("other", i), Write{})
	}
	for i := range kv.Hash(64) { // branches: the bits from 24 on
		mustPutKey(t, s, keyOfHash(testSeed, 0x123<<40|i<<24), "")
	}
	for i := range filled {
		s.Delete(testKey(fmt.Sprint("other", i)), testNow)
	}
	if n := s.shards[0].index.alike(0x123<<40, nil); n <= maxAlike {
		t.Fatalf("%d words of one tag: the test is about more", n)
	}
	mustPutKey(t, s, keyOfHash(testSeed, 0x123<<40|64<<24), "")
	if n := s.shards[0].index.alike(0x123<<40, nil); n != maxAlike {
		t.Errorf("%d words of one tag, want %d", n, maxAlike)
	}
}

// TestSplitWithoutBudget checks that, if Size has no page left, a page overflows and then
// evicts. It splits as soon as a page is left.
func TestSplitWithoutBudget(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize, Shards: 1})
	for i := range 2000 { // more than half of the last segment is free
		mustPut(t, s, fmt.Sprint(i), Write{})
	}
	s.pool.budget = int64(s.pool.used)*s.pool.segSize + s.pool.pages
	next := kv.Hash(0)
	chosen := func(n int) Stats {
		for range n {
			next++
			mustPutKey(t, s, keyOfHash(testSeed, next<<40), "")
		}
		return s.Stats()
	}
	if st := chosen(280); st.IndexSplits != 0 || st.SplitsRefused == 0 || st.CrowdedOut == 0 || st.Memory.Used > s.pool.budget {
		t.Errorf("without a page: %+v", st)
	}
	s.pool.budget = MinSize
	if st := chosen(1); st.IndexSplits == 0 {
		t.Errorf("with one: %+v", st)
	}
}

// TestRandomKeysAreNotCrowded checks that a store of keys that were not chosen refuses no
// split and loses no entry to its index.
func TestRandomKeysAreNotCrowded(t *testing.T) {
	testenv.Takes(t, time.Second)
	large := int64(16 << 20)
	if thorough() {
		large = 32 << 20
	}
	for _, cfg := range []Config{{Size: MinSize}, {Size: MinSize, Shards: 1}, {Size: large}} {
		if heapArena && cfg.Size > MinSize {
			continue // ten times as slow
		}
		s := newTestStore(t, cfg)
		var key [8]byte
		for i := range uint64(cfg.Size / shortest * 3 / 2) {
			binary.LittleEndian.PutUint64(key[:], i)
			if _, r := s.Put(bytesKey(key[:]), Write{}, testNow); r != Stored {
				t.Fatal(r)
			}
		}
		st := s.Stats()
		if st.Collided+st.CrowdedOut+st.SplitsRefused != 0 || st.IndexSplits == 0 || st.SegmentEvictions == 0 {
			t.Errorf("%d MiB, %d shards: %+v", cfg.Size>>20, st.Shards, st)
		}
	}
}

// TestQuotaQueueIsBounded: a key that comes and goes leaves a mark each time, and so do
// keys of one hash that replace each other. The queue must still be bounded, and the
// quota must be kept.
func TestQuotaQueueIsBounded(t *testing.T) {
	for name, one := range map[string]func(s *Store, i int) kv.Key{
		"one key": func(s *Store, i int) kv.Key {
			s.Delete(in(3, testKey("one")), testNow)
			return testKey("one")
		},
		"one hash": func(_ *Store, i int) kv.Key { return alikeKey(testSeed, i%2000) },
		"two of one hash": func(s *Store, i int) kv.Key {
			s.Delete(in(3, alikeKey(testSeed, i%2)), testNow)
			return alikeKey(testSeed, i%2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestStore(t, Config{Size: MinSize, Shards: 1})
			s.SetNamespace(3, testSeed, 20_000, Limits{})
			turns := 100_000
			if heapArena {
				turns /= 10
			}
			for i := range turns {
				mustPutKey(t, s, in(3, one(s, i)), "value")
			}
			if st := s.Stats(); st.Memory.Quotas > 2*pageSize {
				t.Errorf("%d bytes for the queue of %d entries", st.Memory.Quotas, st.Entries)
			}
			for i := range 1000 { // more than the quota
				mustPutKey(t, s, in(3, testKey(fmt.Sprint(i))), "a value of some more bytes")
			}
			if st := s.Stats(); st.QuotaEvicted == 0 {
				t.Error("nothing was evicted for the quota")
			}
		})
	}
}

// chosen is a store and a map under operations on keys of given hashes.
type chosen struct {
	t    *testing.T
	s    *Store
	want map[string]string
	n    int
}

// hashOf makes a hash that shares bits with many others: the bits that choose the shard,
// the slot, the branch and the tag have few values each.
func (c *chosen) hashOf(a, b, d byte) kv.Hash {
	h := kv.Hash(a&1) | kv.Hash(a>>1&3)<<22
	h |= kv.Hash(bits.Reverse8(b)) << 24
	return h | kv.Hash(d)<<44 | kv.Hash(a>>5)<<38 | kv.Hash(a>>3&3)<<62
}

func (c *chosen) step(op, a, b, d byte) {
	k := keyOfHash(testSeed, c.hashOf(a, b, d))
	if op&0x30 == 0x30 {
		k = alikeKey(testSeed, int(d))
	}
	k = in(kv.NamespaceID(op>>6&3), k)
	name := string(rune(k.Namespace)) + string(k.Bytes)
	switch c.n++; op & 0xf {
	case 0, 1:
		c.s.Delete(k, testNow)
		delete(c.want, name)
	case 2:
		c.s.Invalidate(k.Hash, testNow)
		for ns := range 4 {
			delete(c.want, string(rune(ns))+string(k.Bytes))
		}
	case 3, 4, 5:
		b, _, ok := c.s.Get(nil, k, NoLimit, testNow.Boot)
		if w, known := c.want[name]; ok && (!known || w != string(b)) {
			c.t.Fatalf("step %d: %q of %x, want %q, %v", c.n, b, name, w, known)
		}
	default:
		c.want[name] = fmt.Sprint(c.n)
		mustPutKey(c.t, c.s, k, c.want[name])
		if _, ok := c.s.Peek(k, testNow.Boot); !ok {
			c.t.Fatalf("step %d: what was just written is not there", c.n)
		}
	}
	if c.n%256 == 0 {
		if m := c.s.Stats().Memory; m.Used > MinSize {
			c.t.Fatalf("step %d: %+v", c.n, m)
		}
	}
}

func newChosen(t *testing.T) *chosen {
	s := newTestStore(t, Config{Size: MinSize, Shards: 2})
	for ns := range kv.NamespaceID(4) {
		s.SetNamespace(ns, testSeed, int64(ns&1)*40_000, Limits{})
	}
	return &chosen{t: t, s: s, want: map[string]string{}}
}

// TestChosenHashes runs random operations on keys whose hashes share most of their bits.
// The cleanup of newTestStore checks the store at the end.
func TestChosenHashes(t *testing.T) {
	testenv.Takes(t, time.Second)
	var total Stats
	seeds := uint64(2)
	if thorough() && !heapArena {
		seeds = 8
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(seed, 7))
		c := newChosen(t)
		for i := range 60_000 {
			op, a, b, d := byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())
			if i/10_000%2 == 1 {
				b, a = b&3, a&0xf8 // one branch of one shard
			}
			if i == 50_000 {
				for name := range c.want {
					ns, key := kv.NamespaceID(name[0]), []byte(name[1:])
					c.s.Delete(kv.Key{Hash: kv.HashKey(testSeed, key), Namespace: ns, Bytes: key}, testNow)
				}
				clear(c.want)
			}
			c.step(op, a, b, d)
			if i%10_000 == 0 {
				if err := c.s.check(); err != nil {
					t.Fatalf("seed %d, step %d: %v", seed, i, err)
				}
			}
		}
		st := c.s.Stats()
		addStats(&total, st)
	}
	if total.Collided == 0 || total.CrowdedOut == 0 || total.SplitsRefused == 0 || total.IndexSplits == 0 || total.IndexMerges == 0 || total.QuotaEvicted == 0 {
		t.Errorf("the run proves less than it should: %+v", total)
	}
}

func FuzzChosenHashes(f *testing.F) {
	f.Add([]byte{6, 0, 0, 0, 0x36, 0, 0, 0, 0x36, 0, 0, 1, 3, 0, 0, 0})
	var many []byte
	for i := range 600 {
		many = append(many, 6, byte(i>>8)<<5, 0, byte(i))
	}
	f.Add(many)
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newChosen(t)
		for ; len(b) >= 4; b = b[4:] {
			c.step(b[0], b[1], b[2], b[3])
		}
	})
}

// TestLockIsLent checks that a scan that wants nothing, and a search of a quota queue
// that finds nothing, release the lock after a while.
func TestLockIsLent(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize, Shards: 1})
	s.SetNamespace(3, testSeed, 1<<20, Limits{})
	for i := range 100_000 {
		mustPut(t, s, fmt.Sprint(i), Write{})
	}
	sh := s.shards[0]
	c := &scanner{sh: sh, want: func(uint16) bool { return false }}
	fills := 1
	for c.fill() {
		fills++
	}
	if want := (len(sh.index.dir) + scanPages - 1) / scanPages; fills != want || want < 3 {
		t.Errorf("%d holds of the lock for %d slots, want %d", fills, len(sh.index.dir), want)
	}
	for i := range 10 * quotaStep {
		mustPutKey(t, s, in(3, testKey(fmt.Sprint(i))), "")
	}
	for i := range 10 * quotaStep {
		s.Delete(in(3, testKey(fmt.Sprint(i))), testNow)
	}
	before := sh.marks(3)
	if sh.evictMarked(3, 2<<20, testNow.Boot); before-sh.marks(3) != quotaStep {
		t.Errorf("%d marks looked at in one hold of the lock, want %d", before-sh.marks(3), quotaStep)
	}
	if sh.evictNamespace(3, 2<<20, testNow.Boot); sh.marks(3) != 0 {
		t.Errorf("%d marks are left", sh.marks(3))
	}
}
