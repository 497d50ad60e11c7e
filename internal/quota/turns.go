package quota

import (
	"runtime"
	"sync"
)

// Turn is the reason why requests take turns.
type Turn int

// A request of 28 bytes may have megabytes copied, and one connection may send thousands of requests
// at once. Without turns a few of these would keep all processors busy, and every other request
// would wait for each of them.
const (
	CopyTurn Turn = iota + 1 // many bytes are copied
	LongTurn                 // requests of one connection that have been served for long
	turnKinds
)

// turns has requests take turns. One of them runs at a time, for each four processors that Go uses.
// Tenants take turns, and so do the processes of a tenant.
type turns struct {
	mu    sync.Mutex
	runs  int
	waits AccountQueue[chan struct{}]
}

// LongCopy is from how many bytes on a request waits for its turn. So many are copied within some
// dozens of microseconds.
const LongCopy = 256 << 10

// TryTurn begins a turn if that is possible without waiting. EndTurn ends it.
func (a *Account) TryTurn(kind Turn) bool {
	t := &a.budget.turns[kind]
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tryLocked()
}

func (t *turns) tryLocked() bool {
	if t.waits.Len() > 0 || t.runs >= max(1, runtime.GOMAXPROCS(0)/4) {
		return false
	}
	t.runs++
	return true
}

// BeginTurn waits for a turn. EndTurn ends it.
func (a *Account) BeginTurn(kind Turn) {
	t := &a.budget.turns[kind]
	t.mu.Lock()
	if t.tryLocked() {
		t.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	t.waits.Push(a, turn)
	t.mu.Unlock()
	<-turn
}

// EndTurn ends a turn, and begins that of another request.
func (a *Account) EndTurn(kind Turn) {
	t := &a.budget.turns[kind]
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waits.Len() == 0 {
		t.runs--
		return
	}
	close(t.waits.Pop())
}

// WaitingTurns returns how many requests wait for their turn.
func (b *Budget) WaitingTurns(kind Turn) int {
	t := &b.turns[kind]
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waits.Len()
}
