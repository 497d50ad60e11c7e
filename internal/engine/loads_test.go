package engine_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// asks is Host.Do or Host.DoPeer, the two callers that an owner has.
type asks func(wire.Request) wire.Reply

func (do asks) get(key string, o wire.Options) wire.Reply {
	return do(wire.Request{Op: wire.OpGet, Key: []byte(key), Options: o})
}

// byBoth runs a test in virtual time twice: with the requests of an app, and with those
// that another sidecar has passed on.
func byBoth(t *testing.T, f func(t *testing.T, by func(*onehost.Host) asks)) {
	for name, by := range map[string]func(*onehost.Host) asks{
		"an app":          func(h *onehost.Host) asks { return h.Do },
		"another sidecar": func(h *onehost.Host) asks { return h.DoPeer },
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { f(t, by) })
		})
	}
}

// loading returns a host whose default namespace has an origin, and changed settings.
func loading(t *testing.T, o *onehost.Origin, change func(*namespaces.Settings)) *onehost.Host {
	return onehost.New(t, onehost.Config{
		RequestTimeout: time.Second,
		Namespaces: onehost.One(func(s *namespaces.Settings) {
			s.Origin = o.ReadOnly()
			if change != nil {
				change(s)
			}
		}),
	})
}

// TestLoadOnce checks that the origin is called once for a cold key, however many readers
// ask for it. It is called again only if the key is gone.
func TestLoadOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(100 * time.Millisecond)
		h := loading(t, o, nil)
		q := wire.Request{Op: wire.OpMGet}
		for i := range 20 {
			o.Put(fmt.Sprint("key", i), fmt.Append(nil, "value", i))
			q.Keys = append(q.Keys, fmt.Append(nil, "key", i))
		}
		var wg sync.WaitGroup
		for i := range 400 {
			key, do := fmt.Sprint("key", i%20), asks(h.Do)
			if i%3 == 0 {
				do = h.DoPeer
			}
			wg.Go(func() {
				time.Sleep(time.Duration(i%7) * 30 * time.Millisecond) // some come after it
				onehost.Is(t, key, do.get(key, 0), wire.OK, "value"+key[3:])
			})
		}
		wg.Wait()
		h.Delete("key7", 0)
		for i, r := range h.Do(q).Items {
			onehost.Is(t, "MGET", r, wire.OK, fmt.Sprint("value", i))
			want := 1
			if i == 7 {
				want = 2
			}
			if key := fmt.Sprint("key", i); o.Asked(key) != want {
				t.Errorf("%s was loaded %d times, want %d", key, o.Asked(key), want)
			}
		}
	})
}

// TestLoadAgainstInvalidation checks a value that is loaded while its key is invalidated.
// Waiting readers get it, but it is not kept. A read after the invalidation gets the new
// value.
func TestLoadAgainstInvalidation(t *testing.T) {
	for name, change := range map[string]wire.Request{
		"delete":    {Op: wire.OpDelete, Keys: [][]byte{[]byte("k")}},
		"soft":      {Op: wire.OpDelete, Keys: [][]byte{[]byte("k")}, Options: wire.Soft},
		"removal":   {Op: wire.OpDelete, Keys: [][]byte{[]byte("k")}, Options: wire.CacheOnly},
		"end":       {Op: wire.OpMetaGet, Key: []byte("k"), TTLMS: wire.TTLDefault, Options: wire.Touch | wire.CacheOnly | wire.NoLoad},
		"flush":     {Op: wire.OpFlush},
		"flush all": {Op: wire.OpFlush, Options: wire.All},
	} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				o := onehost.NewOrigin(200 * time.Millisecond)
				h := loading(t, o, nil)
				o.Put("k", []byte("old"))
				var wg sync.WaitGroup
				wg.Go(func() { onehost.Is(t, "who came before", h.Get("k", 0), wire.OK, "old") })
				time.Sleep(300 * time.Millisecond) // the origin has read its row
				o.Put("k", []byte("new"))
				h.Do(change)
				onehost.Is(t, "who came after", h.Get("k", 0), wire.OK, "new")
				wg.Wait()
				onehost.Is(t, "later", h.Get("k", wire.NoLoad), wire.OK, "new")
				if n := o.Asked("k"); n != 2 {
					t.Errorf("the origin was asked %d times, want 2", n)
				}
			})
		})
	}
}

