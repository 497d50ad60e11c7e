package flight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/loader"
)

func newLeases(t *testing.T) *Leases {
	t.Helper()
	l := NewLeases()
	t.Cleanup(l.Close)
	return l
}

// check fails the test unless all leases have ended.
func (l *Leases) check(t *testing.T) {
	t.Helper()
	l.table.Lock()
	defer l.table.Unlock()
	if len(l.table.byHash) != 0 || len(l.byToken) != 0 || l.stats.Out != 0 || l.stats.Waiting != 0 {
		t.Errorf("left: %d in the table, %d tokens, %d out, %d waiting", len(l.table.byHash), len(l.byToken), l.stats.Out, l.stats.Waiting)
	}
}

func keep(Result) bool { return true }

// mustClaim claims a token and fails the test if there is none.
func mustClaim(t *testing.T, l *Leases, c Claim) Token {
	t.Helper()
	g, err := l.Claim(t.Context(), c)
	if err != nil || !g.HasToken() {
		t.Fatalf("got %+v, %v; want a token", g, err)
	}
	return g.Token
}

func TestOneTokenAndItsFill(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLeases(t), &versions{}
		c := Claim{Key: keyOf("a"), OwnershipEpoch: 7, Begin: v.begin}
		token := mustClaim(t, l, c)
		if token.Version != 1 || token.OwnershipEpoch != 7 {
			t.Errorf("token %+v", token)
		}
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				g, err := l.Claim(t.Context(), c)
				if err != nil || g.HasToken() || string(g.Result.Bytes) != "x" || g.Result.Version != 1 || g.Result.NoStore {
					t.Errorf("got %+v, %v", g, err)
				}
			})
		}
		synctest.Wait()
		if out, err := l.Try(c); err != nil || out != (Out{token, false, 10 * time.Second}) {
			t.Errorf("Try of a key whose token is out: %+v, %v, want that token", out, err)
		}
		for _, tc := range []struct {
			key    string
			random uint64
			want   Token
		}{{"a", token.Random, token}, {"b", token.Random, Token{}}, {"a", token.Random + 1, Token{}}, {"a", 0, Token{}}} {
			if got, ok := l.Named(keyOf(tc.key), tc.random); got != tc.want || ok != (tc.want != Token{}) {
				t.Errorf("Named(%s, %d): %+v, %v", tc.key, tc.random, got, ok)
			}
		}
		kept := 0
		once := func(Result) bool { kept++; return true }
		if err := l.Fill(keyOf("a"), token, loader.Value{Bytes: []byte("x")}, once); err != nil {
			t.Error(err)
		}
		if err := l.Fill(keyOf("a"), token, loader.Value{}, once); !errors.Is(err, ErrNotStored) || kept != 1 {
			t.Errorf("a replayed token: %v, kept %d times", err, kept)
		}
		wg.Wait()
		l.check(t)
	})
}

func TestFillRefused(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(l *Leases, token *Token)
		key  string
	}{
		{"forged", func(_ *Leases, t *Token) { t.Random++ }, "a"},
		{"other version", func(_ *Leases, t *Token) { t.Version++ }, "a"},
		{"other holding", func(_ *Leases, t *Token) { t.OwnershipEpoch = 8 }, "a"},
		{"other key", func(*Leases, *Token) {}, "b"},
		{"zero", func(_ *Leases, t *Token) { *t = Token{} }, "a"},
		{"invalidated", func(l *Leases, _ *Token) { l.Invalidate(keyOf("a").Hash) }, "a"},
		{"flushed", func(l *Leases, _ *Token) { l.InvalidateIf(func(kv.NamespaceID, kv.Hash) bool { return true }) }, "a"},
		{"abandoned", func(l *Leases, t *Token) { l.Abandon(*t) }, "a"},
		{"too late", func(*Leases, *Token) { time.Sleep(time.Minute) }, "a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				l, v := newLeases(t), &versions{}
				good := mustClaim(t, l, Claim{Key: keyOf("a"), Begin: v.begin})
				token := good
				tc.do(l, &token)
				err := l.Fill(keyOf(tc.key), token, loader.Value{}, func(Result) bool { t.Error("kept"); return true })
				if !errors.Is(err, ErrNotStored) {
					t.Errorf("got %v", err)
				}
				if s := l.Stats(); s.NotStored != 1 {
					t.Errorf("stats %+v", s)
				}
				l.Abandon(good)
				l.check(t)
			})
		})
	}
}

