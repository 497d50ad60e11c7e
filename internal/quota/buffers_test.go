package quota

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// small is a buffer that is not kept, in bytes.
const small = 64 << 10

// TestBuffers checks that the buffers of long frames are reused, are counted in the
// budget, and use an eighth of it at most. They are dropped if memory is short, and
// after a while.
func TestBuffers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := NewBudget(64 << 20)
		a := b.Open("tenant", "process")
		defer a.Close()
		l := a.Buffers()
		first := l.Take(1 << 20)
		l.Give(first)
		if again := l.Take(1 << 20); &again[0] != &first[0] {
			t.Error("another buffer")
		}
		l.Give(first)
		if n := b.Stats().Frames; n != 1<<20 {
			t.Errorf("%d bytes are counted", n)
		}
		for range 20 {
			l.Give(make([]byte, 1<<20))
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
		l.Give(first)
		time.Sleep(keepFor + time.Millisecond)
		if n := b.Stats().Total(); n != 0 {
			t.Errorf("%d bytes are kept for too long", n)
		}
		l.Give(first)
		time.Sleep(keepFor - time.Millisecond)
		if again := l.Take(1 << 20); &again[0] != &first[0] {
			t.Error("it was not kept as long as that")
		}
		time.Sleep(time.Second)
		if l.Give(first); b.Stats().Total() != 1<<20 {
			t.Error("one that was in use is not kept again")
		}
		time.Sleep(keepFor + time.Millisecond)
	})
}

// TestSizeFor checks that the sizes of a frame's buffers on the way are powers of two,
// and at most twice the bytes that are there. So a frame that comes in other pieces
// reuses the buffers of the one before.
func TestSizeFor(t *testing.T) {
	const need = 7_000_000
	for first := small; first < 2*small; first += 997 {
		for has := first; has < need; {
			size := SizeFor(need, has)
			onTheWay := size > has && size <= 2*has && size&(size-1) == 0
			if whole := need <= 2*has && size == sizeOf(need); !onTheWay && !whole {
				t.Fatalf("%d bytes are there, and the next buffer has %d", has, size)
			}
			has = size
		}
	}
}

// TestSizeOf checks that sizes are rounded up by less than an eighth, or to a page.
func TestSizeOf(t *testing.T) {
	for n := small + 1; n < 16<<20; n += n/97 + 1 {
		if size := sizeOf(n); size < n || size > n+max(PageSize, n/8) || size != sizeOf(size) {
			t.Fatalf("%d: %d", n, size)
		}
	}
}
