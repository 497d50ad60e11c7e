package engine_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// TestDeleteBeforeSlot checks the acknowledged deletion of a key whose namespace had no
// slot here. The deletion removes an entry that was handed over after the deletion had
// looked the namespace up, and keeps out an entry that comes after the deletion.
func TestDeleteBeforeSlot(t *testing.T) {
	h := onehost.New(t, onehost.Config{})
	all := kv.NewPartitionSet(kv.Partitions)
	generations := map[uint16]uint16{}
	for p := range uint16(kv.Partitions) {
		all.Add(p)
		generations[p] = h.Store.Generation(p)
	}
	ballot := &kv.Ballot{Clock: 1, Process: h.Node.Self()}
	src := &handoff.Source{From: kv.Process{Node: "a", Epoch: 1}, Ballot: *ballot, Partitions: all, Generations: generations}
	for p := range all.All() {
		h.Handoff.Incoming[p].Store(src)
	}
	now := h.Clock.Read()
	asOf := h.HLC.Next(now.Wall)
	comes := func(name string) bool {
		e := wire.Entry{Namespace: name, Key: []byte("k"), Value: []byte("old"), Version: uint64(asOf - 1)}
		return h.Handoff.Restore(src, &e, asOf, now) == segment.Stored
	}
	for _, name := range []string{"before", "after"} {
		looked, err := namespaces.New(namespaces.Config{Clock: h.Clock}, namespaces.Parts{}) // as the deletion finds it
		testenv.Must(t, err)
		if name == "before" && !comes(name) {
			t.Fatal("the entry was refused")
		}
		b := namespaces.Pins{Table: looked}
		q := &wire.Request{Op: wire.OpDelete, Namespace: []byte(name)}
		asked := h.Node.OwnershipEpoch(h.Namespaces.Hash(q.Namespace, []byte("k")).Partition())
		if r := h.Engine.Local.Delete(q, []byte("k"), &b, h.Clock.Read(), asked); r.Status != wire.Miss || r.Version == 0 {
			t.Errorf("%s: %s, version %d", name, r.Status, r.Version)
		}
		if name == "after" && comes(name) {
			t.Error("an entry from before the deletion came in after it")
		}
		key := h.Namespaces.Lookup([]byte(name)).Key([]byte("k"))
		if _, there := h.Store.Peek(key, h.Clock.Read().Boot); there {
			t.Errorf("an entry that came %s the deletion was acknowledged is there", name)
		}
	}
}

// TestSoftDelete checks that the value of a softly deleted key goes only to readers that
// ask for it, marked as stale. It goes to no reader after its time, or after another
// change of the key.
func TestSoftDelete(t *testing.T) {
	const limit = 50 * time.Millisecond
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		h := onehost.New(t, onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) { s.StaleLimit = limit })})
		do := by(h)
		for name, value := range map[string][]byte{"short": []byte("value"), "a chain of segments": make([]byte, 300<<10)} {
			for gone, f := range map[string]func(){
				"time":    func() { time.Sleep(limit - 10*time.Millisecond) }, // 10 ms have passed
				"delete":  func() { h.Delete("k", 0) },
				"set":     func() { h.Set("k", "x"); h.Delete("k", 0) },
				"flush":   func() { h.Do(wire.Request{Op: wire.OpFlush}) },
				"by none": func() { time.Sleep(limit - 11*time.Millisecond) },
			} {
				do(wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: value, Attributes: kv.Attributes{Flags: 7}, TTLMS: wire.TTLDefault})
				if r := h.Delete("k", wire.Soft); r.Status != wire.OK {
					t.Fatalf("soft deletion: %s", r.Status)
				}
				time.Sleep(10 * time.Millisecond)
				if r := do.get("k", 0); r.Status != wire.Miss {
					t.Errorf("%s, without the option: %s", name, r.Status)
				}
				r := do.get("k", wire.StaleOK)
				if r.Status != wire.Stale || !bytes.Equal(r.Value, value) || r.Flags != 7 || r.AgeMS != 10 || r.TTLMS != 40 {
					t.Errorf("%s: %s with %d bytes, flags %d, age %d ms, ttl %d ms", name, r.Status, len(r.Value), r.Flags, r.AgeMS, r.TTLMS)
				}
				many := do(wire.Request{Op: wire.OpMGet, Keys: [][]byte{[]byte("k"), []byte("none")}, Options: wire.StaleOK}).Items
				if many[0].Status != wire.Stale || !bytes.Equal(many[0].Value, value) || many[1].Status != wire.Miss {
					t.Errorf("%s: MGET: %+v", name, many[1])
				}
				f()
				want := wire.Miss
				if gone == "by none" {
					want = wire.Stale
				}
				if r := do.get("k", wire.StaleOK); r.Status != want {
					t.Errorf("%s, gone by %s: %s", name, gone, r.Status)
				}
			}
		}
	})
}