// A token fills only its own key, not another key with the same hash.
func TestFillOfACollision(t *testing.T) {
	l, v := newLeases(t), &versions{}
	token := mustClaim(t, l, Claim{Key: kv.Key{Hash: 7, Bytes: []byte("a")}, Begin: v.begin})
	if err := l.Fill(kv.Key{Hash: 7, Bytes: []byte("b")}, token, loader.Value{}, keep); !errors.Is(err, ErrNotStored) {
		t.Errorf("got %v", err)
	}
	l.Abandon(token)
	l.check(t)
}

// TestManyLeasesOfOneHash is TestManyKeysOfOneHash for leases: all tokens can be filled,
// and the fills of detached leases are not stored.
func TestManyLeasesOfOneHash(t *testing.T) {
	l, v := newLeases(t), &versions{}
	claim := func(ns kv.NamespaceID, i int) Claim {
		return Claim{Key: kv.Key{Hash: 7, Namespace: ns, Bytes: []byte{byte(i >> 8), byte(i)}}, Begin: v.begin}
	}
	neighbour := mustClaim(t, l, claim(1, 0))
	var tokens []Token
	for i := range 1000 {
		tokens = append(tokens, mustClaim(t, l, claim(0, i)))
		if n := l.table.ofHash(7); n > maxOfHash {
			t.Fatalf("%d leases of one hash in the table", n)
		}
	}
	stored := 0
	for i, token := range tokens {
		if err := l.Fill(claim(0, i).Key, token, loader.Value{}, keep); err == nil {
			stored++
		} else if !errors.Is(err, ErrNotStored) {
			t.Error(err)
		}
	}
	if err := l.Fill(claim(1, 0).Key, neighbour, loader.Value{}, keep); err != nil || stored != maxOfHash-1 {
		t.Errorf("%d stored; the neighbour's: %v", stored, err)
	}
	l.check(t)
}

func TestStoreRefuses(t *testing.T) {
	l, v := newLeases(t), &versions{}
	token := mustClaim(t, l, Claim{Key: keyOf("a"), Begin: v.begin})
	if err := l.Fill(keyOf("a"), token, loader.Value{}, func(Result) bool { return false }); !errors.Is(err, ErrNotStored) {
		t.Errorf("got %v", err)
	}
	l.check(t)
}

func TestHandOver(t *testing.T) {
	for _, tc := range []struct {
		name string
		goes func(*Leases, Token)
		at   time.Duration // when the next waiter gets its token
	}{
		{"abandoned", func(l *Leases, t Token) { l.Abandon(t) }, 0},
		{"hangs", func(*Leases, Token) {}, 10 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				l, v := newLeases(t), &versions{}
				c := Claim{Key: keyOf("a"), Begin: v.begin}
				first := mustClaim(t, l, c)
				began := time.Now()
				var wg sync.WaitGroup
				wg.Go(func() {
					second := mustClaim(t, l, c)
					if took := time.Since(began); took != tc.at || second.Version != 2 || second.Random == first.Random {
						t.Errorf("second token %+v after %v", second, took)
					}
					if err := l.Fill(keyOf("a"), first, loader.Value{}, keep); !errors.Is(err, ErrNotStored) {
						t.Errorf("the first token still fills: %v", err)
					}
					if err := l.Fill(keyOf("a"), second, loader.Value{Bytes: []byte("x")}, keep); err != nil {
						t.Error(err)
					}
				})
				synctest.Wait()
				wg.Go(func() {
					if g, err := l.Claim(t.Context(), c); err != nil || string(g.Result.Bytes) != "x" {
						t.Errorf("third got %+v, %v", g, err)
					}
				})
				synctest.Wait()
				tc.goes(l, first)
				wg.Wait()
				if s := l.Stats(); s.HandedOver != 1 || s.Issued != 2 || s.Filled != 1 {
					t.Errorf("stats %+v", s)
				}
				l.check(t)
			})
		})
	}
}

// After an invalidation, the waiters get the value of the first load, marked. Later
// callers load again. Nothing of the first fill is kept.
func TestLeaseDetached(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLeases(t), &versions{}
		c := Claim{Key: keyOf("a"), Begin: v.begin}
		first := mustClaim(t, l, c)
		var wg sync.WaitGroup
		wg.Go(func() {
			g, err := l.Claim(t.Context(), c)
			if err != nil || g.HasToken() || !g.Result.NoStore || g.Result.Version != 1 {
				t.Errorf("got %+v, %v", g, err)
			}
		})
		synctest.Wait()
		l.Invalidate(keyOf("a").Hash)
		second := mustClaim(t, l, c)
		if err := l.Fill(keyOf("a"), first, loader.Value{Bytes: []byte("old")}, func(Result) bool { t.Error("kept"); return true }); !errors.Is(err, ErrNotStored) {
			t.Errorf("got %v", err)
		}
		wg.Wait()
		if err := l.Fill(keyOf("a"), second, loader.Value{}, keep); err != nil {
			t.Error(err)
		}
		l.check(t)
	})
}

