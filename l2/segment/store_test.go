package segment

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var testNow = kv.Moment{Wall: 1_700_000_000_000, Boot: 24 * time.Hour}

func newTestStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	if cfg.Versions == nil {
		cfg.Versions = kv.NewHLC(1)
	}
	s, err := New(cfg)
	testenv.Must(t, err)
	s.SetNamespace(0, testSeed, 0, Limits{})
	t.Cleanup(func() {
		if err := s.check(); err != nil {
			t.Errorf("check: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

const testSeed = 99

func testKey(name string) kv.Key { return bytesKey([]byte(name)) }

func bytesKey(b []byte) kv.Key { return kv.Key{Hash: kv.HashKey(testSeed, b), Bytes: b} }

func mustPut(t testing.TB, s *Store, name string, w Write) kv.Version {
	t.Helper()
	v, r := s.Put(testKey(name), w, testNow)
	if r != Stored {
		t.Fatalf("Put(%s) = %d", name, r)
	}
	return v
}

func TestEntryHeaderGolden(t *testing.T) {
	h := header{
		version: 0x0102030405060708, deadline: 0x1112131415, valueLen: 0x41424344,
		headerRest: headerRest{0x0152, 0x2122, 0x31, headerMarks{markFlags | markChain, 0x61}},
	}
	var b [headerSize]byte
	h.write(b[:])
	const want = "0807060504030201" + "1514131211" + "2221" + "31" + "44434241" + "5201" + "03" + "61"
	if got := hex.EncodeToString(b[:]); got != want {
		t.Errorf("header = %s, want %s", got, want)
	}
	if got := readHeader(b[:]); got != h {
		t.Errorf("read back %+v, want %+v", got, h)
	}
}

func TestConfigDefaults(t *testing.T) {
	for _, tc := range []struct {
		size            int64
		segment, shards int
		maxValue        int
	}{
		{8 << 20, 16 << 10, 4, 512 << 10},
		{64 << 20, 32 << 10, 16, 4 << 20},
		{256 << 20, 128 << 10, 16, 8 << 20},
		{1 << 30, 128 << 10, 64, 8 << 20},
		{64 << 30, 128 << 10, 256, 8 << 20},
	} {
		c, err := Config{Size: tc.size, Versions: kv.NewHLC(1)}.withDefaults()
		if err != nil {
			t.Errorf("%d: %v", tc.size, err)
		}
		if c.SegmentSize != tc.segment || c.Shards != tc.shards || c.MaxValue != tc.maxValue {
			t.Errorf("%d MiB: segments of %d, %d shards, max value %d; want %d, %d, %d", tc.size>>20,
				c.SegmentSize, c.Shards, c.MaxValue, tc.segment, tc.shards, tc.maxValue)
		}
		if each := c.Size / int64(c.SegmentSize) / int64(c.Shards); each < segmentsAShard {
			t.Errorf("%d MiB: %d segments a shard", tc.size>>20, each)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	clock := kv.NewHLC(1)
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"no clock", Config{Size: MinSize}, "no version clock"},
		{"too small", Config{Size: MinSize - 1, Versions: clock}, "give 8 MiB to 256 GiB"},
		{"too large", Config{Size: MaxSize + 1, Versions: clock}, "give 8 MiB to 256 GiB"},
		{"negative", Config{Size: -1, Versions: clock}, "give 8 MiB"},
		{"max value above a sixteenth", Config{Size: 64 << 20, MaxValue: 5 << 20, Versions: clock}, "raise l2_size to at least 83886080 B"},
		{"shards no power of two", Config{Size: MinSize, Shards: 3, Versions: clock}, "power of two"},
		{"odd segments", Config{Segments: 100, SegmentSize: 66, Versions: clock}, "multiple of 4"},
	} {
		if _, err := New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestOpenSegmentsAtAllClasses fills stores with entries of every TTL class. The open
// segments must stay within 5 % of the arena.
func TestOpenSegmentsAtAllClasses(t *testing.T) {
	testenv.Takes(t, time.Second)
	for _, size := range []int64{8 << 20, 64 << 20, 256 << 20} {
		t.Run(fmt.Sprint(size>>20, "MiB"), func(t *testing.T) {
			if size > 64<<20 && (heapArena || !thorough()) {
				t.Skip("it takes long: -model.seeds 20 without -race runs it")
			}
			s := newTestStore(t, Config{Size: size})
			rnd := rand.New(rand.NewPCG(1, 2))
			value := make([]byte, 600)
			var key [8]byte
			for i := range 2 * size / 600 {
				binary.LittleEndian.PutUint64(key[:], uint64(i))
				w := Write{Value: value[:rnd.IntN(len(value))]}
				if class := rnd.IntN(classes); class < classes-2 {
					w.Deadline = kv.After(testNow.Boot, classTTL[class])
				} else if class == classes-2 {
					w.Deadline = kv.After(testNow.Boot, 300*24*time.Hour)
				}
				s.Put(bytesKey(key[:]), w, testNow)
				if i%16 == 0 { // some are hit, so that both queues are in use
					s.Get(nil, bytesKey(key[:]), NoLimit, testNow.Boot)
					s.Get(nil, bytesKey(key[:]), NoLimit, testNow.Boot)
				}
			}
			st := s.Stats()
			if st.SegmentEvictions == 0 || st.Promoted == 0 {
				t.Errorf("%d evictions, %d promotions: the store was not full", st.SegmentEvictions, st.Promoted)
			}
			if open := st.OpenSegments * int64(s.cfg.SegmentSize); open*20 > size {
				t.Errorf("%d open segments hold %d B, more than 5 %% of %d", st.OpenSegments, open, size)
			}
			if st.Memory.Used > size {
				t.Errorf("%d B taken of %d", st.Memory.Used, size)
			}
		})
	}
}

// TestBusiestShard: in a cluster of 1000 nodes one node owns 1/1000 of the partitions, so
// its hashes share their top bits. The shards must still be evenly full.
func TestBusiestShard(t *testing.T) {
	testenv.Takes(t, time.Second)
	s := newTestStore(t, Config{Size: 64 << 20})
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		k := keyOfHash(testSeed, kv.Hash(rnd.Uint64N(kv.Partitions/1000<<50)))
		s.Put(k, Write{Value: k.Bytes}, testNow)
	}
	st := s.Stats()
	if mean := float64(st.Entries) / float64(st.Shards); float64(st.BusiestShard) > 1.1*mean {
		t.Errorf("busiest shard has %d entries, mean %.0f", st.BusiestShard, mean)
	}
}

func TestExpiryIsExact(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	mustPut(t, s, "k", Write{Value: []byte("v"), Facts: kv.Facts{Deadline: kv.After(testNow.Boot, 100*time.Millisecond)}})
	for _, tc := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {100*time.Millisecond - 1, true}, {100 * time.Millisecond, false}} {
		if _, _, ok := s.Get(nil, testKey("k"), NoLimit, testNow.Boot+tc.after); ok != tc.want {
			t.Errorf("hit after %v = %v", tc.after, ok)
		}
	}
	if st := s.Stats(); st.Expired != 1 || st.Entries != 0 {
		t.Errorf("%d expired, %d left", st.Expired, st.Entries)
	}
}

// TestExpiredMemoryComesBack checks that Run frees the segments of expired entries
// although no caller reads or writes, and keeps the entries that a touch made live
// longer.
func TestExpiredMemoryComesBack(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := newTestStore(t, Config{Size: MinSize})
		clock := &testClock{start: time.Now()}
		now := clock.Read()
		value := make([]byte, 500)
		for i := range 10_000 {
			k := testKey(fmt.Sprint("short", i))
			s.Put(k, Write{Value: value, Facts: kv.Facts{Deadline: kv.After(now.Boot, 5*time.Second)}}, now)
		}
		kept := testKey("short42")
		if _, _, r := s.Touch(kept, kv.After(now.Boot, time.Minute), 0, now); r != Stored {
			t.Fatal("touch missed")
		}
		big := testKey("big")
		s.Put(big, Write{Value: make([]byte, 300<<10), Facts: kv.Facts{Deadline: kv.After(now.Boot, 5*time.Second)}}, now)
		before := s.Stats()

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx, clock) }()
		time.Sleep(5*time.Second + 2*reclaimEvery)
		synctest.Wait()
		st := s.Stats()
		if st.Segments > 4 || before.Segments < 300 {
			t.Errorf("%d segments held before, %d after", before.Segments, st.Segments)
		}
		if _, _, ok := s.Get(nil, kept, NoLimit, clock.Read().Boot); !ok {
			t.Error("the touched entry is gone")
		}
		s.Flush(0, s.cfg.Versions.Next(0))
		time.Sleep(time.Second)
		synctest.Wait()
		if st := s.Stats(); st.Entries != 0 || st.Segments-st.OpenSegments != 0 {
			t.Errorf("after the flush: %d entries, %d segments, %d of them open", st.Entries, st.Segments, st.OpenSegments)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// testClock follows the bubble's virtual time.
type testClock struct{ start time.Time }

func (c *testClock) Read() kv.Moment {
	return kv.Moment{Wall: time.Now().UnixMilli(), Boot: time.Hour + time.Since(c.start)}
}

func TestTouchKeepsVersion(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	v := mustPut(t, s, "k", Write{Value: []byte("v")})
	got, event, res := s.Touch(testKey("k"), kv.After(testNow.Boot, time.Second), 0, testNow)
	if res != Stored || got != v || event <= v {
		t.Errorf("Touch = %v, %v, %v, want %v and a later one", got, event, res, v)
	}
	if _, r := s.Put(testKey("k"), Write{Value: []byte("w"), Mode: CompareAndSwap, Compare: v}, testNow); r != Stored {
		t.Errorf("CAS after touch = %d", r)
	}
	if _, _, r := s.Touch(testKey("absent"), 0, 0, testNow); r != Absent {
		t.Error("Touch of an absent key")
	}
}

func TestIncrBounds(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	for _, tc := range []struct {
		value string
		delta int64
		sum   int64
		want  Result
	}{
		{"10", 5, 15, Stored},
		{"10", -25, -15, Stored},
		{"9223372036854775807", 1, 0, Overflow},
		{"-9223372036854775808", -1, 0, Overflow},
		{"9223372036854775808", 1, 0, NotNumber},
		{"", 1, 0, NotNumber},
		{"ten", 1, 0, NotNumber},
		{" 10", 1, 0, NotNumber},
		{strings.Repeat("1", 21), 1, 0, NotNumber},
	} {
		mustPut(t, s, "n", Write{Value: []byte(tc.value), Facts: kv.Facts{Attributes: kv.Attributes{Flags: 7}, Deadline: kv.After(testNow.Boot, time.Hour)}})
		sum, _, _, r := s.Incr(testKey("n"), Increment{Delta: tc.delta, Create: true, Initial: 100}, testNow)
		if r != tc.want || sum != tc.sum {
			t.Errorf("Incr(%q, %d) = %d, %d, want %d, %d", tc.value, tc.delta, sum, r, tc.sum, tc.want)
		}
		if info, ok := s.Peek(testKey("n"), testNow.Boot); !ok || info.Flags != 7 || info.Deadline == 0 {
			t.Errorf("after Incr(%q): %+v, %v: flags and deadline must stay", tc.value, info, ok)
		}
	}
}

func TestLimitOfGet(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	for _, size := range []int{0, 1, 100, 9 << 10, 300 << 10} {
		value := bytes.Repeat([]byte{7}, size)
		mustPut(t, s, "k", Write{Value: value})
		if size > 0 {
			dst, info, ok := s.Get([]byte("x"), testKey("k"), size-1, testNow.Boot)
			if !ok || info.Size != size || string(dst) != "x" {
				t.Errorf("size %d below limit: %d bytes, %+v, %v", size, len(dst), info, ok)
			}
		}
		dst, _, ok := s.Get([]byte("x"), testKey("k"), size, testNow.Boot)
		if !ok || dst[0] != 'x' || !bytes.Equal(dst[1:], value) {
			t.Errorf("size %d: %d bytes, %v", size, len(dst), ok)
		}
	}
}

func TestTooLarge(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	s.SetNamespace(5, testSeed, 1000, Limits{})
	for _, tc := range []struct {
		ns   kv.NamespaceID
		size int
		want Result
	}{
		{0, s.cfg.MaxValue, Stored}, {0, s.cfg.MaxValue + 1, TooLarge},
		{5, 900, Stored}, {5, 1000, TooLarge},
	} {
		k := testKey("k")
		k.Namespace = tc.ns
		if _, r := s.Put(k, Write{Value: make([]byte, tc.size)}, testNow); r != tc.want {
			t.Errorf("namespace %d, %d bytes: %d, want %d", tc.ns, tc.size, r, tc.want)
		}
	}
}

// TestQuotaTakesFromItsOwn checks that a namespace over its quota loses its oldest keys,
// keeps its hot ones, and takes nothing from other namespaces.
func TestQuotaTakesFromItsOwn(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	const quota = 100_000
	s.SetNamespace(3, testSeed, quota, Limits{})
	for i := range 500 {
		mustPut(t, s, fmt.Sprint("other", i), Write{Value: make([]byte, 100)})
	}
	mine := func(i int) kv.Key {
		k := testKey(fmt.Sprint("mine", i))
		k.Namespace = 3
		return k
	}
	for i := range 5000 {
		if _, r := s.Put(mine(i), Write{Value: make([]byte, 100)}, testNow); r != Stored {
			t.Fatalf("put %d = %d", i, r)
		}
		s.Get(nil, mine(7), NoLimit, testNow.Boot)
	}
	st := s.NamespaceStats(3)
	if st.Bytes > quota || st.Bytes < quota*9/10 {
		t.Errorf("%d bytes of a quota of %d", st.Bytes, quota)
	}
	if _, ok := s.Peek(mine(7), testNow.Boot); !ok {
		t.Error("the hot key is gone")
	}
	if _, ok := s.Peek(mine(8), testNow.Boot); ok {
		t.Error("a cold old key is still there")
	}
	if n := s.NamespaceStats(0).Entries; n != 500 {
		t.Errorf("%d of 500 entries of the other namespace left", n)
	}
}

// TestNewOwnershipHidesTheOld checks that a new ownership makes everything from before
// unreachable, even before a sweep.
func TestNewOwnershipHidesTheOld(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	k := testKey("k")
	other := testKey("other")
	if k.Hash.Partition() == other.Hash.Partition() {
		t.Fatal("choose another key")
	}
	mustPut(t, s, "k", Write{Value: []byte("old")})
	mustPut(t, s, "other", Write{Value: []byte("o")})
	s.NewOwnership(k.Hash.Partition())
	if _, _, ok := s.Get(nil, k, NoLimit, testNow.Boot); ok {
		t.Error("an entry of the former holding is served")
	}
	if _, ok := s.Peek(other, testNow.Boot); !ok {
		t.Error("another partition lost its entry")
	}
	if v, r := s.Put(k, Write{Value: []byte("new"), Mode: Add}, testNow); r != Stored || v == 0 {
		t.Errorf("Add in the new holding = %d", r)
	}
}

// TestMovedIsNotFlushed checks that entries whose partition went to another host, or came
// anew, do not count as flushed, and flushed ones not as moved: whether the sweep removes
// them or a call that finds them.
func TestMovedIsNotFlushed(t *testing.T) {
	for _, tc := range []struct {
		name           string
		hide           func(s *Store, p uint16)
		moved, flushed int64
	}{
		{"dropped", func(s *Store, p uint16) { s.Drop(p, s.Generation(p)) }, 1, 0},
		{"owned anew", func(s *Store, p uint16) { s.NewOwnership(p) }, 1, 0},
		{"flushed", func(s *Store, _ uint16) { s.Clear(0, testNow) }, 0, 1},
		{"flushed, then dropped", func(s *Store, p uint16) { s.Clear(0, testNow); s.Drop(p, s.Generation(p)) }, 0, 1},
	} {
		for by, remove := range map[string]func(s *Store, k kv.Key){
			"the sweep": func(s *Store, _ kv.Key) { s.Sweep(t.Context()) },
			"a read":    func(s *Store, k kv.Key) { s.Get(nil, k, NoLimit, testNow.Boot) },
			"a delete":  func(s *Store, k kv.Key) { s.Delete(k, testNow) },
		} {
			s := newTestStore(t, Config{Size: MinSize})
			k := testKey("k")
			mustPut(t, s, "k", Write{Value: []byte("v")})
			tc.hide(s, k.Hash.Partition())
			remove(s, k)
			if st := s.Stats(); st.Moved != tc.moved || st.Flushed != tc.flushed || st.Expired != 0 {
				t.Errorf("%s, removed by %s: %d moved, %d flushed, %d expired; want %d, %d, 0",
					tc.name, by, st.Moved, st.Flushed, st.Expired, tc.moved, tc.flushed)
			}
		}
	}
}

// TestDrop checks that Drop ends the given generation only, not one that began since.
func TestDrop(t *testing.T) {
	s := newTestStore(t, Config{Size: 8 << 20})
	const p = 7
	over := s.NewOwnership(p)
	s.Drop(p, over)
	if g := s.Generation(p); g == over {
		t.Error("the holding is not over")
	}
	begun := s.NewOwnership(p)
	s.Drop(p, over)
	s.Drop(p, begun-1)
	if g := s.Generation(p); g != begun {
		t.Errorf("generation %d is over, want %d to stay", begun, g)
	}
}

// TestInvalidate checks that Invalidate removes by the hash alone, and nothing else.
func TestInvalidate(t *testing.T) {
	var told []kv.Hash
	s := newTestStore(t, Config{Size: 8 << 20, Changed: func(k kv.Key, _ kv.Version) { told = append(told, k.Hash) }})
	k, other := testKey("k"), testKey("other")
	for _, k := range []kv.Key{k, other} {
		if _, r := s.Put(k, Write{Value: []byte("v")}, testNow); r != Stored {
			t.Fatal(r)
		}
	}
	s.Invalidate(k.Hash, testNow)
	s.Invalidate(k.Hash, testNow) // also if nothing is there
	if _, ok := s.Peek(k, testNow.Boot); ok {
		t.Error("it is still there")
	}
	if _, ok := s.Peek(other, testNow.Boot); !ok {
		t.Error("another is gone")
	}
	if want := []kv.Hash{k.Hash, other.Hash, k.Hash, k.Hash}; !slices.Equal(told, want) {
		t.Errorf("told of %x, want %x", told, want)
	}
	s.check()
}

// TestChainOutlivesItsEntry reads a large value while it is deleted and other writes need
// its segments.
func TestChainOutlivesItsEntry(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	want := make([]byte, 400<<10)
	for i := range want {
		want[i] = byte(i * 31)
	}
	k := testKey("big")
	mustPut(t, s, "big", Write{Value: want})
	sh := s.shard(k.Hash)
	sh.mu.Lock()
	_, w, h, _, _ := sh.find(k)
	seg, _ := s.split(w.loc())
	s.meta[seg].pins++
	sh.mu.Unlock()

	s.Delete(k, testNow)
	held := s.Stats().Segments
	for i := range 20_000 { // evicts everything
		mustPut(t, s, fmt.Sprint(i), Write{Value: make([]byte, 1000)})
	}
	if got := s.appendChain(nil, seg, h); !bytes.Equal(got, want) {
		t.Error("the value changed under its reader")
	}
	sh.mu.Lock()
	sh.unpin(seg)
	sh.mu.Unlock()
	if held < 25 {
		t.Errorf("the pinned chain was not held: %d segments", held)
	}
}

// TestNoRoom checks that a store in which everything is pinned refuses writes, and
// recovers.
func TestNoRoom(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize, Shards: 1})
	value := make([]byte, s.cfg.MaxValue)
	var pinned []segmentID
	sh := s.shards[0]
	for i := 0; ; i++ {
		k := testKey(fmt.Sprint("big", i))
		if _, r := s.Put(k, Write{Value: value}, testNow); r == NoRoom {
			break
		} else if r != Stored || i > 32 {
			t.Fatalf("put %d = %d", i, r)
		}
		_, w, _, _, _ := sh.find(k)
		seg, _ := s.split(w.loc())
		s.meta[seg].pins++
		pinned = append(pinned, seg)
	}
	if st := s.Stats(); st.NoRoom == 0 || len(pinned) < 14 {
		t.Errorf("%d refusals, %d pinned", st.NoRoom, len(pinned))
	}
	for _, seg := range pinned {
		sh.unpin(seg)
	}
	mustPut(t, s, "after", Write{Value: value})
}

// TestConcurrent runs everything at once. The race detector and check find faults, and
// every hit must be a value that was written for its key.
func TestConcurrent(t *testing.T) {
	testenv.Takes(t, time.Second)
	s := newTestStore(t, Config{Size: MinSize})
	s.SetNamespace(1, testSeed, 500<<10, Limits{})
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error)
	clock := kv.NewSystemClock()
	go func() { running <- s.Run(ctx, clock) }()
	ops := 60_000
	if heapArena {
		ops = 6_000
	}
	var wg sync.WaitGroup
	var hits atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			var buf []byte
			for i := range ops {
				now := clock.Read()
				name := fmt.Sprint("key", rnd.IntN(30_000))
				k := testKey(name)
				k.Namespace = kv.NamespaceID(rnd.IntN(2))
				switch op := rnd.IntN(100); {
				case op < 50:
					var ok bool
					if buf, _, ok = s.Get(buf[:0], k, NoLimit, now.Boot); ok {
						hits.Add(1)
						if !strings.HasPrefix(string(buf), name) || strings.Trim(string(buf[len(name):]), ".") != "" {
							t.Errorf("%s has %d bytes, not its own", name, len(buf))
						}
					}
				case op < 85:
					n := rnd.IntN(2000)
					if rnd.IntN(200) == 0 {
						n = rnd.IntN(100 << 10)
					}
					w := Write{Value: append([]byte(name), bytes.Repeat([]byte{'.'}, n)...), Mode: Mode(rnd.IntN(3))}
					if rnd.IntN(2) == 0 {
						w.Deadline = kv.After(now.Boot, time.Duration(rnd.IntN(200))*time.Millisecond)
					}
					s.Put(k, w, now)
				case op < 92:
					s.Delete(k, now)
				case op < 96:
					s.Touch(k, kv.After(now.Boot, time.Second), 0, now)
				case op < 97 && i%1000 == 0:
					s.Flush(k.Namespace, s.cfg.Versions.Next(now.Wall))
				case op < 98 && i%10 == 0:
					s.NewOwnership(k.Hash.Partition())
				case op < 99 && i%50 == 0:
					s.Scan(func(p uint16) bool { return p%16 == 0 }, rnd.IntN(4), now.Boot, func(e kv.Entry) bool {
						if !bytes.HasPrefix(e.Value, e.Key.Bytes) {
							t.Errorf("scan: %s has the value of another", e.Key.Bytes)
						}
						return rnd.IntN(100) > 0
					})
				default:
					s.Stats()
				}
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-running; err != nil {
		t.Error(err)
	}
	st := s.Stats()
	if hits.Load() == 0 || st.SegmentEvictions == 0 && !heapArena {
		t.Errorf("%d hits, %d evictions: too tame a run", hits.Load(), st.SegmentEvictions)
	}
}

func TestNoAllocations(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	value := make([]byte, 100)
	buf := make([]byte, 0, 1000)
	var key [16]byte
	i := uint64(0)
	next := func() kv.Key {
		i++
		binary.LittleEndian.PutUint64(key[:], i%50_000)
		return bytesKey(key[:])
	}
	for range 100_000 { // the index has grown, the ghosts are there
		s.Put(next(), Write{Value: value}, testNow)
	}
	for name, f := range map[string]func(){
		"Get":    func() { s.Get(buf, next(), NoLimit, testNow.Boot) },
		"Put":    func() { s.Put(next(), Write{Value: value, Facts: kv.Facts{Deadline: 1 << 39}}, testNow) },
		"Delete": func() { s.Delete(next(), testNow) },
		"Touch":  func() { s.Touch(next(), 0, 0, testNow) },
		"Incr":   func() { s.Incr(next(), Increment{Delta: 1, Create: true, Initial: 1}, testNow) },
		"Fill": func() {
			s.Fill(next(), Fill{Value: value, Facts: kv.Facts{Version: s.cfg.Versions.Next(0)}, Admit: always}, testNow)
		},
	} {
		testenv.Allocates(t, name, 0, 20_000, f)
	}
}

func BenchmarkGetHit(b *testing.B) {
	s := newTestStore(b, Config{Size: 256 << 20})
	const n = 1 << 20
	keys := make([][16]byte, n)
	for i := range keys {
		binary.LittleEndian.PutUint64(keys[i][:], uint64(i)*0x9e3779b97f4a7c15)
		s.Put(bytesKey(keys[i][:]), Write{Value: make([]byte, 100)}, testNow)
	}
	buf := make([]byte, 0, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		k := bytesKey(keys[uint32(i)*2654435761%n][:])
		s.Get(buf, k, NoLimit, testNow.Boot)
	}
}

func BenchmarkPut(b *testing.B) {
	s := newTestStore(b, Config{Size: 256 << 20})
	value := make([]byte, 100)
	var key [16]byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		binary.LittleEndian.PutUint64(key[:], uint64(i))
		s.Put(bytesKey(key[:]), Write{Value: value}, testNow)
	}
}
