package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestKeptAgainstModel runs random operations, and has another store take the entries over now and then.
func TestKeptAgainstModel(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	for seed := range uint64(2) {
		m := newModel(t, 20+seed)
		m.seen = &sightings{}
		_ = m.store.Close()
		m.store = nil
		m.restart()
		for range 16 {
			m.run(2000)
			m.restart()
			m.store.useLargePages()
			if m.check(); t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		if m.store.Stats().Entries == 0 || m.carried.Evicted == 0 || m.carried.QuotaEvicted == 0 {
			t.Errorf("seed %d proves too little: %+v", seed, m.carried)
		}
		if err := m.store.Close(); err != nil {
			t.Error(err)
		}
	}
}

// restart has another store take over what the present one has.
func (m *model) restart() {
	keep := &Keep{Accept: func(note []byte) error {
		if string(note) != "a note" {
			return fmt.Errorf("note %q", note)
		}
		return nil
	}}
	entries := int64(0)
	var share cachesidecar.ShardShares
	if m.store != nil {
		for _, sh := range m.store.shards {
			sh.counts[0].hits, sh.counts[0].lean = 1000, 0.2
			sh.weigh()
		}
		entries, share = m.store.Stats().Entries, m.store.Stats().Admission
		addStats(&m.carried, m.store.Stats())
		for _, ns := range modelNamespaces {
			m.store.HoldBack(ns.id, kv.Moment{}) // that ends with the process
		}
		keep.File = saved(m.t, m.store, "a note")
	}
	m.cfg.Keep = keep
	s, err := New(m.cfg)
	testenv.Must(m.t, err)
	if got := s.Taken(); got.Entries != entries || got.Why != nil {
		m.t.Fatalf("it takes over %d of %d entries: %v", got.Entries, entries, got.Why)
	}
	if got := s.Stats().Admission; entries > 0 && math.Abs(got.Median-share.Median) > 0.01 {
		m.t.Errorf("the share of admission was %v, and is %v", share.Median, got.Median)
	}
	s.Own()
	for p := range uint16(kv.Partitions) {
		s.Adopt(p, s.NewOwnership(p))
	}
	for _, ns := range modelNamespaces {
		if entries == 0 {
			s.SetNamespace(ns.id, kv.NamespaceSeed(modelSeed, strconv.Itoa(int(ns.id))), ns.quota, ns.limits)
		} else {
			s.SetLimits(ns.id, ns.quota, ns.limits)
		}
	}
	m.outdate(func(kv.Hash, modelKey, modelEntry) bool { return true }) // no process has copies any more
	m.store, m.overwritten = s, 0
}

// saved saves and closes a store, and returns its memory.
func saved(t *testing.T, s *Store, note string) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(s.Memory().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err = errors.Join(err, s.Save([]byte(note)), s.Close()); err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "kept")
}

// TestKeptUnusable checks that memory which this process cannot use is not taken over, with the reason.
func TestKeptUnusable(t *testing.T) {
	cfg := Config{Size: MinSize, Versions: kv.NewHLC(1), Keep: &Keep{Accept: func([]byte) error { return nil }}}
	word := func(f *os.File, at int64) {
		var b [8]byte
		_, _ = f.ReadAt(b[:], at)
		binary.LittleEndian.PutUint64(b[:], binary.LittleEndian.Uint64(b[:])^1<<20)
		_, _ = f.WriteAt(b[:], at)
	}
	for _, tc := range []struct {
		why  string
		harm func(f *os.File, c *Config)
	}{
		{"", func(*os.File, *Config) {}},
		{"did not end in order", func(f *os.File, _ *Config) { _, _ = f.WriteAt(make([]byte, 8), 0) }},
		{"no memory of a sidecar", func(f *os.File, _ *Config) { word(f, 0) }},
		{"in another way", func(f *os.File, _ *Config) { word(f, 8) }},
		{"l2_size was", func(_ *os.File, c *Config) { c.Size *= 2 }},
		{"its bytes have changed", func(f *os.File, _ *Config) {
			info, _ := f.Stat()
			word(f, info.Size()-100)
		}},
		{"its index has changed", func(f *os.File, c *Config) {
			c, _ = func() (*Config, error) { d, err := c.withDefaults(); return &d, err }()
			word(f, keptStart+c.Size/int64(c.SegmentSize)*int64(c.SegmentSize)+800) // the first index page
		}},
		{"not these", func(_ *os.File, c *Config) {
			c.Keep = &Keep{Accept: func([]byte) error { return errors.New("not these") }}
		}},
		{"has 4096 B", func(f *os.File, _ *Config) {
			fd, _ := unix.MemfdCreate("short", unix.MFD_ALLOW_SEALING)
			short := os.NewFile(uintptr(fd), "short")
			var b [pageSize]byte
			_, _ = f.ReadAt(b[:], 0)
			_, _ = short.Write(b[:])
			_, _ = unix.FcntlInt(short.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK)
			_ = unix.Dup2(fd, int(f.Fd()))
			_ = short.Close()
		}},
		{"no memory of a sidecar", func(f *os.File, _ *Config) {
			other, _ := os.Open(os.DevNull)
			_ = unix.Dup2(int(other.Fd()), int(f.Fd()))
			_ = other.Close()
		}},
	} {
		c := cfg
		s, err := New(c)
		testenv.Must(t, err)
		s.SetNamespace(0, testSeed, 0, Limits{})
		mustPut(t, s, "a", Write{Value: bytes.Repeat([]byte("x"), 300_000)})
		keep := *cfg.Keep
		c.Keep = &keep
		f := saved(t, s, "note")
		tc.harm(f, &c)
		c.Keep.File = f
		if s, err = New(c); err != nil {
			t.Fatalf("%q: %v", tc.why, err)
		}
		for p := range uint16(kv.Partitions) {
			s.Adopt(p, s.NewOwnership(p))
		}
		taken := s.Taken()
		_, there := s.Peek(testKey("a"), testNow.Boot)
		if tc.why == "" {
			if taken.Why != nil || taken.Entries != 1 || !there {
				t.Errorf("it takes over %d entries: %v", taken.Entries, taken.Why)
			}
		} else if there || taken.Entries != 0 || taken.Why == nil || !strings.Contains(taken.Why.Error(), tc.why) {
			t.Errorf("want %q: it takes over %d entries, %v", tc.why, taken.Entries, taken.Why)
		}
		if err := s.check(); err != nil {
			t.Error(err)
		}
		_ = s.Close()
	}
}