// TestLeaseEnded checks that the callers that wait are told of the end of their ownership,
// and only those. The token can still be given back.
func TestLeaseEnded(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLeases(t), &versions{}
		var wg sync.WaitGroup
		var tokens []Token
		for _, name := range []string{"a", "b"} {
			c := Claim{Key: keyOf(name), Begin: v.begin}
			tokens = append(tokens, mustClaim(t, l, c))
			wg.Go(func() {
				if _, err := l.Claim(t.Context(), c); errors.Is(err, ErrAgain) != (name == "a") {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
		synctest.Wait()
		l.Invalidate(keyOf("a").Hash)
		l.End(func(h kv.Hash) bool { return h == keyOf("a").Hash })
		synctest.Wait()
		if s := l.Stats(); s.Waiting != 1 || s.Out != 2 {
			t.Errorf("stats %+v", s)
		}
		if !l.Abandon(tokens[0]) {
			t.Error("the token cannot be given back")
		}
		if err := l.Fill(keyOf("b"), tokens[1], loader.Value{}, keep); err != nil {
			t.Error(err)
		}
		wg.Wait()
		l.check(t)
	})
}

// The holder of a detached lease gives up. Its waiters begin anew, and join the new lease.
func TestDetachedAndAbandoned(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLeases(t), &versions{}
		c := Claim{Key: keyOf("a"), Begin: v.begin}
		first := mustClaim(t, l, c)
		var wg sync.WaitGroup
		wg.Go(func() {
			if g, err := l.Claim(t.Context(), c); !errors.Is(err, ErrAgain) {
				t.Errorf("got %+v, %v, want to begin anew", g, err)
			}
			if g, err := l.Claim(t.Context(), c); err != nil || g.HasToken() || g.Result.Version != 2 || g.Result.NoStore {
				t.Errorf("got %+v, %v", g, err)
			}
		})
		synctest.Wait()
		l.Invalidate(keyOf("a").Hash)
		second := mustClaim(t, l, c)
		l.Abandon(first)
		synctest.Wait()
		if err := l.Fill(keyOf("a"), second, loader.Value{}, keep); err != nil {
			t.Error(err)
		}
		wg.Wait()
		l.check(t)
	})
}

// A fill that replaces a value detaches its own lease: it is stored, but those that wait must
// not keep it, since the change may be another one.
func TestDetachWhileFilling(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLeases(t), &versions{}
		c := Claim{Key: keyOf("a"), Begin: v.begin}
		token := mustClaim(t, l, c)
		var wg sync.WaitGroup
		wg.Go(func() {
			if g, err := l.Claim(t.Context(), c); err != nil || !g.Result.NoStore {
				t.Errorf("who waits got %+v, %v", g, err)
			}
		})
		synctest.Wait()
		detach := func(kept bool) func(Result) bool {
			return func(Result) bool { l.Invalidate(keyOf("a").Hash); return kept }
		}
		if err := l.Fill(keyOf("a"), token, loader.Value{}, detach(true)); err != nil {
			t.Errorf("kept: %v", err)
		}
		wg.Wait()
		if err := l.Fill(keyOf("a"), mustClaim(t, l, c), loader.Value{}, detach(false)); !errors.Is(err, ErrNotStored) {
			t.Errorf("not kept: %v", err)
		}
		l.check(t)
	})
}

func TestLeaseWaiterLeaves(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLeases(t), &versions{}
		l.stats.Waiting = maxWaiters - 1 // there is one place
		c := Claim{Key: keyOf("a"), Begin: v.begin}
		token := mustClaim(t, l, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Claim(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		if _, err := l.Claim(t.Context(), c); !errors.Is(err, loader.ErrBusy) {
			t.Errorf("one waiter too many got %v", err)
		}
		wg.Wait()
		l.Abandon(token) // no waiter is left
		if s := l.Stats(); s.HandedOver != 0 || s.Shed != 1 {
			t.Errorf("stats %+v", s)
		}
		l.stats.Waiting -= maxWaiters - 1
		l.check(t)
	})
}

