package quota

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar"
)

// Use is what memory is used for.
type Use uint8

// Uses of a Budget.
const (
	// ForFrames is for requests that are not complete, and long ones that are being
	// served.
	ForFrames Use = iota
	// ForRequests is for requests that wait, and what is to be sent to other hosts for
	// them.
	ForRequests
	// ForAnswers is for answers that wait to be written, and the buffers of readers that
	// wait with them.
	ForAnswers
	// ForPeers is for answers of other hosts and of origins.
	ForPeers
	// ForSockets is for what sockets may keep in the kernel. It is the last one.
	ForSockets
	Uses
)

func (u Use) String() string {
	return [...]string{"frames", "requests", "answers", "peers", "sockets"}[u]
}

// ErrBusy means that there is no memory.
var ErrBusy = errors.New("the memory for what is under way is in use")

// DefaultBudget is the default size of a Budget, in bytes.
const DefaultBudget = 128 << 20

// Budget bounds what everything in flight on the connections of a process holds: the memory, and the places of each
// Resource. Each connection has an account, below the account of the process at its other end, which is
// below the account of the tenant.
//
// # Fair shares
//
// Every account gets what it asks for while less than 7/8 of a kind is taken; of memory, less
// than half of it by requests that wait, which only their own time ends. Beyond that
// limit, only an account with less than a fair share gets more. The share of a tenant is
// the limit divided by the number of tenants that hold some. The share of a process is
// its tenant's share divided by the tenant's processes, and the share of a connection is
// that of its process divided by the connections. It is enough to be within the share at
// one level, because then another account is above its share at that level. All other
// accounts are refused at once. So the last eighth serves the neighbours of the largest
// users, while reclaim makes these give memory.
type Budget struct {
	max     int64
	used    [Uses]atomic.Int64
	refused [Uses]atomic.Int64
	taken   atomic.Int64 // connections that had to give
	root    Account
	places  [Resources]places
	buffers Buffers
	turns   [turnKinds]turns
	search  atomic.Int64 // last search for the largest user, UnixNano

	mu sync.Mutex // guards the tree
}

// Reclaimer is a connection that can be made to give its memory back.
type Reclaimer interface {
	// GiveMemory begins to give memory back, without waiting, and returns how many bytes that
	// will free.
	GiveMemory() int64
}

// NewBudget returns a budget of size bytes; zero means DefaultBudget.
func NewBudget(size int64) *Budget {
	b := &Budget{max: cmp.Or(size, DefaultBudget)}
	b.root.budget, b.buffers.budget = b, b
	return b
}

// Size returns the bound, in bytes.
func (b *Budget) Size() int64 { return b.max }

// Stats returns the memory in use.
func (b *Budget) Stats() cachesidecar.BufferStats {
	s := cachesidecar.BufferStats{
		Limit: b.max, Frames: b.used[ForFrames].Load(), Requests: b.used[ForRequests].Load(),
		Answers: b.used[ForAnswers].Load(), Peers: b.used[ForPeers].Load(), Sockets: b.used[ForSockets].Load(),
		RefusedFor: map[string]int64{}, Taken: b.taken.Load(), Tenants: b.root.holders[memory].Load(),
	}
	for u := range ForSockets { // a socket without room refuses nothing: it waits
		n := b.refused[u].Load()
		s.Refused += n
		s.RefusedFor[u.String()] = n
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.root.greediest(memory); a != nil {
		s.Most, s.MostBy = a.name, a.Used()
	}
	return s
}

// firstAnswers is the expected length of answers to a process before its first answer, in
// bytes.
const firstAnswers = 1 << 20

// Expect notes that an answer of n bytes to a read has come. The expected length of the
// next answers is that of the longest of the last few dozens.
func (a *Account) Expect(n int64) {
	if a != nil {
		l := &a.up.long
		l.Store(max(n, l.Load()*15/16)) // of two concurrent updates one may be lost
	}
}

// Reads counts n more reads of the connection that wait for their answers.
func (a *Account) Reads(n int64) {
	if a != nil {
		a.reads.Add(n)
		a.up.reads.Add(n)
	}
}

// Awaits says whether the answers to a process's reads are likely to find memory. They
// may have a sixteenth of the budget, which is a quarter of what one connection may use
// for answers. Awaits always returns true for a connection's only read.
func (a *Account) Awaits() bool {
	return a == nil || a.reads.Load() <= 1 || a.up.reads.Load()*a.up.long.Load() <= a.budget.max/16
}

// Take charges n bytes to the account, or returns the reason why it may not have them.
func (a *Account) Take(use Use, n int64) error { return a.TakeFor(a, nil, use, n) }

// TakeFor charges n bytes on behalf of another account, asker, whose share decides
// whether there is memory. Requests to one host come from many accounts, and a large user
// among them must not block the others. The bytes that sent has for asker count
// as its own, even if their requests do not wait any more.
func (a *Account) TakeFor(asker *Account, sent *Sent, use Use, n int64) error {
	if a == nil || n == 0 {
		return nil
	}
	b := a.budget
	own := int64(0) // of n, what the asker itself takes
	if a == asker {
		own = n
	}
	// What is surely refused is not charged for a moment: many such moments would have others
	// refused.
	if b.over(use, n) && (!b.buffers.drop() || b.over(use, n)) {
		if _, ok := asker.fair(sent, own, b.free(use)); !ok {
			b.refused[use].Add(1)
			return asker.tooMuch()
		}
	}
	a.add(memory, n)
	b.used[use].Add(n)
	if !b.over(use, 0) {
		return nil
	}
	err := asker.mayKeep(sent, use)
	if err != nil {
		a.Give(use, n)
		b.refused[use].Add(1)
	}
	return err
}

// free returns how much all accounts together may have for a use, before only those below a fair
// share of it may have more.
func (b *Budget) free(use Use) int64 {
	if use == ForRequests {
		return b.max / 2
	}
	return b.max - b.max/8
}

// over says whether only accounts below a fair share may have n more bytes for a use.
func (b *Budget) over(use Use, n int64) bool {
	return b.root.Used()+n > b.free(ForFrames) || b.used[use].Load()+n > b.free(use)
}

// Force charges n bytes that are in use already, without a check: an answer that must be
// given, or a few bytes of a frame.
func (a *Account) Force(use Use, n int64) {
	if a != nil {
		a.add(memory, n)
		a.budget.used[use].Add(n)
	}
}

// Give returns n bytes to the budget.
func (a *Account) Give(use Use, n int64) { a.Force(use, -n) }

// mayKeep returns nil if the account may keep what it has just taken beyond the limit for
// all accounts. The bytes that sent has for the account count as its own. Many
// connections below their shares add up, so some of what is there beyond the limit is for the
// processes alone, and some for the tenants.
func (a *Account) mayKeep(sent *Sent, use Use) error {
	b := a.budget
	free, top := b.free(use), b.max
	level, ok := a.fair(sent, 0, free)
	if !ok {
		return a.tooMuch()
	}
	used := &b.root.has[memory]
	if use == ForRequests { // no account can give them back early
		used, top = &b.used[use], b.max/4*3
	}
	b.reclaim()
	if used.Load() > top-(top-free)/4*level || b.root.Used() > b.max {
		return a.tooMuch()
	}
	return nil
}

func (a *Account) tooMuch() error {
	return fmt.Errorf("%w: of buffer_size %s %s: read the answers, send less at a time, or raise buffer_size",
		ErrBusy, mib(a.budget.max), a.holds(memory, mib))
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
