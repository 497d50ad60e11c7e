package hits

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cachesidecar/cachesidecar/benchmarks/trace"
)

func requests(keys ...uint64) (list []trace.Request) {
	for _, k := range keys {
		list = append(list, trace.Request{Key: k})
	}
	return list
}

// skewed draws requests with popular and rare keys.
func skewed(n, keys int, size func(key uint64) uint32) (list []trace.Request) {
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 10, uint64(keys-1))
	for range n {
		k := z.Uint64()
		list = append(list, trace.Request{Key: k, Size: size(k)})
	}
	return list
}

func noSize(uint64) uint32 { return 0 }

func TestLRU(t *testing.T) {
	sized := func(sizes map[uint64]uint32, keys ...uint64) (list []trace.Request) {
		for _, k := range keys {
			list = append(list, trace.Request{Key: k, Size: sizes[k]})
		}
		return list
	}
	sizes := map[uint64]uint32{1: 92, 2: 92, 3: 192, 4: 993}
	for _, c := range []struct {
		name  string
		in    []trace.Request
		size  int64
		bytes bool
		want  int64
	}{
		{"two of three keys", requests(1, 2, 1, 3, 1, 2, 3), 2, false, 2},
		{"room for all", requests(1, 2, 3, 1, 2, 3), 3, false, 3},
		{"bytes: the oldest go", sized(sizes, 1, 2, 1, 2, 3, 1, 2, 3), 200, true, 2},
		{"bytes: room for all", sized(sizes, 1, 2, 3, 1, 2, 3), 400, true, 3},
		{"bytes: too large for the cache", sized(sizes, 1, 4, 4, 1), 1000, true, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Replay(t.Context(), Policies[0], c.in, c.size, c.bytes)
			if err != nil || got != c.want {
				t.Errorf("got %d hits, error %v, want %d", got, err, c.want)
			}
		})
	}
}

// TestPoliciesKeepToTheirSize cycles through more keys than the cache has room for, and
// through fewer.
func TestPoliciesKeepToTheirSize(t *testing.T) {
	const size, rounds = 1000, 15
	round := func(keys uint64) (list []trace.Request) {
		for range rounds {
			for k := range keys {
				list = append(list, trace.Request{Key: k * 7919, Size: 1000})
			}
		}
		return list
	}
	for _, p := range Policies {
		for _, c := range []struct {
			name        string
			size        int64
			bytes       bool
			room, whole uint64 // keys of which some fit; keys that all fit
		}{{"entries", size, false, 2 * size, size / 2}, {"bytes", 8 << 20, true, 16_000, 4000}} {
			t.Run(p.Name+", "+c.name, func(t *testing.T) {
				some, err := Replay(t.Context(), p, round(c.room), c.size, c.bytes)
				if most := int64(c.room) * (rounds - 1) * 6 / 10; err != nil || some > most {
					t.Errorf("twice the keys: got %d hits, error %v, want at most %d", some, err, most)
				}
				all, err := Replay(t.Context(), p, round(c.whole), c.size, c.bytes)
				if least := int64(c.whole) * (rounds - 1) * 9 / 10; err != nil || all < least {
					t.Errorf("few keys: got %d hits, error %v, want at least %d", all, err, least)
				}
			})
		}
	}
}

func TestReplaysWithoutLotsAreTheSame(t *testing.T) {
	in := skewed(50_000, 20_000, noSize)
	for _, p := range Policies {
		if p.Random {
			continue
		}
		first, err1 := Replay(t.Context(), p, in, 1000, false)
		second, err2 := Replay(t.Context(), p, in, 1000, false)
		if err := errors.Join(err1, err2); err != nil || first != second || first == 0 {
			t.Errorf("%s: got %d hits, then %d, error %v", p.Name, first, second, err)
		}
	}
}

func TestReplayErrors(t *testing.T) {
	if _, err := Replay(t.Context(), Policies[3], nil, 1<<20, true); err == nil {
		t.Error("a store below its least size: got no error")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Replay(ctx, Policies[0], requests(1), 10, false); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want the context's", err)
	}
}

func TestFootprint(t *testing.T) {
	if got := FootprintOf(requests(1, 2, 1)); got != (Footprint{Keys: 2}) {
		t.Errorf("no sizes: got %+v", got)
	}
	in := []trace.Request{{Key: 1, Size: 100}, {Key: 2}, {Key: 1, Size: 500}}
	if got, want := FootprintOf(in), (Footprint{Keys: 2, Bytes: 100 + 2*keySize}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestSizes(t *testing.T) {
	numbers := func(list []Size, unit string, sweep bool) (n []int64) {
		for _, s := range list {
			if s.Unit == unit && s.Sweep == sweep {
				n = append(n, s.N)
			}
		}
		return n
	}
	for _, c := range []struct {
		name          string
		trace         string
		f             Footprint
		points        int
		table, byByte []int64
		sweep         int
	}{
		{"a trace of the results", "cache2k-web07", Footprint{Keys: 20_484}, 8, []int64{1000, 4000}, nil, 8},
		{"another", "mine", Footprint{Keys: 1_000_000}, 8, []int64{1000, 10_000, 100_000}, nil, 8},
		{"small ones are left out", "mine", Footprint{Keys: 60_000}, 0, []int64{600, 6000}, nil, 0},
		{"too small altogether", "mine", Footprint{Keys: 100}, 8, nil, nil, 0},
		{"with sizes", "mine", Footprint{Keys: 1_000_000, Bytes: 1 << 30}, 2, []int64{1000, 10_000, 100_000}, []int64{10_737_418, 107_374_182}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := Sizes(c.trace, c.f, c.points)
			if got := numbers(list, Entries, false); !slices.Equal(got, c.table) {
				t.Errorf("got %v for the table, want %v", got, c.table)
			}
			if got := numbers(list, Bytes, false); !slices.Equal(got, c.byByte) {
				t.Errorf("got %v bytes, want %v", got, c.byByte)
			}
			sweep := numbers(list, Entries, true)
			if len(sweep) != c.sweep || !slices.IsSorted(sweep) {
				t.Errorf("got %v for the plot, want %d of them, sorted", sweep, c.sweep)
			}
			if n := len(sweep); n > 0 && (sweep[0] < leastEntries || sweep[n-1] != c.f.Keys/2) {
				t.Errorf("the plot goes from %d to %d, want at least %d to half of %d", sweep[0], sweep[n-1], leastEntries, c.f.Keys)
			}
		})
	}
}
