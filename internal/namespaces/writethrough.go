package namespaces

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/origin"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// With write-through the owner of a key writes to the origin before it stores the value:
//
//	the key's turn      one write of a key at a time, and no load of it is kept
//	a place             from the namespace's own queue, apart from the places of loads
//	invalidated         so that no old value outlives this host's ownership
//	the origin          has done it, has refused it, or the outcome is unknown
//	stored              if the origin has it and the ownership is the same
//	invalidated again   if the origin has not, or may have: the next read loads the key
//	settled             if the ownership is not the same: see Unsettles
//
// A request that cannot wait so long is told that the outcome is unknown. The write goes
// through all of these steps without it.

// WriteThrough is the write-through of a namespace.
type WriteThrough struct {
	target  atomic.Pointer[target] // of writes that begin now
	Context context.Context
	cancel  context.CancelFunc
	Asking  context.Context    // of calls of the origin; ends with Context, or before
	end     context.CancelFunc // ends Asking
	Pending sync.WaitGroup     // writes under way, and their settling

	mu     sync.Mutex
	closed bool
	Keys   map[kv.Hash]*writing

	Stored, Refused, Unknown, Shed atomic.Int64
	Unsettled                      atomic.Int64 // now
}

// target is where writes go, and within which limits.
type target struct {
	origin *origin.Origin
	places *loader.Queue
}

// writing is the writes of a key: the one in its turn, and those that wait.
type writing struct {
	turn       chan struct{} // has an element while a write has its turn
	n          int           // writes; under WriteThrough.mu, like superseded
	superseded bool          // the write in its turn, by one that another host had begun before
}

// maxWriting bounds the writes of one key.
const maxWriting = 1024

func newWriteThrough() *WriteThrough {
	t := &WriteThrough{Keys: map[kv.Hash]*writing{}}
	t.Context, t.cancel = context.WithCancel(context.Background())
	t.Asking, t.end = context.WithCancel(t.Context)
	return t
}

// aim makes later writes go to an origin.
func (t *WriteThrough) aim(o *origin.Origin) {
	l := &o.Guard.Config
	t.target.Store(&target{origin: o, places: loader.NewQueue(l.Concurrency, l.Queue, l.QueueTime)})
}

// Timeout returns how long a write may take.
func (t *WriteThrough) Timeout() time.Duration { return t.target.Load().origin.Guard.Config.Timeout }

// close ends the writes under way, and waits for them.
func (t *WriteThrough) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.Pending.Wait()
}

// Enter waits for the turn of a key and for a place. The caller must call leave.
func (t *WriteThrough) Enter(ctx context.Context, h kv.Hash) (leave func(), err error) {
	t.mu.Lock()
	w := t.Keys[h]
	if w == nil {
		w = &writing{turn: make(chan struct{}, 1)}
	}
	switch {
	case t.closed:
		t.mu.Unlock()
		return nil, flight.ErrClosed
	case w.n >= maxWriting:
		t.mu.Unlock()
		return nil, fmt.Errorf("%w: %d writes of the key wait already", loader.ErrBusy, w.n)
	}
	w.n++
	t.Keys[h] = w
	t.Pending.Add(1)
	t.mu.Unlock()
	gone := func() {
		t.mu.Lock()
		if w.n--; w.n == 0 {
			delete(t.Keys, h)
		}
		t.mu.Unlock()
		t.Pending.Done()
	}
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		gone()
		return nil, t.late("other writes of the key took the request's time")
	}
	place, err := t.target.Load().places.Enter(ctx)
	if err != nil {
		<-w.turn
		gone()
		if ctx.Err() != nil {
			err = t.late("other writes took the request's time")
		}
		return nil, err
	}
	t.mu.Lock()
	w.superseded = false
	t.mu.Unlock()
	return func() {
		place()
		<-w.turn
		gone()
	}, nil
}

// late returns the error of a request that has waited until its end. Nothing was done.
func (t *WriteThrough) late(why string) error {
	if t.Asking.Err() != nil {
		return flight.ErrClosed
	}
	return fmt.Errorf("%w: %s", loader.ErrBusy, why)
}

// Writes reports whether a key is being written. A load of the key must then not be kept,
// since it may have read the value from before. It may be called on nil.
func (t *WriteThrough) Writes(h kv.Hash) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Keys[h] != nil
}

// Write writes to the origin. A panic in code of the embedding program becomes the error
// of this write; otherwise it would end the caches of all namespaces.
func (t *WriteThrough) Write(ctx context.Context, q *wire.Request, key []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("its Writer panicked: %v", p)
		}
	}()
	o := t.target.Load().origin
	for !o.Hold() { // a reload has put another in its place, or none
		next := t.target.Load().origin
		if next == o {
			return fmt.Errorf("%w: the origin has been taken out of the configuration", loader.ErrNotWritten)
		}
		o = next
	}
	defer o.Release()
	if err := o.Keys.Check(key); err != nil { // a reload may have brought another key_pattern
		return fmt.Errorf("%w: %w", loader.ErrNotWritten, err)
	}
	if q.Op == wire.OpDelete {
		return o.Write(ctx, key, nil)
	}
	return o.Write(ctx, key, &loader.Value{Bytes: q.Value, Flags: q.Flags})
}

// A write-through may end when its key has gone to another host: this host has left, did
// not run for a while, or is assigned fewer keys. The owner at that time may have loaded
// what the origin had before the write. Such a write is unsettled until that owner, or a
// later one, has acknowledged that it has deleted the key, with the namespace's load
// barrier. The owner then
//
//	does not keep   loads from before, and loads within the barrier
//	does not store  its own write of the key, if one is under way: the origin may
//	                have done it before the late one
//
// The deletion is tried again until then, also while this host leaves. At most
// MaxUnsettled writes of a namespace, and those under way by then, wait like this;
// meanwhile no write begins.

// MaxUnsettled bounds the unsettled writes of a namespace. Each has a goroutine and a
// key.
const MaxUnsettled = 1024

// Unsettles counts a write that is not settled; the caller then settles it. It is called
// in the write's turn.
func (t *WriteThrough) Unsettles() {
	t.Unsettled.Add(1)
	t.Pending.Add(1)
}

// Busy reports whether writes are under way, or not settled.
func (t *WriteThrough) Busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.Keys) > 0 || t.Unsettled.Load() > 0
}

// SupersedeWrite notes a late write of a key. It is called before the key is deleted for that
// write. It may be called on nil.
func (t *WriteThrough) SupersedeWrite(h kv.Hash) {
	if t == nil || failpoint.Out(failpoint.Superseded) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.Keys[h]; w != nil {
		w.superseded = true
	}
}

// IsSuperseded reports whether the write in its turn must not be stored. It is called
// after the write has been stored: then either the deletion for the late write removes
// the value, or the caller does.
func (t *WriteThrough) IsSuperseded(h kv.Hash) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Keys[h].superseded
}

// WriteThroughStats returns the write-through's part of STATS; zero without one.
func (ns *Namespace) WriteThroughStats() (s cachesidecar.ThroughStats) {
	t := ns.through
	if t == nil {
		return s
	}
	s = cachesidecar.ThroughStats{
		Configured: ns.WriteThrough != nil, Stored: t.Stored.Load(), Refused: t.Refused.Load(),
		Unknown: t.Unknown.Load(), Shed: t.Shed.Load(), Unsettled: t.Unsettled.Load(),
	}
	s.UnderWay, s.Waiting = t.target.Load().places.Len()
	return s
}