// TestNamespaceSettings checks the TTL and the quota of namespaces.
func TestNamespaceSettings(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		minute, forever, small := onehost.Settings(), onehost.Settings(), onehost.Settings()
		minute.TTL, forever.TTL, small.Quota = time.Minute, 0, 64<<10
		h := onehost.New(t, onehost.Config{Namespaces: map[string]namespaces.Settings{
			"minute": minute, "forever": forever, "small": small,
		}})
		for ns, want := range map[string]int64{"minute": 60_000, "forever": 0, "unconfigured": 3600_000} {
			h.Do(wire.Request{Op: wire.OpSet, Namespace: []byte(ns), Key: []byte("k"), TTLMS: wire.TTLDefault})
			if r := h.Do(wire.Request{Op: wire.OpGet, Namespace: []byte(ns), Key: []byte("k")}); r.TTLMS != want {
				t.Errorf("namespace %s: TTL %d ms, want %d", ns, r.TTLMS, want)
			}
		}
		set := func(key string, size int) wire.Reply {
			return h.Do(wire.Request{Op: wire.OpSet, Namespace: []byte("small"), Key: []byte(key), Value: make([]byte, size)})
		}
		for i := range 2000 {
			set(fmt.Sprint("k", i), 100)
		}
		if r := set("k", 65<<10); r.Status != wire.TooLarge || !bytes.Contains(r.Message, []byte("quota of 64 KiB")) {
			t.Errorf("a value above the quota: %s %s", r.Status, r.Message)
		}
		for _, ns := range h.Namespaces.Stats() {
			if ns.Name == "small" && (ns.Bytes > 64<<10 || ns.Entries < 300 || ns.Quota != 64<<10) {
				t.Errorf("%+v", ns)
			}
		}
	})
}

// TestNamespaceSlots checks that a name too many is refused while the names in use
// continue. A name without keys makes room for another.
func TestNamespaceSlots(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := onehost.New(t, onehost.Config{MaxNamespaces: 4, Namespaces: map[string]namespaces.Settings{"kept": onehost.Settings()}})
		set := func(ns string) wire.Reply {
			return h.Do(wire.Request{Op: wire.OpSet, Namespace: []byte(ns), Key: []byte("k"), Value: []byte(ns), TTLMS: wire.TTLDefault})
		}
		get := func(ns string) wire.Reply {
			return h.Do(wire.Request{Op: wire.OpGet, Namespace: []byte(ns), Key: []byte("k")})
		}
		for _, ns := range []string{"one", "two"} { // "default" and "kept" have two
			onehost.Is(t, ns, set(ns), wire.OK, "")
		}
		for i := range 1000 {
			if r := set(fmt.Sprint("more", i)); r.Status != wire.BadRequest ||
				!bytes.Contains(r.Message, []byte("4 are in use, which is max_namespaces")) {
				t.Fatalf("%s %s", r.Status, r.Message)
			}
			get(fmt.Sprint("read", i)) // takes no slot
		}
		h.Do(wire.Request{Op: wire.OpDelete, Namespace: []byte("two"), Keys: [][]byte{[]byte("k")}})
		time.Sleep(2 * namespaces.SearchEvery) // a full table is searched only so often
		onehost.Is(t, "in the place of an empty one", set("three"), wire.OK, "")
		onehost.Is(t, "one", get("one"), wire.OK, "one")
		onehost.Is(t, "two", get("two"), wire.Miss, "")
		onehost.Is(t, "three", get("three"), wire.OK, "three")
		onehost.Is(t, "a configured namespace", set("kept"), wire.OK, "")
	})
}

// TestNamespaceSlotsChurn checks that no read returns what was written under another name,
// while names come and go under load.
func TestNamespaceSlotsChurn(t *testing.T) {
	h := onehost.New(t, onehost.Config{MaxNamespaces: 6})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 2000 {
				ns := fmt.Append(nil, "n", (g+i)%8)
				q := wire.Request{Namespace: ns, Key: []byte("k"), Value: ns, TTLMS: wire.TTLDefault}
				q.Op = wire.OpSet
				if r := h.Do(q); r.Status != wire.OK && !bytes.Contains(r.Message, []byte("max_namespaces")) {
					t.Error(r.Err())
				}
				q.Op = wire.OpGet
				if r := h.Do(q); r.Status == wire.OK && !bytes.Equal(r.Value, ns) {
					t.Errorf("%s has the value of %s", ns, r.Value)
				} else if r.Status != wire.OK && r.Status != wire.Miss {
					t.Error(r.Err())
				}
				q.Op, q.Keys = wire.OpDelete, [][]byte{q.Key}
				if r := h.Do(q); r.Items[0].Status.IsError() {
					t.Error(r.Items[0].Err())
				}
			}
		})
	}
	wg.Wait()
}

// TestDeleteReusesItems checks that deletions of many keys, one after the other, leave no garbage for each key, and
// that no outcome is one of before.
func TestDeleteReusesItems(t *testing.T) {
	h := onehost.New(t, onehost.Config{})
	h.Set("b", "value")
	pins := namespaces.Pins{Table: h.Namespaces}
	defer pins.Release()
	var r wire.Reply
	remove := func(keys ...string) (outcomes []wire.Status, array *wire.Reply) {
		q := &wire.Request{Op: wire.OpDelete, Namespace: []byte(namespaces.Default)}
		for _, key := range keys {
			q.Keys = append(q.Keys, []byte(key))
		}
		h.ExecuteTo(q, &pins, h.Engine.Clock.Read(), 0, &r)
		for i := range r.Items {
			outcomes = append(outcomes, r.Items[i].Status)
		}
		return outcomes, &r.Items[0]
	}
	first, at := remove("a", "b", "")
	again, atAgain := remove("b", "a")
	if want := []wire.Status{wire.Miss, wire.OK, wire.BadRequest}; !slices.Equal(first, want) {
		t.Errorf("the outcomes are %v, want %v", first, want)
	}
	if want := []wire.Status{wire.Miss, wire.Miss}; !slices.Equal(again, want) || at != atAgain {
		t.Errorf("the next outcomes are %v, want %v; in the same array: %v", again, want, at == atAgain)
	}
}
