package engine

import (
	"math/rand/v2"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestAskedInTurn has keys asked for in turn, over and over, until each has been asked for
// twice as far as the marks know.
func TestAskedInTurn(t *testing.T) {
	for _, c := range []struct{ keys, rounds int }{{1000, 3}, {10_000, 4}, {50_000, 12}} {
		rng := rand.New(rand.NewPCG(1, 2))
		var left []kv.Hash
		for range c.keys {
			left = append(left, kv.Hash(rng.Uint64()))
		}
		a, most := new(asked), c.keys/500
		for range c.rounds {
			var more []kv.Hash
			for _, h := range left {
				if !a.again(h) {
					more = append(more, h)
				}
			}
			left = more
		}
		if len(left) > most {
			t.Errorf("%d of %d keys still count as not asked for after %d rounds, want %d at most", len(left), c.keys, c.rounds, most)
		}
	}
}
