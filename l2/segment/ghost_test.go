package segment

import (
	"math/rand/v2"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// newGhosts returns a table for a number of entries, in a store of its own.
func newGhosts(t *testing.T, entries int) *ghosts {
	t.Helper()
	s := newTestStore(t, Config{Size: MinSize})
	g := &s.shards[0].ghosts
	if !g.fit(entries) {
		t.Fatalf("no room for the ghosts of %d entries", entries)
	}
	return g
}

// TestGhostsTellKeysApart fills tables with keys of one host, and of one shard, and asks for others. A bucket has 13
// ghosts at a full window, so one unknown key of 65,536/13 passes for a ghost.
func TestGhostsTellKeysApart(t *testing.T) {
	const asked = 1 << 20
	for _, entries := range []int{1000, 30_000, 100_000} {
		g := newGhosts(t, entries)
		rnd := rand.New(rand.NewPCG(uint64(entries), 0))
		key := func() kv.Hash { return kv.Hash(rnd.Uint64()&^0xff | 5) }
		for range 2 * entries {
			g.drop(key())
		}
		known := 0
		for range asked {
			if g.find(key()) != nil {
				known++
			}
		}
		if most := asked / 3000; known > most {
			t.Errorf("%d entries: %d of %d unknown keys pass for ghosts, want at most %d", entries, known, asked, most)
		}
	}
}
