package shm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"

	"github.com/cachesidecar/cachesidecar/internal/testing/race"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

const (
	second = time.Second
	start  = 100 * second // of the boot clock, in these tests
)

func yes() bool { return true }

func all(string) bool { return true }

// rig is a writer with a region, and a reader of it.
type rig struct {
	t testing.TB
	*Writer
	file   *File
	region *Region
	r      *Reader
	view   View
}

var space = Space{Name: "users", Seed: kv.NamespaceSeed(7, "users"), Bound: second}

func newRig(t testing.TB, size int64) *rig {
	t.Helper()
	g := &rig{t: t, Writer: new(Writer)}
	g.file = newFile(t, size)
	g.SetNamespace(3, space)
	g.region = g.Attach(g.file, 1, 2*second, all)
	g.Certify(0, start)
	g.r = mapped(t, g.file)
	g.view, _ = g.r.Find("users")
	return g
}

func newFile(t testing.TB, size int64) *File {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	testenv.Must(t, errors.Join(os.WriteFile(socket, nil, 0o600), os.Chmod(socket, 0o620)))
	f, err := Create(socket, size)
	testenv.Must(t, err)
	t.Cleanup(func() { _ = f.Remove() })
	sockets[f] = socket
	return f
}

func mapped(t testing.TB, f *File) *Reader {
	t.Helper()
	file, err := f.Open()
	testenv.Must(t, err)
	defer file.Close()
	r, err := Map(file)
	testenv.Must(t, err)
	return r
}

func (g *rig) entry(key, value string) *Entry {
	k := kv.Key{Hash: kv.HashKey(space.Seed, []byte(key)), Namespace: 3, Bytes: []byte(key)}
	return &Entry{Key: k, Value: []byte(value), Facts: kv.Facts{Version: 9, Attributes: kv.Attributes{Flags: 5}}, Taken: g.Take(3, k.Hash)}
}

func (g *rig) publish(key, value string) *Entry {
	g.t.Helper()
	e := g.entry(key, value)
	if !g.Publish(g.region, e, yes) {
		g.t.Fatalf("%s was not published", key)
	}
	return e
}

func (g *rig) get(key string, now time.Duration) (Found, bool) {
	f, ok, _ := g.r.Get(&g.view, g.view.Hash([]byte(key)), []byte(key), now)
	return f, ok
}

func (g *rig) expect(key, value string, now time.Duration) {
	g.t.Helper()
	switch f, ok := g.get(key, now); {
	case ok != (value != ""):
		g.t.Fatalf("%s at %v: served %v", key, now, ok)
	case ok && (string(f.Value) != value || f.Flags != 5 || f.Version != 9):
		g.t.Fatalf("%s: %+v", key, f)
	}
}

func TestServed(t *testing.T) {
	g := newRig(t, MinSize)
	g.publish("a", "one")
	g.expect("a", "one", start)
	g.expect("a", "one", start-2*time.Millisecond)
	g.expect("a", "", start-3*time.Millisecond) // another clock
	g.expect("a", "one", start+2*second-3*time.Millisecond)
	g.expect("a", "", start+2*second-2*time.Millisecond) // the bound, less the clocks' error
	g.expect("b", "", start)
	g.publish("a", "two")
	g.expect("a", "two", start)
	g.RevokeOwner(0)
	g.expect("a", "", start)
	g.expect("a", "", second) // soon after the machine has started
}

func TestNotServed(t *testing.T) {
	set := kv.NewPartitionSet(kv.Partitions)
	set.Add(kv.HashKey(space.Seed, []byte("a")).Partition())
	for name, change := range map[string]func(*rig){
		"withdrawn":        func(g *rig) { g.Withdraw(g.entry("a", "").Key.Hash) },
		"a partition":      func(g *rig) { g.RaisePartitions(set) },
		"a namespace":      func(g *rig) { g.EndNamespace(3) },
		"another's slot":   func(g *rig) { g.SetNamespace(3, Space{Name: "others", Bound: second}) },
		"the slot anew":    func(g *rig) { g.SetNamespace(3, Space{}); g.SetNamespace(3, space) },
		"not shared":       func(g *rig) { g.SetNamespace(3, Space{}) },
		"revoked":          func(g *rig) { g.Revoke() },
		"ended":            func(g *rig) { g.End(g.region) },
		"another's bound":  func(g *rig) { g.Renew(0, start, 1) },
		"the next sidecar": func(g *rig) { _, _ = EndOthers(sockets[g.file]) },
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, MinSize)
			late := g.entry("a", "late") // its generations are taken before the change
			g.publish("a", "one")
			g.expect("a", "one", start)
			change(g)
			g.expect("a", "", start)
			if name != "withdrawn" && name != "revoked" && name != "another's bound" { // for these, still says no
				g.Publish(g.region, late, yes)
				g.Certify(0, start)
				g.expect("a", "", start)
			}
		})
	}
}

