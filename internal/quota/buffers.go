package quota

import (
	"math/bits"
	"sync"
	"time"
)

// Buffers keeps the buffers of long frames for a while, for reuse. New buffers of
// megabytes would make the garbage collector run, and stop all readers, many times a
// second. The buffers use an eighth of the budget at most, and are the first memory to go
// when it is short.
type Buffers struct {
	budget *Budget

	mu    sync.Mutex
	held  int64
	kept  map[int][][]byte // by size
	timer bool             // tick will be called
}

// keepFor is how long a buffer is kept.
const keepFor = 4 * time.Second

// PageSize is what the allocator rounds large sizes up to, in bytes.
const PageSize = 8 << 10

// largeSteps is the number of sizes from one power of two to the next.
const largeSteps = 8

// sizeOf rounds a size up to one of the kept sizes: by less than an eighth, or to a
// page.
func sizeOf(n int) int {
	step := max(PageSize, 1<<(bits.Len(uint(n-1))-1)/largeSteps)
	return (n + step - 1) / step * step
}

// SizeFor returns the size of the next buffer for a frame of need bytes, of which has
// bytes are there. It is as much as the frame needs, but no more than twice what is
// there. Sizes on the way are powers of two, so that the next frame can reuse the
// buffers, however its bytes come.
func SizeFor(need, has int) int {
	if need <= 2*has {
		return sizeOf(need)
	}
	return PowerBelow(2 * has)
}

// PowerBelow returns the largest power of two that is not above n.
func PowerBelow(n int) int { return 1 << (bits.Len(uint(n)) - 1) }

// Take returns a buffer of a size that SizeFor has returned. A nil l keeps no buffers.
func (l *Buffers) Take(size int) []byte {
	if l == nil {
		return make([]byte, size)
	}
	l.mu.Lock()
	of := l.kept[size]
	last := len(of) - 1
	if last < 0 {
		l.mu.Unlock()
		return make([]byte, size)
	}
	defer l.mu.Unlock()
	b := of[last]
	of[last] = nil
	l.kept[size] = of[:last]
	l.countLocked(-size)
	return b
}

// Give takes a buffer back.
func (l *Buffers) Give(b []byte) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.budget.over(ForFrames, 0) {
		l.dropLocked()
	}
	if l.held+int64(len(b)) > l.budget.max/8 {
		return
	}
	if l.kept == nil {
		l.kept = map[int][][]byte{}
	}
	l.kept[len(b)] = append(l.kept[len(b)], b)
	l.countLocked(len(b))
	if !l.timer {
		l.timer = true
		time.AfterFunc(keepFor, l.tick)
	}
}

// drop drops all buffers. It says whether there were any.
func (l *Buffers) drop() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	had := l.held > 0
	l.dropLocked()
	return had
}

// tick drops all buffers. Those in use are kept again when they come back.
func (l *Buffers) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = false
	l.dropLocked()
}

func (l *Buffers) dropLocked() {
	clear(l.kept)
	l.countLocked(int(-l.held))
}

// countLocked counts kept buffers in the budget, as frames without a tenant.
func (l *Buffers) countLocked(n int) {
	l.held += int64(n)
	l.budget.root.has[memory].Add(int64(n))
	l.budget.used[ForFrames].Add(int64(n))
}

// Buffers returns the buffers that the connections of the budget reuse. A nil account has none.
func (a *Account) Buffers() *Buffers {
	if a == nil {
		return nil
	}
	return &a.budget.buffers
}

// DropBuffers drops the buffers that are kept for reuse.
func (b *Budget) DropBuffers() { b.buffers.drop() }