// TestLoadedAndGone checks a value that was loaded, stored and deleted before its readers
// were answered. The readers get it. It comes with its end: no copy outlives that end. A
// value that was not stored is not attested.
func TestLoadedAndGone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(time.Millisecond)
		h := loading(t, o, nil)
		o.Put("k", []byte("v"))
		version := h.Get("k", 0).Version
		ns := h.Namespaces.Lookup([]byte(namespaces.Default))
		key := ns.Key([]byte("k"))
		r := flight.Result{Value: loader.Value{Bytes: []byte("v")}, Stamp: flight.Stamp{Version: kv.Version(version)}}
		q := &wire.Request{Op: wire.OpGet, Options: wire.Attest}
		if a := h.Loads.Answer(ns, key, q, &r, nil); !a.Attested || a.TTLMS <= 1 {
			t.Errorf("there: %+v, want it attested", a)
		}
		h.Delete("k", 0)
		a := h.Loads.Answer(ns, key, q, &r, nil)
		if a.Status != wire.OK || string(a.Value) != "v" || !a.Attested || a.AsOf != version || a.TTLMS != 1 {
			t.Errorf("gone: %+v, want the value as of its load, for 1 ms", a)
		}
		none := flight.Result{Absent: true, Stamp: r.Stamp}
		a = h.Loads.Answer(ns, key, q, &none, loader.ErrAbsent)
		if a.Status != wire.Miss || a.Why != wire.Absent || !a.Attested || a.TTLMS != 1 {
			t.Errorf("gone: %+v, want none as of its load, for 1 ms", a)
		}
		r.NoStore = true
		a = h.Loads.Answer(ns, key, q, &r, nil)
		if a.Status != wire.OK || string(a.Value) != "v" || a.Attested || a.TTLMS != 1 {
			t.Errorf("not kept: %+v, want the value, not attested", a)
		}
	})
}

// TestNegative checks that the absence of a key is cached for its own TTL, and that a
// write ends it.
func TestNegative(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		o := onehost.NewOrigin(time.Millisecond)
		h := loading(t, o, nil)
		do := by(h)
		for range 3 {
			onehost.Absent(t, "k", do.get("k", 0))
		}
		if n := o.Asked("k"); n != 1 {
			t.Errorf("the origin was asked %d times within the negative TTL", n)
		}
		o.Put("k", []byte("there"))
		time.Sleep(onehost.Settings().Policy.NegativeTTL)
		onehost.Is(t, "after the negative TTL", do.get("k", 0), wire.OK, "there")
		onehost.Absent(t, "none", do.get("none", 0))
		add := wire.Request{Op: wire.OpSet, Key: []byte("none"), Value: []byte("some"), Mode: wire.ModeAdd}
		if r := do(add); r.Status != wire.OK {
			t.Errorf("ADD over a negative entry: %s", r.Status)
		}
		onehost.Is(t, "after a write", do.get("none", 0), wire.OK, "some")
	})
}

