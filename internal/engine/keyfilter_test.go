package engine_test

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/keyfilter"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

var madeUp = flag.Int("keyfilter.keys", 100_000, "keys that there are not, of TestKeyFilterFlood")

// filtering returns a host with a filter of the keys that an origin has, half a minute
// after its start.
func filtering(t *testing.T, o *onehost.Origin, c keyfilter.Settings) (*onehost.Host, func() cachesidecar.KeyFilterStats) {
	h := loading(t, o, func(s *namespaces.Settings) {
		s.Policy.NegativeTTL = 0
		c.Lister = o
		s.KeyFilter = &c
	})
	h.Run()
	time.Sleep(30 * time.Second)
	return h, h.Namespaces.Lookup([]byte(namespaces.Default)).KeyFilter.Stats
}

var sure = keyfilter.Settings{Keys: 10_000, MaxAge: time.Hour, FalsePositives: 1e-6}

// TestKeyFilter checks that the origin is not asked for keys that it certainly lacks. A new
// key is found as soon as it is announced, otherwise with the next filter.
func TestKeyFilter(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		o := onehost.NewOrigin(time.Millisecond)
		o.Put("there", []byte("value"))
		h, stats := filtering(t, o, sure)
		do := by(h)
		onehost.Is(t, "there", do.get("there", 0), wire.OK, "value")
		onehost.Absent(t, "made up", do.get("made up", 0))
		onehost.Absent(t, "made up, fresh", do.get("made up", wire.Fresh))
		if k := stats(); !k.InUse || k.Builds == 0 || k.Keys != 1 || k.Failures != 0 {
			t.Errorf("%+v", k)
		}
		onehost.Absent(t, "new", do.get("new", 0))
		o.Put("new", []byte("value"))
		onehost.Absent(t, "new, not announced", do.get("new", 0))
		h.Delete("new", 0)
		onehost.Is(t, "new", do.get("new", 0), wire.OK, "value")

		do.set("set", "by an app")
		h.Delete("set", 0)
		onehost.Absent(t, "set and deleted", do.get("set", 0)) // the origin has said so
		if n := o.Asked("set"); n != 1 {
			t.Errorf("the origin was asked %d times for what an app has set and deleted", n)
		}
		// A flush may stand for any change.
		o.Put("bulk", []byte("value"))
		onehost.Absent(t, "not announced", do.get("bulk", 0))
		h.Do(wire.Request{Op: wire.OpFlush})
		onehost.Is(t, "flushed", do.get("bulk", 0), wire.OK, "value")
		time.Sleep(10 * time.Minute) // the flush has woken the builder
		onehost.Absent(t, "after the next filter", do.get("made up", 0))
		if n := o.Asked("made up"); n != 0 {
			t.Errorf("the origin was asked %d times for what it has not", n)
		}
		// No change of this key is announced.
		o.Put("silent", []byte("value"))
		onehost.Absent(t, "silent", do.get("silent", 0))
		time.Sleep(time.Hour)
		onehost.Is(t, "an hour later", do.get("silent", 0), wire.OK, "value")
	})
}

// TestKeyFilterFails checks that every key passes if there is no filter, and that
// statistics say why there is none, without the origin's words: any app may ask for them.
func TestKeyFilterFails(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(time.Millisecond)
		o.FailLists(&net.OpError{Op: "dial", Net: "tcp", Err: errors.New("user=admin host=10.0.0.7")})
		h, stats := filtering(t, o, sure)
		h.Get("made up", 0)
		if n := o.Asked("made up"); n != 1 {
			t.Errorf("the origin was asked %d times, want 1", n)
		}
		k := stats()
		if k.InUse || k.Failures == 0 || k.Blind != 1 ||
			!strings.Contains(k.Error, "could not be reached") || strings.Contains(k.Error, "admin") {
			t.Errorf("%+v", k)
		}
		o.FailLists(nil)
		time.Sleep(time.Hour)
		onehost.Absent(t, "later", h.Get("made up", 0))
		if k := stats(); !k.InUse || k.Error != "" || k.Denied != 1 {
			t.Errorf("%+v", k)
		}
	})
}

// TestKeyFilterFlood checks that the filter lets pass no more than its share of many reads
// of absent keys.
func TestKeyFilterFlood(t *testing.T) {
	const there, share = 20_000, 0.01
	made := *madeUp
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(0)
		for i := range there {
			o.Put(fmt.Sprint("there-", i), []byte("value"))
		}
		h, stats := filtering(t, o, keyfilter.Settings{Keys: there, FalsePositives: share, MaxAge: time.Hour})
		if k := stats(); !k.InUse {
			t.Fatalf("no filter: %+v", k)
		}
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				for i := g; i < made; i += 8 {
					onehost.Absent(t, "made up", h.Get(fmt.Sprint("made-up-", i), 0))
				}
			})
		}
		wg.Wait()
		calls := 0
		for i := range made {
			calls += o.Asked(fmt.Sprint("made-up-", i))
		}
		k := stats()
		t.Logf("%d reads, %d calls of the origin, stated %v; %+v", made, calls, share, k)
		if float64(calls) > share*float64(made) || k.Blind != 0 || k.Denied < int64(made)*9/10 {
			t.Errorf("the origin was called %d times for %d keys, stated is a share of %v; %+v", calls, made, share, k)
		}
	})
}
