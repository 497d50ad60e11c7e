package quota

import (
	"runtime"
	"sync"
)

// copies has requests that copy many bytes take turns. A request of 28 bytes may have megabytes
// copied; without turns a few connections with such requests would keep all processors busy, and
// every other request would wait for each of them. One of these requests runs at a time, for each
// four processors that Go uses. Owners take turns, and so do the processes of an owner.
type copies struct {
	mu    sync.Mutex
	runs  int
	waits FairQueue[*Account, copyWait] // by owner
}

type copyWait struct {
	process *Account
	turn    chan struct{}
}

// LongCopy is from how many bytes on a request waits for its turn. So many are copied within some
// dozens of microseconds.
const LongCopy = 256 << 10

// TryCopy begins a turn to copy many bytes if that is possible without waiting. EndCopy ends it.
func (a *Account) TryCopy() bool {
	c := &a.budget.copies
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tryLocked()
}

func (c *copies) tryLocked() bool {
	if c.waits.Len() > 0 || c.runs >= max(1, runtime.GOMAXPROCS(0)/4) {
		return false
	}
	c.runs++
	return true
}

// BeginCopy waits for a turn to copy many bytes. EndCopy ends it.
func (a *Account) BeginCopy() {
	c := &a.budget.copies
	c.mu.Lock()
	if c.tryLocked() {
		c.mu.Unlock()
		return
	}
	w := copyWait{a.up, make(chan struct{})}
	c.waits.Push(a.up.up, w)
	c.mu.Unlock()
	<-w.turn
}

// EndCopy ends a turn, and begins that of another request.
func (a *Account) EndCopy() {
	c := &a.budget.copies
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waits.Len() == 0 {
		c.runs--
		return
	}
	w := c.waits.PopFirst(func(w copyWait) bool { return w.process != w.process.up.turn })
	w.process.up.turn = w.process
	close(w.turn)
}

// WaitingCopies returns how many requests wait for their turn to copy many bytes.
func (b *Budget) WaitingCopies() int {
	b.copies.mu.Lock()
	defer b.copies.mu.Unlock()
	return b.copies.waits.Len()
}
