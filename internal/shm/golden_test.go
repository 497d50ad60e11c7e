package shm

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var update = flag.Bool("update", false, "write the golden regions")

// goldenRead is a read of a golden region, and what it must find. Clients in other languages
// do the same reads: see testdata/regions/reads.json.
type goldenRead struct {
	Region    string        `json:"region"` // the name of a file, without .gz
	Namespace string        `json:"namespace"`
	Now       time.Duration `json:"now"` // ns
	Key       string        `json:"key"`
	// "refused": the file is no region; "gone": the namespace is not there; "miss",
	// "absent", or "hit" with the rest.
	Want    string `json:"want"`
	Version uint64 `json:"version,omitempty"`
	Flags   uint32 `json:"flags,omitempty"`
	Length  int    `json:"length,omitempty"`
	Sum     string `json:"sum,omitempty"` // xxh3 of the value, seed 0, hexadecimal
}

// goldenWriter fills a region with entries that do not depend on anything but this code.
func goldenWriter(t *testing.T) (mem memory, keys []string) {
	mem = memory(wordsAsBytes(make([]uint64, MinSize/8)))
	mem.word(atID).Store(7)
	w := new(Writer)
	w.SetNamespace(3, space)
	w.SetNamespace(200, Space{Name: strings.Repeat("n", kv.MaxNamespaceLen), Seed: 5, Bound: second})
	r := w.Attach(&File{mem: mem}, 11, 2*second, all)
	w.Certify(0, start)
	w.Certify(9, start)
	for i, key := range []string{
		"a", "user:42", "of-another-owner", "ends", "none", "empty", "long-value", strings.Repeat("k", kv.MaxKeyLen),
	} {
		k := kv.Key{Hash: kv.HashKey(space.Seed, []byte(key)), Namespace: 3, Bytes: []byte(key)}
		e := &Entry{
			Key: k, Value: bytes.Repeat([]byte{byte(i)}, 10*i), Facts: kv.Facts{Version: kv.Version(1000 + i), Attributes: kv.Attributes{Flags: uint32(i)}},
			Taken: w.Take(3, k.Hash),
		}
		switch key {
		case "of-another-owner":
			e.Owner = 9
		case "ends":
			e.Ends = start + second/2
		case "none":
			e.Kind, e.Value = kv.Absent, nil
		case "empty":
			e.Value = nil
		case "long-value":
			e.Value = bytes.Repeat([]byte("0123456789abcdef"), MaxValue/16)
		}
		if !w.Publish(r, e, yes) {
			t.Fatal(key)
		}
		keys = append(keys, key)
	}
	r.Count()
	return mem, keys
}

// goldenRegions returns the golden regions: one that is right, and copies of it with one
// thing wrong.
func goldenRegions(t *testing.T) (regions map[string]memory, keys []string) {
	good, keys := goldenWriter(t)
	s := shapeOf(int64(len(good)))
	slot := func(m memory, key string) int {
		h := kv.HashKey(space.Seed, []byte(key))
		for i := range slotsIn {
			if at := s.atSlot(s.bucket(h), i); m.word(at).Load()>>posBits == uint64(tagOf(h)) {
				return at
			}
		}
		t.Fatalf("%s is not in the index", key)
		return 0
	}
	entry := func(m memory, key string) int { return s.atLine(m.word(slot(m, key)).Load() & posMask) }
	regions = map[string]memory{"good": good}
	for name, change := range map[string]func(m memory){
		"torn":           func(m memory) { m[entry(m, "user:42")+headSize+len("user:42")]++ },
		"closed":         func(m memory) { m.word(atState).Store(Closed) },
		"lapsed":         func(m memory) { m.word(atOwners).Store(1) },
		"uncertified":    func(m memory) { m.word(atOwners).Store(0) },
		"overwritten":    func(m memory) { m.word(atTail).Store(1 << 47) },
		"partition":      func(m memory) { m.word(atParts + 8*int(kv.HashKey(space.Seed, []byte("user:42")).Partition())).Add(1) },
		"flushed":        func(m memory) { m.word(atNames + 3*nameSize + nsGeneration).Add(1) },
		"layout-2":       func(m memory) { m.word(atLayout).Store(2) },
		"magic":          func(m memory) { m.word(atMagic).Store(1) },
		"hostile-sizes":  func(m memory) { m.word(atLines).Store(1 << 33) },
		"hostile-owner":  func(m memory) { order.PutUint32(m[entry(m, "user:42")+enOwner:], 1<<31) },
		"hostile-length": func(m memory) { order.PutUint32(m[entry(m, "user:42")+enValueLen:], 1<<32-1) },
		"hostile-place":  func(m memory) { m.word(slot(m, "user:42")).Add(1<<posBits - 2) },
		"hostile-name":   func(m memory) { m.word(atNames + 3*nameSize + nsNameLen).Store(1 << 63) },
	} {
		regions[name] = copied(good)
		change(regions[name])
	}
	return regions, keys
}

