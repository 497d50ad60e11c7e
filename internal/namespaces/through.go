package namespaces

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// With write_through who holds a key writes it to the origin before it stores it:
//
//	the key's turn      one write of a key at a time, and no load of it is kept
//	a place             of the namespace's own, apart from those of loads
//	invalidated         so that no old value outlives this host's holding
//	the origin          has it, has refused it, or nobody knows
//	stored              where it has it, and the key is held as it was
//	invalidated again   where it has not, or may have: what is read next is loaded
//	settled             where the key is not held as it was: see settle.go
//
// A request that cannot wait so long is told that the outcome is unknown; the
// write goes through all of this behind it.

// WriteThrough is a namespace's write-through.
type WriteThrough struct {
	writer  loader.Writer
	places  *loader.Queue
	Timeout time.Duration // of a write
	Context context.Context
	cancel  context.CancelFunc
	Asking  context.Context    // the origin; ends with ctx, or before
	end     context.CancelFunc // of that
	Pending sync.WaitGroup     // of writes under way

	mu     sync.Mutex
	closed bool
	Keys   map[kv.Hash]*writing

	Stored, Refused, Unknown, Shed atomic.Int64
	Unsettled                      atomic.Int64 // now
}

// writing is the writes of a key: one, and those that wait for it.
type writing struct {
	turn      chan struct{} // has an element while it is somebody's
	n         int           // under through.mu, as the next
	overtaken bool          // whose turn it is: by a write that another host had begun before
}

// maxWriting bounds the writes of one key.
const maxWriting = 1024

// The limits that are not given; loader.Guard has the same.
const (
	defaultPlaces    = 64
	defaultQueue     = 1024
	defaultQueueTime = time.Second
	defaultWriteTime = 5 * time.Second
)

func newThrough(w loader.Writer, l *loader.GuardConfig) *WriteThrough {
	t := &WriteThrough{
		writer:  w,
		places:  loader.NewQueue(cmp.Or(l.Concurrency, defaultPlaces), cmp.Or(l.Queue, defaultQueue), cmp.Or(l.QueueTime, defaultQueueTime)),
		Timeout: cmp.Or(l.Timeout, defaultWriteTime),
		Keys:    map[kv.Hash]*writing{},
	}
	t.Context, t.cancel = context.WithCancel(context.Background())
	t.Asking, t.end = context.WithCancel(t.Context)
	return t
}

// close ends the writes under way.
func (t *WriteThrough) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.Pending.Wait()
}

// Enter waits for a key's turn and for a place. Whoever has them calls leave.
func (t *WriteThrough) Enter(ctx context.Context, h kv.Hash) (leave func(), err error) {
	t.mu.Lock()
	w := t.Keys[h]
	if w == nil {
		w = &writing{turn: make(chan struct{}, 1)}
	}
	switch {
	case t.closed:
		t.mu.Unlock()
		return nil, loader.ErrClosed
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
	place, err := t.places.Enter(ctx)
	if err != nil {
		<-w.turn
		gone()
		if ctx.Err() != nil {
			err = t.late("other writes took the request's time")
		}
		return nil, err
	}
	t.mu.Lock()
	w.overtaken = false
	t.mu.Unlock()
	return func() {
		place()
		<-w.turn
		gone()
	}, nil
}

// late is the error of a request that has waited until its end. Nothing was done.
func (t *WriteThrough) late(why string) error {
	if t.Asking.Err() != nil {
		return loader.ErrClosed
	}
	return fmt.Errorf("%w: %s", loader.ErrBusy, why)
}

// Writes says whether a key is written now: what is loaded of it is not to be
// kept, being perhaps what was there before.
func (t *WriteThrough) Writes(h kv.Hash) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Keys[h] != nil
}

// Write asks the origin. A panic of an embedding program's code is that write's
// error, since it would take the caches of all other namespaces with it.
func (t *WriteThrough) Write(ctx context.Context, q *wire.Request, key []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("its Writer panicked: %v", p)
		}
	}()
	if q.Op == wire.OpDelete {
		return t.writer.Delete(ctx, key)
	}
	return t.writer.Store(ctx, key, loader.Value{Bytes: q.Value, Flags: q.Flags})
}

func (ns *Namespace) WriteThroughStats() (s wire.ThroughStats) {
	t := ns.WriteThrough
	if t == nil {
		return s
	}
	s = wire.ThroughStats{Stored: t.Stored.Load(), Refused: t.Refused.Load(), Unknown: t.Unknown.Load(), Shed: t.Shed.Load()}
	s.UnderWay, s.Waiting = t.places.Len()
	s.Unsettled = t.Unsettled.Load()
	return s
}