// TestStale checks that a value after its end goes only to readers that accept a stale
// value, while it is loaded anew or if that load fails.
func TestStale(t *testing.T) {
	const ttl = 10 * time.Second
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		o := onehost.NewOrigin(time.Millisecond)
		h := loading(t, o, func(s *namespaces.Settings) {
			s.TTL, s.StaleLimit, s.Jitter = ttl, time.Hour, 0
			s.Policy = namespaces.Policy{StaleWhileRevalidate: 20 * time.Second, StaleIfError: 100 * time.Second}
		})
		do := by(h)
		o.Put("k", []byte("one"))
		onehost.Is(t, "first", do.get("k", 0), wire.OK, "one")
		o.Put("k", []byte("two"))
		time.Sleep(ttl + 5*time.Second)
		r := do.get("k", wire.StaleOK)
		onehost.Is(t, "expired", r, wire.Stale, "one")
		if r.AgeMS < 4900 || r.AgeMS > 5300 {
			t.Errorf("it is stale for %d ms, want about 5000", r.AgeMS)
		}
		time.Sleep(100 * time.Millisecond)
		onehost.Is(t, "after the refresh behind it", do.get("k", wire.StaleOK), wire.OK, "two")

		o.Fail(errors.New("down"))
		time.Sleep(ttl + 30*time.Second) // longer than stale_while_revalidate
		onehost.Is(t, "the origin is down", do.get("k", wire.StaleOK), wire.Stale, "two")
		onehost.Is(t, "who takes nothing stale", do.get("k", 0), wire.Origin, "")
		time.Sleep(100 * time.Second)
		if r = do.get("k", wire.StaleOK); r.Status != wire.Origin && r.Status != wire.Busy {
			t.Errorf("beyond stale_if_error: %s", r.Status)
		}

		o.Fail(nil)
		time.Sleep(10 * time.Second) // until the breaker lets a call through
		o.Put("k", []byte("three"))
		onehost.Is(t, "up again", do.get("k", wire.StaleOK), wire.OK, "three")
		o.Put("k", []byte("four"))
		h.Delete("k", wire.Soft)
		onehost.Is(t, "softly deleted", do.get("k", wire.StaleOK), wire.Stale, "three")
		time.Sleep(100 * time.Millisecond)
		onehost.Is(t, "loaded behind it", do.get("k", wire.StaleOK), wire.OK, "four")
		o.Put("k", []byte("five"))
		h.Delete("k", 0)
		onehost.Is(t, "deleted", do.get("k", wire.StaleOK), wire.OK, "five")
	})
}

// TestRefreshEarly checks that a hot key is loaded again before its end, so that hardly
// any reader waits for it.
func TestRefreshEarly(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(25 * time.Millisecond)
		h := loading(t, o, func(s *namespaces.Settings) { s.TTL = 10 * time.Second })
		o.Put("k", []byte("value"))
		slow := 0
		for began := time.Now(); time.Since(began) < 2*time.Minute; time.Sleep(5 * time.Millisecond) {
			at := time.Now()
			onehost.Is(t, "hot", h.Get("k", 0), wire.OK, "value")
			if time.Since(at) > 10*time.Millisecond {
				slow++
			}
		}
		if n := o.Asked("k"); n < 11 || n > 20 || slow > n/3 {
			t.Errorf("%d loads in 12 lifetimes, and %d reads waited for one; want 12 to 16, and hardly any", n, slow)
		}
	})
}

// TestLoadErrors checks that each failure has its status, and a message that says what to
// do. A load that no caller waits for any more goes on.
func TestLoadErrors(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		o := onehost.NewOrigin(0)
		h := loading(t, o, func(s *namespaces.Settings) { s.KeyPattern, s.Guard.Breaker.Failures = "[a-z]+", 100 })
		do := by(h)
		for _, tc := range []struct {
			key  string
			err  error
			want wire.Status
		}{
			{"k", errors.New("connection refused"), wire.Origin},
			{"k", loader.ErrBusy, wire.Busy},
			{"k", loader.ErrTooLarge, wire.Origin},
			{"K", nil, wire.BadRequest},
		} {
			o.Fail(tc.err)
			if r := do.get(tc.key, 0); r.Status != tc.want || len(r.Message) == 0 {
				t.Errorf("%s, %v: %s %s, want %s", tc.key, tc.err, r.Status, r.Message, tc.want)
			}
		}
		o.Fail(nil)
		o.Takes(2 * time.Second)
		o.Put("slow", []byte("value"))
		if r := do.get("slow", 0); r.Status != wire.Timeout {
			t.Errorf("slow: %s %s", r.Status, r.Message)
		}
		time.Sleep(4 * time.Second)
		onehost.Is(t, "its load went on", do.get("slow", 0), wire.OK, "value")
		if n := o.Asked("slow"); n != 1 {
			t.Errorf("%d loads, want 1", n)
		}
	})
}
