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
	Namespace string
	Key       []byte // the first of several
	Hash      kv.Hash
	Keys      int
	Result    string
	Parts     []Part

	Began int64 // on the wall clock, milliseconds since the Unix epoch
	Took  time.Duration
	ended time.Duration // on the boot clock
}

// SlowList keeps the slowest calls of one kind. The zero value is ready.
type SlowList struct {
	full  atomic.Bool  // there are mostSlow calls, and
	least atomic.Int64 // a new one must take longer than this, or
	until atomic.Int64 // come after this moment of the boot clock

	mu    sync.Mutex
	calls []SlowCall
}

// Note notes a call that took some time and ends now. It calls describe only if it keeps
// the call; the bytes in the description become the list's.
func (l *SlowList) Note(took time.Duration, now kv.Moment, describe func() SlowCall) {
	if took < SlowThreshold || l.full.Load() && int64(took) <= l.least.Load() && int64(now.Boot) <= l.until.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(now.Boot)
	if len(l.calls) == mostSlow {
		i := l.fastest()
		if took <= l.calls[i].Took {
			return
		}
		l.calls = slices.Delete(l.calls, i, i+1)
	}
	c := describe()
	c.Began, c.Took, c.ended = now.Wall-took.Milliseconds(), took, now.Boot
	l.calls = append(l.calls, c)
	if len(l.calls) == mostSlow {
		l.least.Store(int64(l.calls[l.fastest()].Took))
		l.until.Store(int64(l.calls[0].ended + SlowAge)) // the first is the oldest
	}
	l.full.Store(len(l.calls) == mostSlow)
}

// drop removes the calls that are too old.
func (l *SlowList) drop(now time.Duration) {
	l.calls = slices.DeleteFunc(l.calls, func(c SlowCall) bool { return c.ended+SlowAge < now })
}

func (l *SlowList) fastest() int {
	at := 0
	for i := range l.calls {
		if l.calls[i].Took < l.calls[at].Took {
			at = i
		}
	}
	return at
}

// Slowest returns the n slowest calls of the namespaces that see accepts, the slowest
// first.
func (l *SlowList) Slowest(n int, now time.Duration, see func(namespace string) bool) []SlowCall {
	l.mu.Lock()
	l.drop(now)
	list := slices.Clone(l.calls)
	l.mu.Unlock()
	list = slices.DeleteFunc(list, func(c SlowCall) bool { return !see(c.Namespace) })
	slices.SortStableFunc(list, func(a, b SlowCall) int { return cmp.Compare(b.Took, a.Took) })
	return list[:min(n, len(list))]
}
