package engine_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

func (do asks) set(key, value string) wire.Reply {
	return do(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte(value), TTLMS: wire.TTLDefault})
}

// writing returns a host whose default namespace writes through to an origin.
func writing(t *testing.T, o *onehost.Origin, change func(*namespaces.Settings)) *onehost.Host {
	return loading(t, o, func(s *namespaces.Settings) {
		s.Origin, s.WriteThrough = o.Writable(), true
		if change != nil {
			change(s)
		}
	})
}

// TestWriteThrough checks that a write is in the origin when it is acknowledged, and in
// the cache.
func TestWriteThrough(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		o := onehost.NewOrigin(5 * time.Millisecond)
		h := writing(t, o, func(s *namespaces.Settings) { s.KeyPattern = "k.*" })
		do := by(h)
		if r := do.set("k", "value"); r.Status != wire.OK || r.Version == 0 {
			t.Errorf("SET: %s %s", r.Status, r.Message)
		}
		if got := o.Row("k"); got != "value" {
			t.Errorf("the origin has %q", got)
		}
		onehost.Is(t, "after SET", do.get("k", 0), wire.OK, "value")
		if n := o.Asked("k"); n != 0 {
			t.Errorf("%d loads of what was just written", n)
		}
		// Requests that the origin cannot execute.
		for name, q := range map[string]wire.Request{
			"ADD":  {Op: wire.OpSet, Mode: wire.ModeAdd},
			"CAS":  {Op: wire.OpSet, Mode: wire.ModeCAS, Compare: 1},
			"INCR": {Op: wire.OpIncr, Delta: 1, Create: true},
			"FILL": {Op: wire.OpFill, Token: []byte("t")},
			"key":  {Op: wire.OpSet, Key: []byte("not matched")},
		} {
			if q.Key == nil {
				q.Key = []byte("k")
			}
			if r := do(q); r.Status != wire.BadRequest || len(r.Message) == 0 {
				t.Errorf("%s: %s %s, want BAD_REQUEST", name, r.Status, r.Message)
			}
		}
		if r := do(wire.Request{Op: wire.OpTouch, Key: []byte("k"), TTLMS: 5000}); r.Status != wire.OK {
			t.Errorf("TOUCH: %s %s", r.Status, r.Message)
		}
		deleteMany(t, o, do)
		// A soft deletion only makes the value stale.
		soft := do(wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte("k")}, Options: wire.Soft})
		if soft.Items[0].Status != wire.OK || o.Row("k") == "" {
			t.Errorf("soft DELETE: %s, and the origin has %q", soft.Items[0].Status, o.Row("k"))
		}
		onehost.Is(t, "after a soft DELETE", do.get("k", 0), wire.OK, "value")
		if h.Namespaces.Lookup([]byte(namespaces.Default)).WriteThrough.Busy() {
			t.Error("keys are still written")
		}
	})
}

// deleteMany deletes many keys in one request, which must not take turns at the origin.
func deleteMany(t *testing.T, o *onehost.Origin, do asks) {
	t.Helper()
	q := wire.Request{Op: wire.OpDelete}
	for i := range 30 {
		q.Keys = append(q.Keys, fmt.Append(nil, "k", i))
		do.set(fmt.Sprint("k", i), "value")
	}
	q.Keys = append(q.Keys, []byte("not matched"), []byte("knone"))
	began := time.Now()
	for i, r := range do(q).Items {
		want := wire.OK
		switch i {
		case 30:
			want = wire.BadRequest
		case 31:
			want = wire.Miss
		}
		if r.Status != want || want == wire.OK && r.Version == 0 {
			t.Errorf("DELETE of key %d: %s %s, want %s", i, r.Status, r.Message, want)
		}
	}
	if took := time.Since(began); took > 60*time.Millisecond {
		t.Errorf("30 deletions took %v: one after the other", took)
	}
	for i := range 30 {
		key := fmt.Sprint("k", i)
		if got := o.Row(key); got != "" {
			t.Errorf("%s is %q in the origin after DELETE", key, got)
		}
		onehost.Absent(t, key, do.get(key, 0))
	}
}