// copied returns an aligned copy.
func copied(m memory) memory {
	c := memory(wordsAsBytes(make([]uint64, len(m)/8)))
	copy(c, m)
	return c
}

// read does a read in a region.
func (g *goldenRead) read(m memory) {
	g.Want, g.Version, g.Flags, g.Length, g.Sum = "refused", 0, 0, 0, ""
	r, err := NewReader(m)
	if err != nil {
		return
	}
	g.Want = "gone"
	v, ok := r.Find(g.Namespace)
	if !ok {
		return
	}
	f, ok, gone := r.Get(&v, v.Hash([]byte(g.Key)), []byte(g.Key), g.Now)
	switch {
	case gone:
	case !ok:
		g.Want = "miss"
	case f.Kind == kv.Absent:
		g.Want = "absent"
	default:
		g.Want, g.Version, g.Flags, g.Length = "hit", uint64(f.Version), f.Flags, len(f.Value)
		g.Sum = fmt.Sprintf("%016x", xxh3.Hash(f.Value))
	}
}

// TestGoldenRegions holds the regions, and what is read in them, to the files. With -update
// it writes them.
func TestGoldenRegions(t *testing.T) {
	regions, keys := goldenRegions(t)
	dir := filepath.Join("testdata", "regions")
	var reads []goldenRead
	add := func(region, namespace, key string, now time.Duration) string {
		g := goldenRead{Region: region, Namespace: namespace, Key: key, Now: now}
		g.read(regions[region])
		reads = append(reads, g)
		return g.Want
	}
	for _, key := range append(keys, "never-written") {
		for _, now := range []time.Duration{
			start - 3*time.Millisecond, start, start + second/2, start + second, start + 2*second,
		} {
			add("good", "users", key, now)
		}
	}
	add("good", strings.Repeat("n", kv.MaxNamespaceLen), "a", start)
	add("good", "others", "a", start)
	for _, name := range slices.Sorted(maps.Keys(regions)) {
		add(name, "users", "user:42", start)
		add(name, "users", "of-another-owner", start)
	}
	all := margins()
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		regions[name] = headers[name](copied(regions["good"]))
		all = append(all, stated{name, "users", "user:42", start, "refused"})
	}
	var forged []stated
	regions["forged"], forged = forgedRegion(t)
	for _, s := range append(all, forged...) {
		if got := add(s.region, s.namespace, s.key, s.now); got != s.want {
			t.Errorf("region %s, %s of %s at %v: %s, want %s", s.region, s.key, s.namespace, s.now, got, s.want)
		}
	}
	text, err := json.MarshalIndent(reads, "", "\t")
	testenv.Must(t, err)
	if *update {
		testenv.Must(t, os.MkdirAll(dir, 0o755))
		writeFile(t, filepath.Join(dir, "reads.json"), append(text, '\n'))
		for name, m := range regions {
			var b bytes.Buffer
			z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
			if _, err := z.Write(m); err != nil || z.Close() != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, name+".gz"), b.Bytes())
		}
	}
	want, err := os.ReadFile(filepath.Join(dir, "reads.json"))
	if err != nil || string(want) != string(text)+"\n" {
		t.Errorf("the reads differ from reads.json: if that is right, make golden (%v)", err)
	}
	for name, m := range regions {
		if !bytes.Equal(unzipped(t, filepath.Join(dir, name+".gz")), m) {
			t.Errorf("region %s differs from its file: if that is right, raise Layout, and make golden", name)
		}
	}
}

func writeFile(t *testing.T, path string, b []byte) {
	testenv.Must(t, os.WriteFile(path, b, 0o644))
}

func unzipped(t *testing.T, path string) []byte {
	f, err := os.Open(path)
	testenv.Must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	testenv.Must(t, err)
	b, err := io.ReadAll(z)
	testenv.Must(t, err)
	return b
}
