package rpc

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Use is what memory is taken for.
type Use uint8

// Uses of a Budget.
const (
	ForFrames   Use = iota // requests that have begun and are not complete, or are being served and long
	ForRequests            // that wait, and what is to be sent to other hosts for them
	ForAnswers             // that wait to be written, and the buffers of readers that wait with them
	ForPeers               // answers of other hosts
	Uses
)

func (u Use) String() string { return [...]string{"frames", "requests", "answers", "peers"}[u] }

// DefaultBudget is the size of a budget that nobody has set, in bytes.
const DefaultBudget = 128 << 20

// Budget bounds the memory of all that is in flight on the connections of a
// process. Each connection has an account, below that of the process at its other
// end, below that of the owner: a user of this host, or another host.
//
// # Who gets memory
//
// While less than 7/8 of the budget is taken (and less than half of it by requests
// that wait, which nothing but their own time ends) everyone gets what is asked
// for. From then on only who has less than a fair share does: the owner's is the
// budget divided by the owners that hold something; a process's the owner's
// divided by its processes; a connection's that of its process divided alike. One
// level at which the asker is not above its share is enough, since then another is
// at that level. All others are refused at once. So the last eighth is there for
// neighbours of the greedy, while these are made to give (see reclaim).
type Budget struct {
	max     int64
	used    [Uses]atomic.Int64
	refused [Uses]atomic.Int64
	taken   atomic.Int64 // connections that had to give
	root    Account
	large   largeBuffers
	search  atomic.Int64 // when the greediest was looked for last, UnixNano

	mu sync.Mutex // guards the tree
}

// Account is what one connection holds, or all of a process or an owner. A nil
// one has no bound.
type Account struct {
	budget *Budget
	up     *Account
	name   string
	used   atomic.Int64
	active atomic.Int64 // accounts below that hold something
	reads  atomic.Int64 // of a connection and of a process: see Reads
	long   atomic.Int64 // of a process: what its next answers are expected to have, in bytes

	// Under the budget's mu.
	named map[string]*Account   // below, by name
	conns map[*Account]struct{} // below a process
	giver giver                 // of a connection
}

// giver is a connection that can be made to give what it holds.
type giver interface {
	// give begins to, without waiting, and says how many bytes that will bring.
	give() int64
}

// NewBudget returns a budget of so many bytes; 0 is DefaultBudget.
func NewBudget(size int64) *Budget {
	b := &Budget{max: cmp.Or(size, DefaultBudget)}
	b.root.budget, b.large.budget = b, b
	return b
}

// Size is the bound, in bytes.
func (b *Budget) Size() int64 { return b.max }

// BudgetStats says what is held, by use.
type BudgetStats struct {
	Size     int64
	Used     [Uses]int64
	Refused  [Uses]int64 // times
	Taken    int64       // connections that had to give what they held to others
	Owners   int64       // that hold something
	Greedy   string      // the owner that holds most
	GreedyBy int64       // bytes of it
}

// Total is the sum of all uses.
func (s BudgetStats) Total() (n int64) {
	for _, u := range s.Used {
		n += u
	}
	return n
}

