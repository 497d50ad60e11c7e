package engine_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func (do asks) meta(key string, o wire.Options) wire.Reply {
	return do(wire.Request{Op: wire.OpMetaGet, Key: []byte(key), TTLMS: wire.TTLDefault, Options: o})
}

// swap is a SET that compares.
func (do asks) swap(key, value string, compare uint64, o wire.Options) wire.Reply {
	return do(wire.Request{
		Op: wire.OpSet, Mode: wire.ModeCAS, Key: []byte(key), Value: []byte(value), Compare: compare, Options: o,
		TTLMS: wire.TTLDefault,
	})
}

// TestMetaGet checks what METAGET tells, and what it changes.
func TestMetaGet(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		h := onehost.New(t, onehost.Config{})
		do := by(h)
		if r := do.meta("k", 0); r.Status != wire.Miss || r.Claim != wire.ClaimNone {
			t.Errorf("of nothing: %+v", r)
		}
		set := do(wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte("abc"), Attributes: kv.Attributes{Flags: 5}})
		time.Sleep(3 * time.Second)
		r := do.meta("k", wire.NoValue|wire.Unread)
		if r.Status != wire.OK || len(r.Value) != 0 || r.Size != 3 || r.Flags != 5 || r.Version != set.Version ||
			r.TTLMS != 0 || r.Read || r.IdleMS != 3000 || r.Event != 0 {
			t.Errorf("without the value: %+v", r)
		}
		if r := do.meta("k", 0); string(r.Value) != "abc" || r.Read {
			t.Errorf("the first read: %+v", r)
		}
		if r := do.meta("k", 0); !r.Read || r.IdleMS != 3000 {
			t.Errorf("the second read: %+v", r)
		}
		touch := wire.Request{Op: wire.OpMetaGet, Key: []byte("k"), TTLMS: 60_000, Options: wire.Touch}
		if r := do(touch); r.Status != wire.OK || r.TTLMS != 60_000 || r.Event <= r.Version || r.Version != set.Version {
			t.Errorf("touched: %+v", r)
		}
		if r := do.get("k", 0); r.TTLMS != 60_000 {
			t.Errorf("after the touch: ttl %d", r.TTLMS)
		}
		h.Delete("k", wire.Soft)
		if r := do(touch); r.Status != wire.Stale || string(r.Value) != "abc" || r.Claim != wire.ClaimNone || r.Event != 0 {
			t.Errorf("softened: %+v", r)
		}
	})
}

// TestMetaGetEnds ends values by METAGET. Each is answered once more and is gone in the same
// step, whatever was there. The end is a change of the key, also of one that is absent: other
// hosts may have copies. It claims a key only if nothing was there.
func TestMetaGetEnds(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		h := onehost.New(t, onehost.Config{})
		do := by(h)
		const ends = wire.Touch | wire.CacheOnly
		long := strings.Repeat("long", 100_000)
		for _, value := range []string{"short", long} {
			set := do(wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte(value)})
			r := do.meta("k", ends)
			if r.Status != wire.OK || string(r.Value) != value || r.Version != set.Version || r.Event <= set.Version || r.TTLMS != 1 {
				t.Errorf("%.9q: %s %.9q, event %d after version %d, ttl %d", value, r.Status, r.Value, r.Event, set.Version, r.TTLMS)
			}
			if r := do.meta("k", 0); r.Status != wire.Miss {
				t.Errorf("%.9q: afterwards %s", value, r.Status)
			}
		}
		h.Set("k", "v")
		h.Delete("k", wire.Soft)
		if r := do.meta("k", ends); r.Status != wire.Stale || string(r.Value) != "v" || r.Event <= r.Version {
			t.Errorf("softened: %+v", r)
		}
		if r := do.meta("k", ends); r.Status != wire.Miss || r.Event == 0 {
			t.Errorf("absent: %+v", r)
		}
		if r := do.meta("k", ends|wire.Claim|wire.Create); r.Claim != wire.ClaimWon {
			t.Errorf("absent, with a claim: %+v", r)
		} else if r := do.swap("k", "loaded", uint64(r.Number), 0); r.Status != wire.OK {
			t.Errorf("the claim's SET: %s", r.Status)
		}
		q := wire.Request{
			Op: wire.OpMetaGet, Key: []byte("k"), TTLMS: wire.TTLDefault, RenewMS: 5000, Options: ends | wire.Claim | wire.Create,
		}
		if r := do(q); r.Status != wire.OK || string(r.Value) != "loaded" || r.Claim != wire.ClaimNone {
			t.Errorf("a value, with a claim: %+v", r)
		}
	})
}