func TestLeasesBoundAndClose(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLeases(t), &versions{}
		l.stats.Out = MaxLeases - 1 // there is one place
		c := Claim{Key: keyOf("a"), Begin: v.begin}
		token := mustClaim(t, l, c)
		if _, err := l.Claim(t.Context(), Claim{Key: keyOf("b"), Begin: v.begin}); !errors.Is(err, loader.ErrBusy) {
			t.Errorf("got %v", err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Claim(t.Context(), c); !errors.Is(err, ErrClosed) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		l.Close()
		l.Close()
		wg.Wait()
		if err := l.Fill(keyOf("a"), token, loader.Value{}, keep); !errors.Is(err, ErrNotStored) {
			t.Errorf("got %v", err)
		}
		l.stats.Out -= MaxLeases - 1
		l.check(t)
	})
}

// The maps of Leases are replaced after many leases have ended, because maps do not
// shrink.
func TestLeasesGiveTheirTableBack(t *testing.T) {
	l, v := newLeases(t), &versions{}
	var tokens []Token
	for i := range 2 * manyFlights {
		tokens = append(tokens, mustClaim(t, l, Claim{Key: kv.Key{Hash: kv.Hash(i), Bytes: fmt.Append(nil, i)}, Begin: v.begin}))
	}
	for _, token := range tokens {
		if !l.Abandon(token) {
			t.Fatal("a token that is not known")
		}
	}
	if l.most != 0 || l.table.most != 0 {
		t.Errorf("the tables have the room of %d tokens and %d leases", l.most, l.table.most)
	}
	l.check(t)
}

// places is a number of places for tokens.
type places struct {
	free int
	heir Place // may have these places, since the claimant has gone
}

func (p *places) Take(handed bool) error {
	if p.free <= 0 && !handed {
		return loader.ErrBusy
	}
	p.free--
	return nil
}

func (p *places) Give() { p.free++ }

func (p *places) YieldsTo(other Place) bool { return p.heir != nil && p.heir == other }

// TestOldTokensEndFirst: a token that has lasted for its usual time ends when others lack its place, and not before; nor
// does one that its key's callers wait for.
func TestOldTokensEndFirst(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLeases(t), &versions{}
		start := time.Now()
		begin := func() Stamp {
			s := v.begin()
			s.At = time.Since(start)
			return s
		}
		of := &places{free: 2}
		claim := func(key string) (Out, error) {
			return l.Try(Claim{Key: keyOf(key), Begin: begin, Time: time.Hour, Usual: time.Minute, Place: of})
		}
		for _, key := range []string{"a", "b"} {
			if out, err := claim(key); err != nil || !out.Won {
				t.Fatalf("%s: %+v, %v", key, out, err)
			}
		}
		waits, stop := context.WithCancel(t.Context())
		waited := make(chan error, 1)
		go func() { // ends with stop
			_, err := l.Claim(waits, Claim{Key: keyOf("a"), Begin: begin})
			waited <- err
		}()
		time.Sleep(time.Minute - time.Second)
		if _, err := claim("c"); !errors.Is(err, loader.ErrBusy) {
			t.Errorf("before their usual time: %v", err)
		}
		time.Sleep(2 * time.Second)
		if out, err := claim("c"); err != nil || !out.Won {
			t.Errorf("after it: %+v, %v", out, err)
		}
		if _, err := claim("d"); !errors.Is(err, loader.ErrBusy) {
			t.Errorf("a token that is waited for has ended: %v", err)
		}
		if st := l.Stats(); st.Expired != 1 || st.Out != 2 {
			t.Errorf("%+v", st)
		}
		stop()
		<-waited
	})
}

// TestTokensYield: the token of a claimant that has gone ends when one that may have its place lacks one, and for no
// other; nor does a token that ends with its time only.
func TestTokensYield(t *testing.T) {
	l, v := newLeases(t), &versions{}
	of, heir := &places{free: 2}, &places{}
	claim := func(key string, usual time.Duration, of *places) (Out, error) {
		return l.Try(Claim{Key: keyOf(key), Begin: v.begin, Time: time.Hour, Usual: usual, Place: of})
	}
	for key, usual := range map[string]time.Duration{"a": time.Minute, "lasting": 0} {
		if out, err := claim(key, usual, of); err != nil || !out.Won {
			t.Fatalf("%s: %+v, %v", key, out, err)
		}
	}
	refused := func(why string) {
		t.Helper()
		if _, err := claim("c", time.Minute, heir); !errors.Is(err, loader.ErrBusy) {
			t.Errorf("%s: %v", why, err)
		}
	}
	refused("the claimant is there")
	of.heir = of
	refused("another may have the places")
	of.heir = heir
	refused("no place is free for it")
	if st := l.Stats(); st.Out != 1 || st.Expired != 1 || !l.IsIssued(keyOf("lasting")) {
		t.Errorf("%+v", st)
	}
}
