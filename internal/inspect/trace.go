package inspect

import (
	"context"
	"slices"
	"sync"
	"time"
)

// What a call may wait for.
const (
	Turn      = "turn"      // its turn among requests that cannot be answered in place
	Order     = "order"     // earlier requests of its connection for the same key
	Owner     = "owner"     // the host that owns the key
	Ownership = "ownership" // a host that takes the key's partition over
	Handoff   = "handoff"   // the entry, from the last owner
	Load      = "load"      // a load of the key, its own or one under way
	Limits    = "limits"    // the limits before the origin: concurrency and rate
	Origin    = "origin"    // the origin itself
	Token     = "token"     // the app that loads the key
	Acks      = "acks"      // the acknowledgements of other hosts
)

// Part is time that a call waited.
type Part struct {
	What string
	Node string // the host that was waited for; "": none
	Took time.Duration
}

// maxParts bounds the parts of a call.
const maxParts = 8

// Trace collects the parts of a call's time. The zero value is ready.
type Trace struct {
	mu    sync.Mutex
	parts []Part
}

// leastPart is the shortest wait that is noted.
const leastPart = 100 * time.Microsecond

// Add notes that the call has waited. Parts of one kind and node become one; what was
// waited for at the same time adds up.
func (t *Trace) Add(what, node string, took time.Duration) {
	if took < leastPart {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.parts, func(p Part) bool { return p.What == what && p.Node == node })
	switch {
	case i >= 0:
		t.parts[i].Took += took
	case len(t.parts) < maxParts:
		t.parts = append(t.parts, Part{what, node, took})
	}
}

// Parts returns the parts so far, in the order in which they began.
func (t *Trace) Parts() []Part {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.parts)
}

type traceKey struct{}

// WithTrace returns a context whose calls note their waits in t.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// BeginWait begins to wait; the function that it returns ends the wait. Without a Trace in the
// context neither does anything.
func BeginWait(ctx context.Context, what, node string) (end func()) {
	t, _ := ctx.Value(traceKey{}).(*Trace)
	if t == nil {
		return func() {}
	}
	began := time.Now()
	return func() { t.Add(what, node, time.Since(began)) }
}
