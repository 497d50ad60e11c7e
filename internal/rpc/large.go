package rpc

import (
	"math/bits"
	"sync"
	"time"
)

// largeBuffers keeps the buffers of long frames for a while, for reuse. New buffers of
// megabytes would make the garbage collector run, and stop all readers, many times a
// second. The buffers use an eighth of the budget at most, and are the first memory to go
// when it is short.
type largeBuffers struct {
	budget *Budget

	mu    sync.Mutex
	held  int64
	kept  map[int]*largeList // by size
	timer bool               // the timer is set
}

// largeList is the buffers of one size.
type largeList struct {
	buffers [][]byte
	unused  int // buffers not used since the last tick
}

// keepFor is how long an unused buffer is kept; up to twice as long.
const keepFor = 2 * time.Second

// pageSize is what the allocator rounds large sizes up to, in bytes.
const pageSize = 8 << 10

// largeSteps is the number of sizes from one power of two to the next.
const largeSteps = 8

// largeSize rounds a size up to one of the kept sizes: by less than an eighth, or to a
// page.
func largeSize(n int) int {
	step := max(pageSize, 1<<(bits.Len(uint(n-1))-1)/largeSteps)
	return (n + step - 1) / step * step
}

// roomFor returns the size of the next buffer for a frame of need bytes, of which has
// bytes are there. It is as much as the frame needs, but no more than twice what is
// there. Sizes on the way are powers of two, so that the next frame can reuse the
// buffers, however its bytes come.
func roomFor(need, has int) int {
	if need <= 2*has {
		return largeSize(need)
	}
	return powerBelow(2 * has)
}

// powerBelow returns the largest power of two that is not above n.
func powerBelow(n int) int { return 1 << (bits.Len(uint(n)) - 1) }

// take returns a buffer of a size that roomFor has returned. A nil l keeps no buffers.
func (l *largeBuffers) take(size int) []byte {
	if l == nil {
		return make([]byte, size)
	}
	l.mu.Lock()
	of := l.kept[size]
	if of == nil || len(of.buffers) == 0 {
		l.mu.Unlock()
		return make([]byte, size)
	}
	defer l.mu.Unlock()
	b := of.pop()
	l.countLocked(-len(b))
	return b
}

// pop removes a buffer from the list.
func (l *largeList) pop() []byte {
	rest := len(l.buffers) - 1
	b := l.buffers[rest]
	l.buffers[rest] = nil
	l.buffers = l.buffers[:rest]
	l.unused = min(l.unused, rest)
	return b
}

// give takes a buffer back.
func (l *largeBuffers) give(b []byte) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.budget.short() {
		l.dropLocked()
	}
	if l.held+int64(len(b)) > l.budget.max/8 {
		return
	}
	if l.kept == nil {
		l.kept = map[int]*largeList{}
	}
	of := l.kept[len(b)]
	if of == nil {
		of = &largeList{}
		l.kept[len(b)] = of
	}
	of.buffers = append(of.buffers, b)
	l.countLocked(len(b))
	if !l.timer {
		l.timer = true
		time.AfterFunc(keepFor, l.tick)
	}
}

// drop drops all buffers. It says whether there were any.
func (l *largeBuffers) drop() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	had := l.held > 0
	l.dropLocked()
	return had
}

// tick drops the buffers that were not used since the last tick.
func (l *largeBuffers) tick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for size, of := range l.kept {
		for range of.unused {
			l.countLocked(-len(of.pop()))
		}
		if of.unused = len(of.buffers); of.unused == 0 {
			delete(l.kept, size)
		}
	}
	if l.timer = l.held > 0; l.timer {
		time.AfterFunc(keepFor, l.tick)
	}
}

func (l *largeBuffers) dropLocked() {
	clear(l.kept)
	l.countLocked(int(-l.held))
}

// countLocked counts kept buffers in the budget, as frames without an owner.
func (l *largeBuffers) countLocked(n int) {
	l.held += int64(n)
	l.budget.root.used.Add(int64(n))
	l.budget.used[ForFrames].Add(int64(n))
}