var sockets = map[*File]string{} // of newFile

// An owner's values are bounded by the namespace, and a deadline ends a value early.
func TestBounds(t *testing.T) {
	g := newRig(t, MinSize)
	e := g.entry("a", "one")
	e.Owner, e.Ends = 7, start+second/2
	g.Publish(g.region, e, yes)
	g.expect("a", "", start)
	g.Certify(7, start)
	g.expect("a", "one", start)
	g.expect("a", "one", start+second/2-3*time.Millisecond)
	g.expect("a", "", start+second/2-2*time.Millisecond)
	e = g.entry("b", "two")
	e.Owner = 7
	g.Publish(g.region, e, yes)
	g.expect("b", "two", start+second-3*time.Millisecond)
	g.expect("b", "", start+second-2*time.Millisecond)
	g.SetNamespace(3, Space{Name: space.Name, Seed: space.Seed, Bound: second / 2})
	g.expect("b", "", start+second/2)
	g.Renew(7, start, start+second)
	g.expect("b", "two", start+second)
	g.Renew(7, start, start+2*second) // another one stands there
	g.Certify(7, start)               // a later one does
	g.expect("b", "", start+2*second)
	e = g.entry("none", "")
	e.Kind = kv.Absent
	g.Publish(g.region, e, yes)
	if f, ok := g.get("none", start); !ok || f.Kind != kv.Absent || len(f.Value) != 0 {
		t.Fatalf("%+v %v", f, ok)
	}
}

// A publisher that finds the value outdated leaves no bytes of it, nor does a withdrawal.
func TestErased(t *testing.T) {
	g := newRig(t, MinSize)
	if g.Publish(g.region, g.entry("a", "refused value"), func() bool { return false }) {
		t.Fatal("published")
	}
	g.publish("a", "replaced value")
	g.publish("a", "withdrawn value")
	g.Withdraw(g.entry("a", "").Key.Hash)
	for _, s := range []string{"refused", "replaced", "withdrawn"} {
		if bytes.Contains(g.r.mem, []byte(s)) {
			t.Errorf("the %s value is still there", s)
		}
	}
	if s := g.Stats(); s.Published != 2 || s.Refused != 1 || s.Withdrawn != 1 {
		t.Errorf("%+v", s)
	}
}

// What a writer learns before it has a region holds in the region.
func TestAttachedLater(t *testing.T) {
	g := newRig(t, MinSize)
	before := g.entry("a", "one")
	h := before.Key.Hash
	set := kv.NewPartitionSet(kv.Partitions)
	set.Add(h.Partition())
	g.End(g.region)
	g.RaisePartitions(set)
	g.file = newFile(t, MinSize)
	g.region = g.Attach(g.file, 2, 2*second, all)
	g.r = mapped(t, g.file)
	g.view, _ = g.r.Find("users")
	g.Publish(g.region, before, yes)
	g.expect("a", "", start)
	g.publish("a", "two")
	g.expect("a", "two", start)
}

// valued returns a value that names its key and has a checksum.
func valued(key string, n int) []byte {
	return summed(append([]byte(key+"="), bytes.Repeat([]byte{byte(n)}, n)...))
}

// summed returns a value with a checksum behind it.
func summed(v []byte) []byte { return binary.LittleEndian.AppendUint32(v, crc32.ChecksumIEEE(v)) }

func sound(key string, v []byte) bool {
	if len(v) < 4 || !bytes.HasPrefix(v, []byte(key+"=")) {
		return false
	}
	return crc32.ChecksumIEEE(v[:len(v)-4]) == binary.LittleEndian.Uint32(v[len(v)-4:])
}

// Readers beside a writer at full speed find whole values of their keys, or nothing.
func TestTorn(t *testing.T) {
	testenv.Takes(t, time.Second)
	g := newRig(t, MinSize)
	keys := make([]string, 3000)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%d", i)
	}
	var stop atomic.Bool
	var hits atomic.Int64
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for !stop.Load() {
				key := keys[rand.IntN(len(keys))]
				if f, ok := g.get(key, start); ok {
					hits.Add(1)
					if !sound(key, f.Value) {
						t.Errorf("%s: %q", key, f.Value)
						return
					}
				}
			}
		})
	}
	n := 60_000
	if testenv.Long() {
		n = 200_000
	}
	for i := range rounds(n) {
		key := keys[i%len(keys)]
		size := rand.IntN(300)
		if i%100 == 0 {
			size = rand.IntN(MaxValue - 100)
		}
		e := g.entry(key, string(valued(key, size)))
		g.Publish(g.region, e, yes)
		if i%3 == 0 {
			g.Withdraw(e.Key.Hash)
		}
	}
	stop.Store(true)
	group.Wait()
	if hits.Load() == 0 {
		t.Error("no hits")
	}
	t.Logf("%d hits", hits.Load())
}