// TestKeptSum checks that the sum covers the first and the last byte of each index page, and no other page.
func TestKeptSum(t *testing.T) {
	s, err := New(Config{Size: 64 << 20, Shards: 128, Versions: kv.NewHLC(1), Keep: &Keep{}})
	testenv.Must(t, err)
	defer s.Close()
	free := s.pages.get()
	dir := s.shards[40].index.dir
	dir[0], free = free, dir[0] // amid the others
	last := int(s.pages.next) - 1
	if last <= sumAtOnce {
		t.Fatalf("%d pages prove too little", last)
	}
	want := s.indexSum()
	for _, id := range []int{0, int(free) - 1, int(free), int(free) + 1, sumAtOnce - 1, sumAtOnce, last - 1, last} {
		for _, at := range []int{0, pageSize - 1} {
			b := s.pages.bytes(pageID(id))
			b[at] ^= 1 << 3
			if got := s.indexSum(); (got == want) != (id == int(free)) {
				t.Errorf("byte %d of page %d has changed: sum %x, was %x", at, id, got, want)
			}
			b[at] ^= 1 << 3
		}
	}
}

// TestKeptOnce checks that a process which takes entries over and does not end in order leaves none, and
// that what no entry uses takes no memory between two processes.
func TestKeptOnce(t *testing.T) {
	cfg := Config{Size: MinSize, Versions: kv.NewHLC(1), Keep: &Keep{Accept: func([]byte) error { return nil }}}
	s, err := New(cfg)
	testenv.Must(t, err)
	s.SetNamespace(0, testSeed, 0, Limits{})
	mustPut(t, s, "a", Write{Value: []byte("v")})
	for i := range 10 {
		mustPut(t, s, fmt.Sprint("large", i), Write{Value: bytes.Repeat([]byte{byte(i + 1)}, 500_000)})
	}
	for i := range 10 {
		s.Delete(testKey(fmt.Sprint("large", i)), testNow)
	}
	f := saved(t, s, "")
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 > 2<<20 {
		t.Errorf("one short entry takes %d B, %v", st.Blocks*512, err)
	}
	again, _ := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	cfg.Keep.File = f
	if s, err = New(cfg); err != nil || s.Taken().Entries != 1 {
		t.Fatalf("%v, %+v", err, s.Taken())
	}
	_ = s.Close() // before it used them: they are still there
	third, _ := unix.FcntlInt(uintptr(again), unix.F_DUPFD_CLOEXEC, 0)
	cfg.Keep.File = os.NewFile(uintptr(again), "again")
	if s, err = New(cfg); err != nil || s.Taken().Entries != 1 {
		t.Fatalf("%v, %+v", err, s.Taken())
	}
	s.Own()
	_ = s.Close() // and no Save
	again = third
	cfg.Keep.File = os.NewFile(uintptr(again), "again")
	if s, err = New(cfg); err != nil || s.Taken().Why == nil || !strings.Contains(s.Taken().Why.Error(), "did not end in order") {
		t.Fatalf("%v, %+v", err, s.Taken())
	}
	_ = s.Close()
}

// BenchmarkKept compares reads and writes of a million entries in memory that is kept, in small pages and in
// large ones, with those in memory that is not.
func BenchmarkKept(b *testing.B) {
	const entries = 1_000_000
	keys := make([]kv.Key, entries)
	for i := range keys {
		keys[i] = testKey(strconv.Itoa(i))
	}
	value := bytes.Repeat([]byte("v"), 100)
	stores := map[string]*Store{}
	for name, keep := range map[string]*Keep{"anonymous": nil, "kept": {}, "large": {}} {
		s, err := New(Config{Size: 512 << 20, Versions: kv.NewHLC(1), Keep: keep})
		testenv.Must(b, err)
		defer s.Close()
		s.SetNamespace(0, testSeed, 0, Limits{})
		for _, k := range keys {
			s.Put(k, Write{Value: value}, testNow)
		}
		if name == "large" {
			for range s.memory.large {
				s.useLargePages()
			}
		}
		stores[name] = s
	}
	for _, name := range []string{"anonymous", "kept", "large"} {
		s := stores[name]
		b.Run("get/"+name, func(b *testing.B) {
			var buf []byte
			for i := 0; b.Loop(); i++ {
				buf, _, _ = s.Get(buf[:0], keys[uint32(i)*2654435761%entries], 1<<20, testNow.Boot)
			}
		})
		b.Run("set/"+name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				s.Put(keys[uint32(i)*2654435761%entries], Write{Value: value}, testNow)
			}
		})
	}
}
