package server

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/race"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestFramesInPieces checks that a frame that waits for its rest, and similar frames
// after it, allocate no new memory.
func TestFramesInPieces(t *testing.T) {
	testenv.Takes(t, time.Second)
	b := quota.NewBudget(64 << 20)
	s, dial, _ := serve(t, newEcho(), Limits{Budget: b})
	nc := dial()
	sent := int64(0)
	rnd := rand.New(rand.NewPCG(1, 2))
	whole := wire.AppendRequest(nil, &wire.Request{ID: 1, Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 2<<20), TTLMS: wire.TTLDefault})
	two := slices.Concat(whole, whole)
	frames := func() {
		// The server waits with the beginning of the second frame in the buffer of the
		// first.
		for _, n := range []int{len(whole) + transport.BufferSize + rnd.IntN(300_000), len(two)} {
			at := int(sent % int64(len(two)))
			if _, err := nc.Write(two[at:n]); err != nil {
				t.Fatal(err)
			}
			sent += int64(n - at)
			eventually(t, "all to be read", s, func(st Stats) bool { return st.BytesIn == sent })
		}
		for range 2 {
			if _, n, err := version(t, nc); n != 2<<20 || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	for range 5 {
		frames()
	}
	const rounds = 50
	least := uint64(math.MaxUint64) // a buffer that is not used for two seconds is dropped
	for range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			frames()
		}
		runtime.ReadMemStats(&after)
		least = min(least, (after.TotalAlloc-before.TotalAlloc)/(2*rounds))
	}
	// Buffers below 64 KiB are not kept. Under the race detector sync.Pool drops buffers.
	if least > 32<<10 && !race.Enabled {
		t.Errorf("%d bytes are made for each frame", least)
	}
}