// rounds returns how often a race is run: the race detector makes each round a tenth as fast.
func rounds(n int) int {
	if race.Enabled {
		return n / 10
	}
	return n
}

// A change that is noted is never served after its withdrawal has returned, whatever is
// published meanwhile.
func TestWithdrawnForGood(t *testing.T) {
	g := newRig(t, MinSize)
	var noted atomic.Uint64 // the last change
	var done atomic.Bool
	var group sync.WaitGroup
	h := g.entry("a", "").Key.Hash
	for range 2 {
		group.Go(func() {
			for !done.Load() {
				e := g.entry("a", "")
				version := noted.Load()
				e.Value = binary.LittleEndian.AppendUint64(nil, version)
				g.Publish(g.region, e, func() bool { return noted.Load() == version })
			}
		})
	}
	served := 0
	for n := range uint64(rounds(300_000)) {
		noted.Store(n)
		g.Withdraw(h)
		for range 8 {
			if f, ok := g.get("a", start); ok {
				served++
				if v := binary.LittleEndian.Uint64(f.Value); v < n {
					t.Fatalf("change %d was noted and withdrawn, %d is served", n, v)
				}
			}
		}
	}
	done.Store(true)
	group.Wait()
	if served == 0 {
		t.Error("nothing was served")
	}
	t.Logf("served %d times", served)
}

// The ring goes around many times, and the newest entries are there.
func TestAround(t *testing.T) {
	g := newRig(t, MinSize)
	for i := range 50_000 {
		key := fmt.Sprintf("k%d", i)
		g.publish(key, key+string(bytes.Repeat([]byte{'x'}, i%777)))
		if i >= 5 {
			back := fmt.Sprintf("k%d", i-5)
			g.expect(back, back+string(bytes.Repeat([]byte{'x'}, (i-5)%777)), start)
		}
	}
	g.expect("k0", "", start)
}

func TestAllocations(t *testing.T) {
	g := newRig(t, MinSize)
	g.publish("a", "one")
	key := []byte("a")
	h := g.view.Hash(key)
	testenv.Allocates(t, "a hit", 1, 1000, func() { g.r.Get(&g.view, h, key, start) })
	e := g.entry("a", "one")
	testenv.Allocates(t, "to publish and withdraw", 0, 1000, func() {
		g.Publish(g.region, e, yes)
		g.Withdraw(h)
	})
}

func BenchmarkHit(b *testing.B) {
	g := newRig(b, 32<<20)
	g.publish("user:1234567890", string(make([]byte, 100)))
	key := []byte("user:1234567890")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, _ := g.r.Get(&g.view, g.view.Hash(key), key, start); !ok {
			b.Fatal("no hit")
		}
	}
}

// FuzzRegion reads mutated regions: nothing faults, and what is served has the right
// checksum over the right key.
func FuzzRegion(f *testing.F) {
	g := newRig(f, MinSize)
	for i := range 50 {
		key := fmt.Sprintf("key-%d", i)
		g.publish(key, string(valued(key, i*10)))
	}
	good := bytes.Clone(g.r.mem)
	region := wordsAsBytes(make([]uint64, len(good)/8)) // aligned
	copy(region, good)
	f.Add([]byte{}, uint16(0))
	f.Add([]byte{0, 0, 0, 24, 255}, uint16(3))
	f.Fuzz(func(t *testing.T, edits []byte, n uint16) {
		defer func(edits []byte) {
			for ; len(edits) >= 5; edits = edits[5:] {
				at := int(binary.BigEndian.Uint32(edits)) % len(region)
				region[at] = good[at]
			}
		}(edits)
		for ; len(edits) >= 5; edits = edits[5:] {
			at := int(binary.BigEndian.Uint32(edits)) % len(region)
			region[at] = edits[4]
		}
		r, err := NewReader(region)
		if err != nil {
			return
		}
		view, ok := r.Find("users")
		if !ok {
			return
		}
		key := fmt.Sprintf("key-%d", n%50)
		found, ok, _ := r.Get(&view, kv.HashKey(space.Seed, []byte(key)), []byte(key), start)
		if ok && !sound(key, found.Value) {
			t.Errorf("%s: %q", key, found.Value)
		}
	})
}
