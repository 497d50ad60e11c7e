package quota

import (
	"runtime"
	"sync"
	"time"
)

// Window bounds the work of requests that cannot be answered in place: of their goroutines, of the calls that these
// make, and of the hosts that are asked. Without it one process would have thousands of requests under way before
// each of another process: the processors, and the connections between hosts, serve in the order of arrival.
//
// While one process alone has work under way, a thousand requests may be. Once another process has some too, few may
// be, and the rest takes turns. As few again are kept for tenants with nothing under way, or less than half of an equal
// share, and half of them also for such processes. So these hardly ever wait, whatever others have under way.
//
// A request that is under way for long waits for something slow: an origin, or a host that does not answer. It
// counts no more from then on, so that it keeps no others from their turns.
type Window struct {
	few int // how much may be under way of more than one process

	mu         sync.Mutex
	young, old *generation
	aged       time.Time // when young was made
	queue      AccountQueue[*Work]
	looks      bool      // a timer is set: see look
	shared     time.Time // few may be under way until then
}

// generation is the work that has begun within some time, and that counts.
type generation struct {
	size, kept int                 // of all requests; of those in places that are kept
	of         [2]map[*Account]int // of each process's, and of each tenant's
}

// Work is the work of one request in a Window. The zero value has none.
type Work struct {
	window  *Window
	process *Account
	size    int
	kept    bool        // in a place that is kept for those that have little
	in      *generation // nil: it waits
	waiter  Waiter
	since   time.Time // when it began to wait
}

// Waiter is told, once, that it is its turn, and how long it has waited for that. TurnCame must not wait.
type Waiter interface{ TurnCame(waited time.Duration) }

// The bounds of a window.
const (
	aloneWork   = 1024                  // under way, of one process alone
	processWork = 32                    // under way of more processes, for each processor
	longWork    = 10 * time.Millisecond // work counts for twice as long, at most
	sharedTime  = time.Second           // since more than one process has last had work under way
)

// NewWindow returns a window that suits the processors.
func NewWindow() *Window {
	return &Window{few: processWork * runtime.GOMAXPROCS(0), young: newGeneration(), old: newGeneration()}
}

func newGeneration() *generation {
	return &generation{of: [2]map[*Account]int{{}, {}}}
}

// Begin begins the work k of an account's request, and returns true. Or it returns false, and waiter is told once it is
// the request's turn. size is 1 for the work of one key; more than may be under way counts as that. A nil account is
// this process, which never waits. End ends the work.
func (w *Window) Begin(k *Work, by *Account, size int, waiter Waiter) (begun bool) {
	if by == nil {
		return true
	}
	*k = Work{window: w, process: by.Process(), size: min(size, w.few), waiter: waiter}
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if w.age(now); w.others(k.process) {
		w.shared = now.Add(sharedTime)
	}
	switch {
	case w.queue.Len() == 0 && w.used()+k.size <= w.most(now):
	case w.mayHaveKept(k):
		k.kept = true
	default:
		k.since = now
		w.queue.Push(by, k)
		w.lookLater()
		return false
	}
	w.take(k)
	return true
}

// Wait begins the work of an account's request once it is its turn, and returns how long it has waited for that.
func (w *Window) Wait(k *Work, by *Account, size int) (waited time.Duration) {
	signal := make(turnSignal, 1)
	if w.Begin(k, by, size, signal) {
		return 0
	}
	return <-signal
}

type turnSignal chan time.Duration

func (signal turnSignal) TurnCame(waited time.Duration) { signal <- waited }

// End ends the work, and begins that of others.
func (k *Work) End() {
	w := k.window
	if w == nil {
		return
	}
	w.mu.Lock()
	k.in.add(k, -1)
	k.window = nil
	next := w.next()
	w.mu.Unlock()
	beginAll(next)
}

// Share notes that apps of another host ask this one: their requests are not to find thousands under way either.
func (w *Window) Share() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.others(nil) {
		w.shared = time.Now().Add(sharedTime)
	}
}

// Waiting returns how many requests wait for their turn.
func (w *Window) Waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queue.Len()
}

// The rest is called with the lock held.

// used returns how much is under way in places that are not kept.
func (w *Window) used() int { return w.young.size - w.young.kept + w.old.size - w.old.kept }

// mayHaveKept says whether a request may have one of the places that are kept.
func (w *Window) mayHaveKept(k *Work) bool {
	kept := w.young.kept + w.old.kept + k.size
	return kept <= w.few && w.hasLittle(1, k.process.up, k.size) || kept <= w.few/2 && w.hasLittle(0, k.process, k.size)
}

// hasLittle says whether a process or a tenant has little under way, with a request of a size.
func (w *Window) hasLittle(level int, a *Account, size int) bool {
	young, old := w.young.of[level], w.old.of[level]
	has := young[a] + old[a]
	return has == 0 || has+size <= w.few/2/max(len(young), len(old))
}

// most returns how much may be under way now.
func (w *Window) most(now time.Time) int {
	if now.Before(w.shared) {
		return w.few
	}
	return max(aloneWork, w.few)
}

func (w *Window) take(k *Work) {
	k.in = w.young
	k.in.add(k, 1)
}

// add counts n more of a request's work.
func (g *generation) add(k *Work, n int) {
	g.size += n * k.size
	if k.kept {
		g.kept += n * k.size
	}
	for level, a := range [...]*Account{k.process, k.process.up} {
		if g.of[level][a] += n * k.size; g.of[level][a] == 0 {
			delete(g.of[level], a)
		}
	}
}

// others says whether another process has work under way.
func (w *Window) others(process *Account) bool {
	return w.young.others(process) || w.old.others(process)
}

func (g *generation) others(process *Account) bool {
	of := g.of[0]
	return len(of) > 1 || len(of) == 1 && of[process] == 0
}

// age begins another generation if it is time to. What was old counts no more.
func (w *Window) age(now time.Time) {
	d := now.Sub(w.aged)
	if d < longWork {
		return
	}
	if w.old = w.young; d >= 2*longWork {
		w.old = newGeneration()
	}
	w.young, w.aged = newGeneration(), now
}

// next returns the work whose turn it is, once half of the window is free: many requests that begin together go to
// another host in one write.
func (w *Window) next() (list []*Work) {
	if w.queue.Len() == 0 {
		return nil
	}
	now := time.Now()
	w.age(now)
	most := w.most(now)
	if w.used() > most/2 {
		return nil
	}
	for w.queue.Len() > 0 && w.used() < most {
		k := w.queue.Pop()
		w.take(k)
		list = append(list, k)
	}
	return list
}

// beginAll begins work. The lock is not held.
func beginAll(list []*Work) {
	if len(list) == 0 {
		return
	}
	now := time.Now()
	for _, k := range list {
		k.waiter.TurnCame(now.Sub(k.since))
	}
}

// lookLater has look called, while requests wait.
func (w *Window) lookLater() {
	if !w.looks && w.queue.Len() > 0 {
		w.looks = true
		time.AfterFunc(longWork, w.look)
	}
}

// look begins the work whose turn it is because others are under way for long.
func (w *Window) look() {
	w.mu.Lock()
	w.looks = false
	next := w.next()
	w.lookLater()
	w.mu.Unlock()
	beginAll(next)
}
