package hosts

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// TestKeptDeletedByVersion checks that a value stays away that a deletion with its version did not find at an heir.
func TestKeptDeletedByVersion(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w, keys := keptWorld(t, 50, true)
		v, heir := w.nodes[0], w.nodes[1]
		versions := map[string]uint64{}
		for _, key := range keys {
			r := v.raw(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte("lock"), TTLMS: wire.TTLDefault})
			versions[key] = r.Version
		}
		v.leave()
		time.Sleep(time.Second)
		w.evictAll()
		for _, key := range keys {
			r := heir.raw(wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte(key)}, Compare: versions[key]})
			is(t, key, r.Items[0], wire.Miss, "")
		}
		v.start()
		v.decided()
		back := 0
		for _, key := range keys {
			got, _ := v.s.Get(context.Background(), DefaultNamespace, key, cachesidecar.GetOptions{})
			if string(got.Value) == "lock" {
				back++
			}
		}
		if back > 0 {
			t.Errorf("%d of %d values are back that a deletion with their version did not find", back, len(keys))
		}
		w.killAll()
	})
}

// TestKeptTouched checks the same of a touch.
func TestKeptTouched(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w, keys := keptWorld(t, 50, true)
		v, heir := w.nodes[0], w.nodes[1]
		v.leave()
		time.Sleep(time.Second)
		w.evictAll()
		missed := 0
		for _, key := range keys {
			if r := heir.raw(wire.Request{Op: wire.OpTouch, Key: []byte(key), TTLMS: 1000}); r.Status == wire.Miss {
				missed++
			}
		}
		v.start()
		v.decided()
		time.Sleep(2 * time.Second)
		back := 0
		for _, key := range keys {
			got, _ := v.s.Get(context.Background(), DefaultNamespace, key, cachesidecar.GetOptions{})
			if string(got.Value) == "old" {
				back++
			}
		}
		if back > 0 {
			t.Errorf("%d touches missed, and %d values live on after the time that the touch gave them", missed, back)
		}
		w.killAll()
	})
}

// TestKeptCounters checks that counters go on at the heirs.
func TestKeptCounters(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			w := threeHosts(t, keeps)
			v := w.nodes[0]
			incr := func(v *vnode, key string) int64 {
				return v.raw(wire.Request{
					Op: wire.OpIncr, Key: []byte(key), Delta: 1, Create: true, Initial: 1, TTLMS: wire.TTLDefault,
				}).Number
			}
			for i := range 100 {
				for range 10 {
					incr(v, fmt.Sprint("counter", i))
				}
			}
			v.leave()
			time.Sleep(time.Second)
			wrong := 0
			for i := range 100 {
				if n := incr(w.nodes[1], fmt.Sprint("counter", i)); n != 11 {
					wrong++
				}
			}
			v.start()
			if wrong > 0 {
				t.Errorf("keep_memory %v: %d of 100 counters began anew at a restart in order", keeps, wrong)
			}
			w.killAll()
		})
	}
}

// TestVirtualJoinAfterSplit starts a host whose keys a side of a split has written meanwhile, just as the split ends:
// it must not have from the other side, for good, what was overwritten.
func TestVirtualJoinAfterSplit(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	steps := 4 // moments around the end of the split
	if *randomRuns > 0 {
		steps = max(10, *randomRuns/4)
	}
	for _, keeps := range []bool{false, true} {
		for step := range steps {
			after, writer := time.Duration(step/2%30)*40*time.Millisecond, 1+step%2
			bubble.Test(t, func(t *testing.T) {
				w, keys := keptWorld(t, 200, keeps)
				v, a, b := w.nodes[0], w.nodes[1], w.nodes[2]
				v.leave()
				time.Sleep(100 * time.Millisecond)
				w.net.Cut(a.ip, b.ip)
				time.Sleep(4 * time.Second)
				// Both sides own all now.
				for _, key := range keys {
					w.set(w.nodes[writer].s, key, "new")
				}
				v.start()
				time.Sleep(after)
				w.net.Heal()
				w.agreed(20 * time.Second)
				time.Sleep(10 * time.Second)
				old := 0
				for _, key := range keys {
					got, _ := v.s.Get(context.Background(), DefaultNamespace, key, cachesidecar.GetOptions{})
					if string(got.Value) == "old" {
						old++
					}
				}
				if old > 0 {
					t.Errorf("keep_memory %v, after %v: %d of %d values are old", keeps, after, old, len(keys))
				}
				w.killAll()
			})
		}
	}
}