// TestClaims checks that one of all callers gets the claim, that its SET is stored, and
// that it is not if the key has changed since.
func TestClaims(t *testing.T) {
	leaseTime := onehost.Settings().LeaseTime
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		h := onehost.New(t, onehost.Config{})
		do := by(h)
		number := onlyOne(t, do, "k")
		if r := do.swap("k", "x", number+1, 0); r.Status != wire.Miss {
			t.Errorf("another number: %s", r.Status)
		}
		if r := do.swap("other", "x", number, 0); r.Status != wire.Miss {
			t.Errorf("of another key: %s", r.Status)
		}
		if r := do.swap("k", "v", number, 0); r.Status != wire.OK || r.Version == 0 {
			t.Errorf("the claim's SET: %s %s", r.Status, r.Message)
		}
		onehost.Is(t, "then", do.get("k", wire.Fresh), wire.OK, "v")
		if r := do.swap("k", "x", number, 0); r.Status != wire.Exists {
			t.Errorf("the same number again: %s", r.Status)
		}
		if r := do.meta("k", wire.Claim|wire.Create); r.Status != wire.OK || r.Claim != wire.ClaimNone || r.Number != 0 {
			t.Errorf("of a value: %+v", r)
		}
		for change, f := range map[string]func(){
			"a deletion":      func() { h.Delete("k", 0) },
			"a soft deletion": func() { h.Delete("k", wire.Soft) },
			"a SET":           func() { h.Set("k", "other") },
			"its time":        func() { time.Sleep(leaseTime + time.Second) },
		} {
			h.Delete("k", 0)
			r := do.meta("k", wire.Claim|wire.Create)
			if r.Status != wire.Miss || r.Claim != wire.ClaimWon || r.TTLMS != leaseTime.Milliseconds() {
				t.Fatalf("before %s: %+v", change, r)
			}
			f()
			want := wire.Miss // the claim has ended, and nothing is there
			if change == "a SET" {
				want = wire.Exists
			}
			if r := do.swap("k", "old", uint64(r.Number), 0); r.Status != want {
				t.Errorf("after %s: %s, want %s", change, r.Status, want)
			}
			if r := do.get("k", wire.Fresh); string(r.Value) == "old" {
				t.Errorf("after %s: the claim's value is there", change)
			}
		}
	})
}

// onlyOne has many callers claim a key that is missing, and returns the number.
func onlyOne(t *testing.T, do asks, key string) uint64 {
	t.Helper()
	var mu sync.Mutex
	won, number := 0, int64(0)
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			r := do(wire.Request{
				Op: wire.OpMetaGet, Key: []byte(key), TTLMS: wire.TTLDefault, Options: wire.Claim | wire.Create, LeaseMS: 60_000,
			})
			mu.Lock()
			defer mu.Unlock()
			if r.Claim == wire.ClaimWon {
				won++
			}
			if r.Status != wire.Miss || r.Claim == wire.ClaimNone || number != 0 && number != r.Number || r.TTLMS != 60_000 {
				t.Errorf("METAGET: %+v, the number was %d", r, number)
			}
			number = r.Number
		})
	}
	all.Wait()
	if won != 1 {
		t.Errorf("%d callers have the claim", won)
	}
	return uint64(number)
}