// TestRemovalLeavesOrigin removes values from the cache alone. For the cache that is a change
// like a deletion, with its conditions and its load barrier; the origin keeps its rows.
func TestRemovalLeavesOrigin(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		o := onehost.NewOrigin(5 * time.Millisecond)
		h := writing(t, o, func(s *namespaces.Settings) { s.ReplicaLag = time.Second })
		do := by(h)
		remove := func(compare uint64, keys ...string) wire.Reply {
			q := wire.Request{Op: wire.OpDelete, Options: wire.CacheOnly, Compare: compare}
			for _, key := range keys {
				q.Keys = append(q.Keys, []byte(key))
			}
			return do(q)
		}
		is := func(what string, r wire.Reply, want wire.Status) {
			t.Helper()
			if r.Status != want || want == wire.OK && r.Version == 0 {
				t.Errorf("%s: %s %s, version %d, want %s", what, r.Status, r.Message, r.Version, want)
			}
		}
		version := do.set("k", "one").Version
		o.Put("k", []byte("two"))
		is("another version", remove(version+1, "k").Items[0], wire.Exists)
		onehost.Is(t, "after nothing was done", do.get("k", 0), wire.OK, "one")
		r := remove(version, "k").Items[0]
		if is("its version", r, wire.OK); r.Version <= version {
			t.Errorf("the removal of version %d has version %d", version, r.Version)
		}
		onehost.Is(t, "the row", do.get("k", 0), wire.OK, "two")
		onehost.Is(t, "loaded within the replica lag", do.get("k", wire.NoLoad), wire.Miss, "")
		time.Sleep(time.Second)
		onehost.Is(t, "after the replica lag", do.get("k", 0), wire.OK, "two")
		do(wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte("k")}, Options: wire.Soft})
		items := remove(0, "k", "none").Items
		is("a stale value", items[0], wire.Miss)
		is("of many", items[1], wire.Miss)
		onehost.Is(t, "the stale value", do.get("k", wire.StaleOK|wire.NoLoad), wire.Miss, "")
		if row := o.Row("k"); row != "two" {
			t.Errorf("the origin has %q, want %q", row, "two")
		}
		if s := h.Namespaces.Lookup([]byte(namespaces.Default)).WriteThroughStats(); s.Stored != 1 {
			t.Errorf("%d writes were made at the origin, want the SET alone", s.Stored)
		}
	})
}

// TestWriteThroughUnknown checks writes that the origin may have executed, or has refused.
// The answer says so, and the next read gets the value from the origin.
func TestWriteThroughUnknown(t *testing.T) {
	broken := errors.New("connection reset")
	for _, tc := range []struct {
		name          string
		before, after error
		takes         time.Duration
		want          wire.Status
		there         string
	}{
		{"lost on its way", broken, nil, 0, wire.Timeout, "old"},
		{"its answer lost", nil, broken, 0, wire.Timeout, "new"},
		{"refused", fmt.Errorf("%w: a constraint", loader.ErrNotWritten), nil, 0, wire.Origin, "old"},
		{"a bad key", fmt.Errorf("%w: %w", loader.ErrNotWritten, loader.ErrBadKey), nil, 0, wire.BadRequest, "old"},
		{"too slow", nil, nil, 3 * time.Second, wire.Timeout, "old"},
		{"too slow to answer", nil, nil, 700 * time.Millisecond, wire.Timeout, "new"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
				o := onehost.NewOrigin(0)
				o.Commits(func(stored bool) error {
					if stored {
						return tc.after
					}
					return tc.before
				})
				do := by(writing(t, o, nil))
				o.Put("k", []byte("old"))
				onehost.Is(t, "before", do.get("k", 0), wire.OK, "old")
				o.TakesToWrite(tc.takes)
				var wg sync.WaitGroup
				if tc.takes > 0 { // a load meanwhile is not kept
					wg.Go(func() {
						time.Sleep(100 * time.Millisecond)
						onehost.Is(t, "meanwhile", do.get("k", 0), wire.OK, "old")
					})
				}
				if r := do.set("k", "new"); r.Status != tc.want || len(r.Message) == 0 {
					t.Errorf("SET: %s %s, want %s", r.Status, r.Message, tc.want)
				}
				wg.Wait()
				if got := o.Row("k"); got != tc.there {
					t.Fatalf("the origin has %q, want %q", got, tc.there)
				}
				onehost.Is(t, "after", do.get("k", 0), wire.OK, tc.there)
			})
		})
	}
}