// Stats says what is held.
func (b *Budget) Stats() BudgetStats {
	s := BudgetStats{Size: b.max, Taken: b.taken.Load(), Owners: b.root.active.Load()}
	for u := range Uses {
		s.Used[u], s.Refused[u] = b.used[u].Load(), b.refused[u].Load()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.root.greediest(); a != nil {
		s.Greedy, s.GreedyBy = a.name, a.used.Load()
	}
	return s
}

// AllRefused is how often somebody was refused memory.
func (s BudgetStats) AllRefused() (n int64) {
	for _, r := range s.Refused {
		n += r
	}
	return n
}

// Open makes the account of a connection, or of a link to another host.
func (b *Budget) Open(owner, process string, g giver) *Account {
	a := &Account{budget: b, giver: g}
	b.mu.Lock()
	defer b.mu.Unlock()
	a.joinLocked(owner, process)
	return a
}

func (a *Account) joinLocked(owner, process string) {
	p := a.budget.root.below(owner).below(process)
	if p.conns == nil {
		p.conns = map[*Account]struct{}{}
		p.long.Store(firstAnswers)
	}
	p.conns[a] = struct{}{}
	a.up = p
}

// leaveLocked takes the account out of the tree.
func (a *Account) leaveLocked() {
	p := a.up
	delete(p.conns, a)
	if o := p.up; len(p.conns) == 0 {
		delete(o.named, p.name)
		if len(o.named) == 0 {
			delete(o.up.named, o.name)
		}
	}
}

func (a *Account) below(name string) *Account {
	n := a.named[name]
	if n == nil {
		n = &Account{budget: a.budget, up: a, name: name}
		if a.named == nil {
			a.named = map[string]*Account{}
		}
		a.named[name] = n
	}
	return n
}

// Move gives the account to another owner. Nobody else may use it meanwhile.
func (a *Account) Move(owner, process string) {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	n := a.used.Load()
	a.add(-n)
	a.leaveLocked()
	a.joinLocked(owner, process)
	a.add(n)
}

// Close ends the account, which holds nothing any more.
func (a *Account) Close() {
	if a == nil {
		return
	}
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.leaveLocked()
}

// process is the account of the process that a connection's is below.
func (a *Account) process() *Account {
	if a == nil {
		return nil
	}
	return a.up
}

// Used is what the account holds, in bytes.
func (a *Account) Used() int64 {
	if a == nil {
		return 0
	}
	return a.used.Load()
}

// firstAnswers is what the answers to a process are expected to have before there were
// any, in bytes.
const firstAnswers = 1 << 20

// expect notes that an answer of n bytes to a read has come. What is expected of the next
// ones is the longest of the last few dozens.
func (a *Account) expect(n int64) {
	if a != nil {
		l := &a.up.long
		l.Store(max(n, l.Load()*15/16)) // one of two at once may be lost
	}
}

// Reads counts n more reads of the connection whose answers are awaited.
func (a *Account) Reads(n int64) {
	if a != nil {
		a.reads.Add(n)
		a.up.reads.Add(n)
	}
}

// Awaits says whether the answers to a process's reads are likely to find room: a
// sixteenth of the budget, a quarter of what one connection may have of them. A
// connection's only one always is.
func (a *Account) Awaits() bool {
	return a == nil || a.reads.Load() <= 1 || a.up.reads.Load()*a.up.long.Load() <= a.budget.max/16
}

// add counts n more bytes at all levels.
func (a *Account) add(n int64) {
	if n == 0 {
		return
	}
	for ; a != nil; a = a.up {
		switch now := a.used.Add(n); {
		case a.up == nil:
		case now == n:
			a.up.active.Add(1)
		case now == 0:
			a.up.active.Add(-1)
		}
	}
}

// Take takes n bytes, or says why there are none for this account.
func (a *Account) Take(use Use, n int64) error { return a.takeFor(a, nil, use, n) }

// takeFor takes n bytes on behalf of another account, whose share decides whether there
// are any: many have what is sent to one host, and the greedy among them must not keep the
// others from it. What is queued for it there counts, also when it waits no more.
func (a *Account) takeFor(asker *Account, queue *requests, use Use, n int64) error {
	if a == nil || n == 0 {
		return nil
	}
	b := a.budget
	a.add(n)
	of := b.used[use].Add(n)
	if !b.short() && (use != ForRequests || of <= b.max/2) {
		return nil
	}
	if b.large.drop() && !b.short() && use != ForRequests {
		return nil
	}
	err := asker.judge(queue, use)
	if err != nil {
		a.Give(use, n)
		b.refused[use].Add(1)
	}
	return err
}

// short says that only those may have more that have less than a fair share.
func (b *Budget) short() bool { return b.root.used.Load() > b.max-b.max/8 }

// larges are the buffers that connections of the account's budget use again.
func (a *Account) larges() *largeBuffers {
	if a == nil {
		return nil
	}
	return &a.budget.large
}

// Force takes n bytes that are there already: as little as an answer that must be
// given, or a few bytes of a frame.
func (a *Account) Force(use Use, n int64) {
	if a != nil {
		a.add(n)
		a.budget.used[use].Add(n)
	}
}

// Give gives n bytes back.
func (a *Account) Give(use Use, n int64) { a.Force(use, -n) }

// judge says whether the account may keep what it has just taken beyond what
// everyone may. What a queue has to be sent for it counts as its own.
func (a *Account) judge(queue *requests, use Use) error {
	b := a.budget
	fair := b.max - b.max/8
	if use == ForRequests {
		fair = b.max / 2
	}
	for _, at := range [...]*Account{a.up.up, a.up, a} {
		if fair /= max(1, at.up.active.Load()); at.used.Load()+queue.sentFor(at) > fair {
			continue
		}
		b.reclaim()
		if b.root.used.Load() > b.max {
			break
		}
		return nil
	}
	return a.tooMuch()
}

func (a *Account) tooMuch() error {
	process, owner := a.up, a.up.up
	of := ""
	if process.name != "" {
		of = fmt.Sprintf(", %s of it %s", process.name, mib(process.used.Load()))
	}
	return fmt.Errorf("%w: of buffer_size %s %s holds %s%s, this connection %s: read the answers, send less at a time, or raise buffer_size",
		ErrBusy, mib(a.budget.max), owner.name, mib(owner.used.Load()), of, mib(a.used.Load()))
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// searchEvery is how often the greediest is looked for at most.
const searchEvery = 10 * time.Millisecond

// reclaim makes the greediest give: of the owner that holds most the process that
// holds most, and of that the connections that do, until what is taken is below
// 7/8 again. A frame that has not come is dropped, and answered with BUSY; a
// connection whose answers have waited for a second is closed. What requests hold that wait
// comes back by itself: where the greediest has nothing else the next one gives that
// holds more than its share.
func (b *Budget) reclaim() {
	now := time.Now().UnixNano()
	if last := b.search.Load(); now-last < int64(searchEvery) || !b.search.CompareAndSwap(last, now) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	fair := b.max - b.max/8
	over := b.root.used.Load() - fair
	fair /= max(1, b.root.active.Load())
	for _, owner := range greedy(maps.Values(b.root.named), fair) {
		of := fair / max(1, owner.active.Load())
		for _, process := range greedy(maps.Values(owner.named), of) {
			if b.giveLocked(process, over) {
				return
			}
		}
	}
}

// giveLocked makes the connections of a process give so much, and says whether any
// does.
func (b *Budget) giveLocked(process *Account, over int64) (gives bool) {
	for _, a := range greedy(maps.Keys(process.conns), 0) {
		if over <= 0 {
			break
		}
		if a.giver == nil {
			continue
		}
		if n := a.giver.give(); n > 0 {
			b.taken.Add(1)
			over -= n
			gives = true
		}
	}
	return gives
}

// greedy returns the accounts that hold more than so much, the greediest first.
func greedy(list iter.Seq[*Account], than int64) (found []*Account) {
	held := map[*Account]int64{} // one look, so that the order is one
	for a := range list {
		if n := a.used.Load(); n > than {
			held[a] = n
			found = append(found, a)
		}
	}
	slices.SortFunc(found, func(x, y *Account) int { return cmp.Compare(held[y], held[x]) })
	return found
}

// greediest is the account below that holds most. The lock is held.
func (a *Account) greediest() (most *Account) {
	for _, n := range a.named {
		if most == nil || n.used.Load() > most.used.Load() {
			most = n
		}
	}
	return most
}
