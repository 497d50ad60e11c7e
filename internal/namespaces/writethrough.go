package namespaces

import (
	"context"
	"errors"
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
	context context.Context
	cancel  context.CancelFunc
	asking  context.Context    // of calls of the origin; ends with context, or before
	end     context.CancelFunc // ends asking
	pending sync.WaitGroup     // writes under way, and their settling

	mu     sync.Mutex
	closed bool
	keys   map[kv.Hash]*writing

	ended     [writeEnds]atomic.Int64
	unsettled atomic.Int64 // now
}

// WriteEnd is how a write ended, for the counters.
type WriteEnd uint8

const (
	WriteNotAsked WriteEnd = iota // the origin was not asked
	WriteStored
	WriteRefused
	WriteUnknown
	WriteShed
	writeEnds
)

// Write is one write, with its steps on this host.
type Write struct {
	Key kv.Key
	// Now does the write in the key's turn. settled is false if another host may own the key and may have
	// kept what it loaded before the origin's write was done. A reply that is no error is then true only
	// once that is settled.
	Now func(ctx context.Context) (r wire.Reply, end WriteEnd, settled bool)
	// Settle deletes the key at its owner, whichever host that is. It returns once the deletion is done,
	// with its version.
	Settle func(ctx context.Context) (version uint64, err error)
	Lost   func() wire.Reply // the answer if it cannot be settled in settleTime
}

// settleTime is how long an app waits for the settling of its write.
const settleTime = time.Second

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
	t := &WriteThrough{keys: map[kv.Hash]*writing{}}
	t.context, t.cancel = context.WithCancel(context.Background())
	t.asking, t.end = context.WithCancel(t.context)
	return t
}

// aim makes later writes go to an origin.
func (t *WriteThrough) aim(o *origin.Origin) {
	l := &o.Guard.Config
	t.target.Store(&target{origin: o, places: loader.NewQueue(l.Concurrency, l.Queue, l.QueueTime)})
}

// close ends the writes under way, and waits for them.
func (t *WriteThrough) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.pending.Wait()
}

// ErrUnderWay means that a write goes on without its request.
var ErrUnderWay = errors.New("the write is under way")

// Do does a write in its key's turn. An error other than ErrUnderWay means that the write did not begin.
func (t *WriteThrough) Do(ctx context.Context, w *Write) (r wire.Reply, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.asking, cancel)()
	leave, err := t.takeTurn(ctx, w.Key.Hash)
	if err != nil {
		t.ended[WriteShed].Add(1)
		return r, err
	}
	result := make(chan wire.Reply, 2) // the first one is the answer
	go t.finish(w, leave, result)
	select {
	case r = <-result:
		return r, nil
	case <-ctx.Done():
		return r, ErrUnderWay
	}
}

// finish is a goroutine that ends with the write, in the request's time, and its settling; or with close.
func (t *WriteThrough) finish(w *Write, leave func(), result chan<- wire.Reply) {
	ctx, cancel := context.WithTimeout(t.asking, t.target.Load().origin.Guard.Config.Timeout)
	r, end, settled := w.Now(ctx)
	cancel()
	if !settled { // in the write's turn
		t.unsettled.Add(1)
		t.pending.Add(1)
		defer t.pending.Done()
	}
	leave()
	if settled || r.Status.IsError() { // else the answer depends on the settling
		t.ended[end].Add(1)
		result <- r
	}
	if settled {
		return
	}
	late := time.AfterFunc(settleTime, func() { result <- w.Lost() })
	version, err := w.Settle(t.context)
	if err == nil {
		t.unsettled.Add(-1)
	}
	switch r.Version = version; {
	case r.Status.IsError():
	case err == nil:
		t.ended[WriteStored].Add(1)
	default:
		t.ended[WriteUnknown].Add(1)
		r = w.Lost()
	}
	if late.Stop() {
		result <- r
	}
}

// takeTurn waits for the turn of a key and for a place. The caller must call leave.
func (t *WriteThrough) takeTurn(ctx context.Context, h kv.Hash) (leave func(), err error) {
	t.mu.Lock()
	w := t.keys[h]
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
	t.keys[h] = w
	t.pending.Add(1)
	t.mu.Unlock()
	gone := func() {
		t.mu.Lock()
		if w.n--; w.n == 0 {
			delete(t.keys, h)
		}
		t.mu.Unlock()
		t.pending.Done()
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
	if t.asking.Err() != nil {
		return flight.ErrClosed
	}
	return fmt.Errorf("%w: %s", loader.ErrBusy, why)
}

// writes reports whether a key is being written. It may be called on nil.
func (t *WriteThrough) writes(h kv.Hash) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys[h] != nil
}

// AskOrigin writes to the origin. A panic in code of the embedding program becomes the error
// of this write; otherwise it would end the caches of all namespaces.
func (t *WriteThrough) AskOrigin(ctx context.Context, q *wire.Request, key []byte) (err error) {
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
	v := flight.ValueOf(q.Value, q.Attributes)
	return o.Write(ctx, key, &v)
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

// Unsettled counts the writes whose end the owners of their keys have not acknowledged.
func (t *WriteThrough) Unsettled() int64 { return t.unsettled.Load() }

// Busy reports whether writes are under way, or not settled.
func (t *WriteThrough) Busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.keys) > 0 || t.unsettled.Load() > 0
}

// supersede notes a late write of a key. It may be called on nil.
func (t *WriteThrough) supersede(h kv.Hash) {
	if t == nil || failpoint.Out(failpoint.Superseded) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.keys[h]; w != nil {
		w.superseded = true
	}
}

// IsSuperseded reports whether the write in its turn must not be stored. It is called
// after the write has been stored: then either the deletion for the late write removes
// the value, or the caller does.
func (t *WriteThrough) IsSuperseded(h kv.Hash) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys[h].superseded
}

// stats returns the write-through's part of STATS. It may be called on nil, and then returns zero.
func (t *WriteThrough) stats() (s cachesidecar.ThroughStats) {
	if t == nil {
		return s
	}
	s = cachesidecar.ThroughStats{
		Stored:  t.ended[WriteStored].Load(),
		Refused: t.ended[WriteRefused].Load(), Unknown: t.ended[WriteUnknown].Load(),
		Shed: t.ended[WriteShed].Load(), Unsettled: t.unsettled.Load(),
	}
	s.UnderWay, s.Waiting = t.target.Load().places.Len()
	return s
}