// TestWriteThroughAgainstLoads checks that a load that reads the value from before a write
// is not kept, whether it ends during the write or after it.
func TestWriteThroughAgainstLoads(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for _, ends := range []time.Duration{50 * time.Millisecond, 400 * time.Millisecond} {
			t.Run(fmt.Sprintf("lost %v, ends after %v", lost, ends), func(t *testing.T) {
				byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
					o := onehost.NewOrigin(50 * time.Millisecond)
					o.TakesToWrite(150 * time.Millisecond)
					if lost {
						o.Commits(func(stored bool) error {
							if stored {
								return errors.New("connection reset")
							}
							return nil
						})
					}
					do := by(writing(t, o, nil))
					o.Put("k", []byte("old"))
					onehost.Is(t, "before", do.get("k", 0), wire.OK, "old")
					var wg sync.WaitGroup
					wg.Go(func() { do.set("k", "new") })
					time.Sleep(50 * time.Millisecond)
					onehost.Is(t, "during the write, without a load", do.get("k", wire.NoLoad), wire.Miss, "")
					wg.Go(func() { // once the load has begun
						time.Sleep(10 * time.Millisecond)
						o.Takes(ends)
					})
					onehost.Is(t, "a load", do.get("k", 0), wire.OK, "old")
					if ends < 150*time.Millisecond {
						onehost.Is(t, "after the load, without one", do.get("k", wire.NoLoad), wire.Miss, "")
					}
					wg.Wait()
					if lost {
						onehost.Is(t, "after the write, without a load", do.get("k", wire.NoLoad), wire.Miss, "")
					} else {
						onehost.Is(t, "after the write", do.get("k", wire.NoLoad), wire.OK, "new")
					}
				})
			})
		}
	}
}

// TestWriteThroughBusy checks that a namespace's limits apply to writes, and that a write
// that is refused with BUSY has written nothing.
func TestWriteThroughBusy(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		o := onehost.NewOrigin(400 * time.Millisecond)
		do := by(writing(t, o, func(s *namespaces.Settings) {
			s.Guard = loader.GuardConfig{Concurrency: 1, Queue: 1, QueueTime: 100 * time.Millisecond}
		}))
		var wg sync.WaitGroup
		wg.Go(func() { onehost.Is(t, "the first", do.set("k", "one"), wire.OK, "") })
		time.Sleep(10 * time.Millisecond)
		for _, key := range []string{"k", "l"} {
			wg.Go(func() {
				r := do(wire.Request{
					Op: wire.OpSet, Key: []byte(key), Value: []byte("two"), TimeoutMS: 300, TTLMS: wire.TTLDefault,
				})
				if r.Status != wire.Busy || len(r.Message) == 0 {
					t.Errorf("%s: %s %s, want BUSY", key, r.Status, r.Message)
				}
			})
		}
		wg.Wait()
		if o.Row("k") != "one" || o.Row("l") != "" {
			t.Errorf("the origin has %q and %q", o.Row("k"), o.Row("l"))
		}
		onehost.Is(t, "after", do.get("k", 0), wire.OK, "one")
	})
}

// TestWriteThroughWriters checks that concurrent writers of one key leave the same value
// in the cache and in the origin.
func TestWriteThroughWriters(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o, random := onehost.NewOrigin(0), rand.New(rand.NewPCG(1, 2))
		h := writing(t, o, nil)
		for round := range 20 {
			key := fmt.Sprint("k", round)
			var wg sync.WaitGroup
			for i := range 9 {
				do := asks(h.Do)
				if i%2 == 0 {
					do = h.DoPeer
				}
				begins := time.Duration(random.IntN(50)) * time.Millisecond
				wg.Go(func() {
					time.Sleep(begins)
					o.Takes(begins / 3)
					switch {
					case i%3 == 2:
						do.get(key, 0)
					case i == 0:
						do(wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte(key)}})
					default:
						onehost.Is(t, "SET", do.set(key, fmt.Sprint("value", i)), wire.OK, "")
					}
				})
			}
			wg.Wait()
			if r := h.Get(key, 0); string(r.Value) != o.Row(key) {
				t.Errorf("%s: %s %q, and the origin has %q", key, r.Status, r.Value, o.Row(key))
			}
		}
	})
}
