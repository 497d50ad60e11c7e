package namespaces

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func TestJitter(t *testing.T) {
	for _, tc := range []struct {
		name          string
		ttl           time.Duration
		share, random float64
		want          time.Duration
	}{
		{"least", 100 * time.Second, 0.1, 0, 90 * time.Second},
		{"middle", 100 * time.Second, 0.1, 0.5, 100 * time.Second},
		{"most", 100 * time.Second, 0.1, 1, 110 * time.Second},
		{"half", 100 * time.Second, 0.5, 0, 50 * time.Second},
		{"off", 100 * time.Second, 0, 0, 100 * time.Second},
		{"never stays never", 0, 0.1, 0.9, 0},
		{"never becomes never", 1, 0.1, 0, 1},
		{"the longest", math.MaxInt64, 0.1, 0.99, math.MaxInt64},
	} {
		if got := jitter(tc.ttl, tc.share, tc.random); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

// The probability of an early refresh is exp(−left / (beta · took)).
func TestRefreshEarly(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	const n = 200000
	for _, tc := range []struct {
		left, took time.Duration
		beta, want float64
	}{
		{time.Second, time.Second, 1, math.Exp(-1)},
		{3 * time.Second, time.Second, 1, math.Exp(-3)},
		{3 * time.Second, time.Second, 2, math.Exp(-1.5)},
		{0, time.Second, 1, 1},
		{time.Hour, time.Second, 1, 0},
		{0, time.Second, 0, 0},
		{time.Second, 0, 1, 0},
	} {
		got := 0
		for range n {
			if (Policy{Beta: tc.beta}).drawEarly(tc.left, tc.took, rnd.Float64()) {
				got++
			}
		}
		if share := float64(got) / n; math.Abs(share-tc.want) > 0.005 {
			t.Errorf("%v left of a load of %v, beta %v: %.4f, want %.4f", tc.left, tc.took, tc.beta, share, tc.want)
		}
	}
}

func TestStale(t *testing.T) {
	boom := errors.New("boom")
	p := Policy{StaleWhileRevalidate: 10 * time.Second, StaleIfError: 60 * time.Second}
	old := func(s time.Duration, invalidated bool) *segment.Stale {
		return &segment.Stale{Ended: s * time.Second, Invalidated: invalidated}
	}
	for _, tc := range []struct {
		name           string
		p              Policy
		old            *segment.Stale
		err            error
		before, failed bool
	}{
		{"expired just now", p, old(1, false), boom, true, true},
		{"too old to be given before", p, old(10, false), boom, false, true},
		{"too old for an error", p, old(60, false), boom, false, false},
		{"no policy", Policy{}, old(0, false), boom, false, false},
		{"invalidated", p, old(1, true), boom, true, true},
		{"invalidated, and the origin has answered", p, old(1, true), loader.ErrAbsent, true, false},
		{"absent is an answer", p, old(1, false), fmt.Errorf("x: %w", loader.ErrAbsent), true, false},
		{"refused is an answer", p, old(1, false), loader.ErrPermanent, true, false},
		{"a refusal of this host is none", p, old(1, false), loader.ErrRefused, true, true},
		{"shed is none", p, old(1, false), loader.ErrBusy, true, true},
	} {
		if got := tc.p.Stale(tc.old); got != tc.before {
			t.Errorf("%s: before the load %v, want %v", tc.name, got, tc.before)
		}
		if got := tc.p.StaleIfFailed(tc.old, tc.err); got != tc.failed {
			t.Errorf("%s: after a failure %v, want %v", tc.name, got, tc.failed)
		}
	}
}