// TestKeptFresh checks that a value stays away that a fresh read has missed at an heir.
func TestKeptFresh(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			w, keys := keptWorld(t, 200, keeps)
			v, ctx := w.nodes[0], context.Background()
			v.leave()
			time.Sleep(time.Second)
			w.evictAll()
			missed := map[string]bool{}
			for _, key := range keys {
				if _, err := w.nodes[1].s.Get(ctx, DefaultNamespace, key, cachesidecar.GetOptions{Fresh: true}); err != nil {
					missed[key] = true
				}
			}
			v.start()
			w.agreed(20 * time.Second)
			if keeps {
				v.decided()
			}
			back := 0
			for _, key := range keys {
				_, err := w.nodes[1].s.Get(ctx, DefaultNamespace, key, cachesidecar.GetOptions{Fresh: true})
				if missed[key] && err == nil {
					back++
				}
			}
			t.Logf("keep_memory %v: %d fresh misses", keeps, len(missed))
			if back > 0 {
				t.Errorf("keep_memory %v: %d values are there that a fresh read missed before", keeps, back)
			}
			w.killAll()
		})
	}
}

// TestKeptByNone checks that a host of which nothing keeps the memory hands all over.
func TestKeptByNone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w, keys := keptWorld(t, 200, true)
		v, lost := w.nodes[0], 0
		v.leave()
		v.kept = nil // as without FileDescriptorStoreMax, after a reboot, or with another l2_size
		v.start()
		k := v.decided()
		for _, key := range keys {
			if _, err := v.s.Get(context.Background(), DefaultNamespace, key, cachesidecar.GetOptions{}); err != nil {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("%d of %d values are lost at a restart in order: %s", lost, len(keys), k.Cold)
		}
		w.killAll()
	})
}

// TestKeptAnswersGoOn checks that heirs refuse no counter after a host has left, which does not wait until they have
// fetched all.
func TestKeptAnswersGoOn(t *testing.T) {
	for _, keeps := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			w := threeHosts(t, keeps)
			v, heir := w.nodes[0], w.nodes[1]
			owned := keysIn(v.s, DefaultNamespace, "big", true, 120)
			for _, key := range owned {
				w.set(v.s, key, strings.Repeat("x", 40_000))
				for range 3 {
					_, _ = v.s.Get(context.Background(), DefaultNamespace, key, cachesidecar.GetOptions{})
				}
			}
			w.net.SetDelay(80*time.Millisecond, 90*time.Millisecond)
			left := make(chan struct{})
			go func() { v.leave(); close(left) }()
			began, refused, longest, since := time.Now(), 0, time.Duration(0), time.Time{}
			for i := 0; time.Since(began) < 12*time.Second; i++ {
				r := heir.raw(wire.Request{
					Op: wire.OpIncr, Key: []byte(owned[i%len(owned)] + "n"), Delta: 1, Create: true, Initial: 1,
					TTLMS: wire.TTLDefault, TimeoutMS: 1000,
				})
				switch {
				case r.Status != wire.Unavailable:
					since = time.Time{}
				case since.IsZero():
					since = time.Now()
					fallthrough
				default:
					refused++
					longest = max(longest, time.Since(since))
				}
				time.Sleep(20 * time.Millisecond)
			}
			<-left
			st := heir.s.engine.Handoff.Stats()
			t.Logf("keep_memory %v: %d refused, for %v at a time; %+v", keeps, refused, longest, st)
			if keeps && refused > 0 {
				t.Errorf("%d counters were refused at a restart in order", refused)
			}
			v.start()
			w.killAll()
		})
	}
}

// TestKeptEvents checks what the log of an heir says when its copies end, and no key has changed: that ends nothing
// of what another host keeps. A flush of its own does, and says so before it drops anything.
func TestKeptEvents(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := threeHosts(t, true)
		e := w.nodes[0].s.engine
		raised := func(do func()) (list []invalidation.Event) {
			before := e.Log.Head()
			do()
			events, ok := e.Log.After(before, 1000, nil)
			if !ok {
				t.Fatal("the log has lost events")
			}
			for _, ev := range events {
				if ev.Kind == invalidation.FloorRaised {
					list = append(list, ev)
				}
			}
			return list
		}
		forget := func() { e.Store.Config().Forgotten(e.Node.Owned(), e.HLC.Next(0)) }
		late := func() { e.Delegate.Late([]string{DefaultNamespace}, true, e.Node.Owned()) }
		for what, do := range map[string]func(){"forgotten copies": forget, "a late feed": late} {
			if got := raised(do); len(got) != 1 || !got[0].Detail.CopiesOnly {
				t.Errorf("%s: %+v", what, got)
			}
		}
		got := raised(func() {
			if err := w.nodes[0].s.Flush(context.Background(), DefaultNamespace, cachesidecar.FlushOptions{Local: true}); err != nil {
				t.Error(err)
			}
		})
		if len(got) != 2 || got[0].Detail.CopiesOnly || got[1].Detail.CopiesOnly || got[0].Version >= got[1].Version {
			t.Errorf("a flush of its own: %+v", got)
		}
		w.killAll()
	})
}
