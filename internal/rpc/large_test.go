package rpc

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/bubble"
	"github.com/cachesidecar/cachesidecar/internal/race"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestLargeBuffers checks that the buffers of long frames are reused, are counted in the
// budget, and use an eighth of it at most. They are dropped if memory is short, or if
// they have not been used for a while.
func TestLargeBuffers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := NewBudget(64 << 20)
		a := b.Open("owner", "process", nil)
		defer a.Close()
		l := a.larges()
		first := l.take(1 << 20)
		l.give(first)
		if again := l.take(1 << 20); &again[0] != &first[0] {
			t.Error("another buffer")
		}
		l.give(first)
		if n := b.Stats().Frames; n != 1<<20 {
			t.Errorf("%d bytes are counted", n)
		}
		for range 20 {
			l.give(make([]byte, 1<<20))
			if n := b.Stats().Total(); n > 8<<20 {
				t.Fatalf("%d bytes are kept", n)
			}
		}
		if n := b.Stats().Total(); n != 8<<20 {
			t.Errorf("%d bytes are kept, want an eighth of the budget", n)
		}
		if err := a.Take(ForAnswers, 60<<20); err == nil || b.Stats().Total() != 0 {
			t.Errorf("%v, %d bytes are kept while memory is short", err, b.Stats().Total())
		}
		l.give(first)
		time.Sleep(2*keepFor + time.Millisecond)
		if n := b.Stats().Total(); n != 0 {
			t.Errorf("%d bytes are kept unused", n)
		}
		// A used buffer does not keep buffers of other sizes, nor more of its own size.
		l.give(make([]byte, 2<<20))
		second := make([]byte, 1<<20)
		l.give(second)
		l.give(first)
		for range 5 {
			time.Sleep(keepFor * 3 / 4)
			used := l.take(1 << 20)
			if &used[0] != &first[0] && &used[0] != &second[0] {
				t.Error("one that is used was not kept")
			}
			l.give(used)
		}
		if n := b.Stats().Total(); n != 1<<20 {
			t.Errorf("%d bytes are kept where 1 MiB is used", n)
		}
		time.Sleep(2*keepFor + time.Millisecond)
	})
}

// TestRoomFor checks that the sizes of a frame's buffers on the way are powers of two,
// and at most twice the bytes that are there. So a frame that comes in other pieces
// reuses the buffers of the one before.
func TestRoomFor(t *testing.T) {
	const need = 7_000_000
	for first := smallBuffer; first < 2*smallBuffer; first += 997 {
		for has := first; has < need; {
			size := roomFor(need, has)
			onTheWay := size > has && size <= 2*has && size&(size-1) == 0
			if whole := need <= 2*has && size == largeSize(need); !onTheWay && !whole {
				t.Fatalf("%d bytes are there, and the next buffer has %d", has, size)
			}
			has = size
		}
	}
}

// TestFramesInPieces checks that a frame that waits for its rest, and similar frames
// after it, allocate no new memory.
func TestFramesInPieces(t *testing.T) {
	testenv.Takes(t, time.Second)
	b := NewBudget(64 << 20)
	s, dial, _ := serve(t, newEcho(), Limits{Budget: b})
	nc := dial()
	sent := int64(0)
	rnd := rand.New(rand.NewPCG(1, 2))
	whole := wire.AppendRequest(nil, &wire.Request{ID: 1, Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 2<<20), TTLMS: wire.TTLDefault})
	two := slices.Concat(whole, whole)
	frames := func() {
		// The server waits with the beginning of the second frame in the buffer of the
		// first.
		for _, n := range []int{len(whole) + smallBuffer + rnd.IntN(300_000), len(two)} {
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

// TestLargeSize checks that sizes are rounded up by less than an eighth, or to a page.
func TestLargeSize(t *testing.T) {
	for n := smallBuffer + 1; n < 16<<20; n += n/97 + 1 {
		if size := largeSize(n); size < n || size > n+max(pageSize, n/8) || size != largeSize(size) {
			t.Fatalf("%d: %d", n, size)
		}
	}
}
