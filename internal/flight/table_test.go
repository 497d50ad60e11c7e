package flight

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// ofHash returns how many flights of a hash are in the table.
func (t *Table[F]) ofHash(h kv.Hash) int {
	b, ok := t.byHash[h]
	if !ok {
		return 0
	}
	return 1 + len(b.more)
}

// aFlight is a flight that only has a key.
type aFlight struct {
	key  kv.Key
	seen bool // the table's counter was raised when the flight began
}

func (f *aFlight) FlightKey() kv.Key { return f.key }

// TestTable checks that a table finds what was added to it, that its counter is raised
// before a flight is stamped, and that the counter is right after each removal.
func TestTable(t *testing.T) {
	var table Table[*aFlight]
	detached := 0
	table.Detached = func(*aFlight) { detached++ }
	add := func(h kv.Hash, ns kv.NamespaceID, name string) *aFlight {
		key := kv.Key{Hash: h, Namespace: ns, Bytes: []byte(name)}
		return table.Add(key, func() *aFlight { return &aFlight{key: key, seen: !table.None()} })
	}
	find := func(f *aFlight) bool {
		got, ok := table.Find(f.key, func(*aFlight) bool { return true })
		return ok && got == f
	}
	a, b, c := add(1, 1, "a"), add(1, 1, "b"), add(2, 2, "c")
	for _, f := range []*aFlight{a, b, c} {
		if !f.seen || !find(f) {
			t.Errorf("%s: counted before its stamp %v, found %v", f.key.Bytes, f.seen, find(f))
		}
	}
	if _, ok := table.Find(a.key, func(*aFlight) bool { return false }); ok {
		t.Error("a flight that is not the same is found")
	}
	table.Remove(a)
	table.Remove(a)
	if find(a) || !find(b) || detached != 0 {
		t.Errorf("after the first has ended: found %v and %v, %d detached", find(a), find(b), detached)
	}
	table.InvalidateIf(func(ns kv.NamespaceID, _ kv.Hash) bool { return ns == 2 })
	if find(c) || !find(b) || detached != 1 {
		t.Errorf("after DetachIf: found %v and %v, %d detached", find(c), find(b), detached)
	}
	add(1, 1, "d")
	table.Invalidate(1)
	if !table.None() || len(table.byHash) != 0 || detached != 3 {
		t.Errorf("after Detach: %d hashes, %d detached", len(table.byHash), detached)
	}
}

// TestTableAllocates checks that a table allocates nothing for the only flight of a hash.
func TestTableAllocates(t *testing.T) {
	var table Table[*aFlight]
	f := &aFlight{key: kv.Key{Hash: 1, Bytes: []byte("k")}}
	testenv.Allocates(t, "a flight", 0, 100, func() {
		table.Add(f.key, func() *aFlight { return f })
		table.Find(f.key, func(o *aFlight) bool { return o == f })
		table.Invalidate(1)
	})
}
