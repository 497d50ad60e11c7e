package inspect

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Bounds of a SlowList.
const (
	SlowThreshold = 10 * time.Millisecond
	mostSlow      = 64
	SlowAge       = 10 * time.Minute
)

// SlowCall is a request or a load that was slow.
type SlowCall struct {
	Op        string
	Namespace string // set by Note
	Key       []byte // the first of several
	Hash      kv.Hash
	Keys      int
	Result    string
	Parts     []Part

	Began int64 // on the wall clock, milliseconds since the Unix epoch
	Took  time.Duration
	ended time.Duration // on the boot clock
}

// SlowList keeps the slowest calls of one kind, in equal shares of the namespaces that have some. The zero value is
// ready.
type SlowList struct {
	bar atomic.Pointer[bar]

	mu    sync.Mutex
	calls []SlowCall // by namespace, and as they came
}

// bar is what a call of a namespace that has its share must exceed. It holds until the list changes.
type bar struct {
	namespace string
	took      time.Duration // it must take longer than this, or
	until     time.Duration // come after this moment of the boot clock
}

// Note notes a call in a namespace that took some time and ends now. It calls describe only if it keeps
// the call; the bytes in the description become the list's.
func (l *SlowList) Note(namespace []byte, took time.Duration, now kv.Moment, describe func() SlowCall) {
	if took < SlowThreshold {
		return
	}
	if b := l.bar.Load(); b != nil && took <= b.took && now.Boot <= b.until && string(namespace) == b.namespace {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(now.Boot)
	if len(l.calls) == mostSlow {
		i := l.leavingLocked(namespace, took)
		if i < 0 {
			l.raiseBarLocked(namespace, took)
			return
		}
		l.calls = slices.Delete(l.calls, i, i+1)
	}
	c := describe()
	c.Namespace = string(namespace)
	c.Began, c.Took, c.ended = now.Wall-took.Milliseconds(), took, now.Boot
	at, _ := slices.BinarySearchFunc(l.calls, c.Namespace, func(c SlowCall, namespace string) int {
		if c.Namespace <= namespace {
			return -1
		}
		return 1
	})
	l.calls = slices.Insert(l.calls, at, c)
	l.bar.Store(nil)
}

// dropLocked removes the calls that are too old.
func (l *SlowList) dropLocked(now time.Duration) {
	before := len(l.calls)
	l.calls = slices.DeleteFunc(l.calls, func(c SlowCall) bool { return c.ended+SlowAge < now })
	if len(l.calls) < before {
		l.bar.Store(nil)
	}
}

// leavingLocked returns which call of a full list makes room for a new one: the fastest in the namespaces that have
// the most with it. It is -1 if that is the new one.
func (l *SlowList) leavingLocked(namespace []byte, took time.Duration) int {
	leaves, most, least := -1, 1, took // of a namespace that has none yet
	for i := 0; i < len(l.calls); {
		name, fastest, first := l.calls[i].Namespace, i, i
		for ; i < len(l.calls) && l.calls[i].Namespace == name; i++ {
			if l.calls[i].Took < l.calls[fastest].Took {
				fastest = i
			}
		}
		n, d := i-first, l.calls[fastest].Took
		if string(namespace) == name {
			if n++; took <= d {
				fastest, d = -1, took
			}
		}
		if n > most || n == most && d < least {
			leaves, most, least = fastest, n, d
		}
	}
	return leaves
}

// raiseBarLocked has calls of a namespace come to the lock only if they take longer. There is one bar: it stays with
// the namespace that was refused first.
func (l *SlowList) raiseBarLocked(namespace []byte, took time.Duration) {
	b := l.bar.Load()
	if b != nil && (string(namespace) != b.namespace || took <= b.took) {
		return
	}
	oldest := slices.MinFunc(l.calls, func(a, b SlowCall) int { return cmp.Compare(a.ended, b.ended) })
	l.bar.Store(&bar{string(namespace), took, oldest.ended + SlowAge})
}

// Slowest returns the n slowest calls of the namespaces that see accepts, the slowest
// first.
func (l *SlowList) Slowest(n int, now time.Duration, see func(namespace string) bool) []SlowCall {
	l.mu.Lock()
	l.dropLocked(now)
	list := slices.Clone(l.calls)
	l.mu.Unlock()
	list = slices.DeleteFunc(list, func(c SlowCall) bool { return !see(c.Namespace) })
	slices.SortStableFunc(list, func(a, b SlowCall) int { return cmp.Compare(b.Took, a.Took) })
	return list[:min(n, len(list))]
}