// TestRenewal checks claims of values that end soon, and of softened values.
func TestRenewal(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		h := onehost.New(t, onehost.Config{})
		do := by(h)
		set := do(wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte("1"), TTLMS: 10_000})
		q := wire.Request{Op: wire.OpMetaGet, Key: []byte("k"), TTLMS: wire.TTLDefault, Options: wire.Claim, RenewMS: 5000}
		if r := do(q); r.Status != wire.OK || r.Claim != wire.ClaimNone {
			t.Errorf("10 s left: %+v", r)
		}
		time.Sleep(6 * time.Second)
		first, second := do(q), do(q)
		if first.Status != wire.OK || first.Claim != wire.ClaimWon || first.Number == 0 || first.TTLMS > 4000 {
			t.Errorf("4 s left: %+v", first)
		}
		if second.Claim != wire.ClaimTaken || second.Number != first.Number || string(second.Value) != "1" {
			t.Errorf("the second: %+v", second)
		}
		if r := do.swap("k", "2", uint64(first.Number), 0); r.Status != wire.OK || r.Version <= set.Version {
			t.Errorf("the renewal: %+v", r)
		}
		version := do.get("k", wire.Fresh).Version
		onehost.Is(t, "renewed", do.get("k", wire.Fresh), wire.OK, "2")

		soft := wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte("k")}, Options: wire.Soft, StaleMS: 20_000}
		soft.Compare = version + 1
		if r := do(soft).Items[0]; r.Status != wire.Exists || r.Version != version {
			t.Errorf("a deletion of another version: %+v", r)
		}
		soft.Compare = version
		if r := do(soft).Items[0]; r.Status != wire.OK {
			t.Errorf("a deletion of the version: %+v", r)
		}
		q.RenewMS = 0
		first, second = do(q), do(q)
		if first.Status != wire.Stale || first.Claim != wire.ClaimWon || string(first.Value) != "2" || first.TTLMS > 20_000 {
			t.Errorf("a softened value: %+v", first)
		}
		if second.Status != wire.Stale || second.Claim != wire.ClaimTaken || second.Number != first.Number {
			t.Errorf("the second: %+v", second)
		}
		if r := do.swap("k", "x", version, 0); r.Status != wire.Miss {
			t.Errorf("the softened version: %s, want MISS", r.Status)
		}
		if r := do.swap("k", "x", version, wire.StaleOK); r.Status != wire.Stale || r.Version != version {
			t.Errorf("the softened version, with stale_ok: %+v, want STALE", r)
		}
		if r := do.swap("k", "3", uint64(first.Number), 0); r.Status != wire.OK {
			t.Errorf("the claim: %+v", r)
		}
		onehost.Is(t, "loaded", do.get("k", wire.Fresh), wire.OK, "3")
	})
}

// TestMetaGetLoads checks METAGET in a namespace with an origin.
func TestMetaGetLoads(t *testing.T) {
	byBoth(t, func(t *testing.T, by func(*onehost.Host) asks) {
		o := onehost.NewOrigin(5 * time.Millisecond)
		do := by(loading(t, o, nil))
		o.Put("k", []byte("row"))
		if r := do.meta("k", wire.NoLoad|wire.Claim|wire.Create); r.Status != wire.Miss || r.Claim != wire.ClaimNone {
			t.Errorf("without a load: %+v", r)
		}
		r := do(wire.Request{Op: wire.OpMetaGet, Key: []byte("k"), TTLMS: 60_000, Options: wire.Touch | wire.Claim})
		if r.Status != wire.OK || string(r.Value) != "row" || r.Size != 3 || r.TTLMS != 60_000 || r.Claim != wire.ClaimNone {
			t.Errorf("loaded: %+v", r)
		}
		if got := do.get("k", wire.Fresh); !bytes.Equal(got.Value, r.Value) || got.Version != r.Version {
			t.Errorf("then it is %+v", got)
		}
	})
}

// TestAppends checks that no append is lost, whatever the length.
func TestAppends(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := onehost.New(t, onehost.Config{})
		for _, size := range []int{1, 10_000} {
			key := fmt.Sprint("k", size)
			var all sync.WaitGroup
			for i := range 30 {
				do := asks(h.Do)
				if i%3 == 0 {
					do = h.DoPeer
				}
				all.Go(func() {
					r := do(wire.Request{
						Op: wire.OpSet, Mode: wire.ModeAppend + wire.Mode(i%2), Key: []byte(key), Options: wire.Create,
						Value: bytes.Repeat([]byte{byte('a' + i)}, size), TTLMS: wire.TTLDefault,
					})
					if r.Status != wire.OK {
						t.Errorf("%d bytes: %s %s", size, r.Status, r.Message)
					}
				})
			}
			all.Wait()
			r := h.Get(key, wire.Fresh)
			for i := range 30 {
				if n := bytes.Count(r.Value, []byte{byte('a' + i)}); n != size {
					t.Errorf("%d bytes: %d of %c", size, n, 'a'+i)
				}
			}
		}
	})
}
