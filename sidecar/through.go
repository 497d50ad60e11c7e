package sidecar

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/strike"
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

// through is a namespace's write-through.
type through struct {
	writer  loader.Writer
	places  *loader.Queue
	timeout time.Duration // of a write
	ctx     context.Context
	cancel  context.CancelFunc
	asking  context.Context    // the origin; ends with ctx, or before
	end     context.CancelFunc // of that
	wg      sync.WaitGroup     // of writes under way

	mu     sync.Mutex
	closed bool
	keys   map[kv.Hash]*writing

	stored, refused, unknown, shed atomic.Int64
	unsettled                      atomic.Int64 // now
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

func newThrough(w loader.Writer, l Limits) *through {
	t := &through{
		writer:  w,
		places:  loader.NewQueue(cmp.Or(l.Concurrency, defaultPlaces), cmp.Or(l.Queue, defaultQueue), cmp.Or(l.QueueTime, defaultQueueTime)),
		timeout: cmp.Or(l.Timeout, defaultWriteTime),
		keys:    map[kv.Hash]*writing{},
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.asking, t.end = context.WithCancel(t.ctx)
	return t
}

// close ends the writes under way.
func (t *through) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.cancel()
	t.wg.Wait()
}

// enter waits for a key's turn and for a place. Whoever has them calls leave.
func (t *through) enter(ctx context.Context, h kv.Hash) (leave func(), err error) {
	t.mu.Lock()
	w := t.keys[h]
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
	t.keys[h] = w
	t.wg.Add(1)
	t.mu.Unlock()
	gone := func() {
		t.mu.Lock()
		if w.n--; w.n == 0 {
			delete(t.keys, h)
		}
		t.mu.Unlock()
		t.wg.Done()
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
func (t *through) late(why string) error {
	if t.asking.Err() != nil {
		return loader.ErrClosed
	}
	return fmt.Errorf("%w: %s", loader.ErrBusy, why)
}

// writes says whether a key is written now: what is loaded of it is not to be
// kept, being perhaps what was there before.
func (t *through) writes(h kv.Hash) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys[h] != nil
}

// write asks the origin. A panic of an embedding program's code is that write's
// error, since it would take the caches of all other namespaces with it.
func (t *through) write(ctx context.Context, q *wire.Request, key []byte) (err error) {
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

func (ns *namespace) throughStats() (s wire.ThroughStats) {
	t := ns.through
	if t == nil {
		return s
	}
	s = wire.ThroughStats{Stored: t.stored.Load(), Refused: t.refused.Load(), Unknown: t.unknown.Load(), Shed: t.shed.Load()}
	s.UnderWay, s.Waiting = t.places.Len()
	s.Unsettled = t.unsettled.Load()
	return s
}

// through returns the namespace of a request that writes through, or nil. TOUCH
// changes nothing at the origin, what is deleted softly is only said to be
// outdated, and what settles a write was there before.
func (c *core) through(q *wire.Request) *namespace {
	switch {
	case q.Op == wire.OpDelete && (q.Has(wire.Soft) || q.Has(wire.Settle)):
		return nil
	case q.Op != wire.OpSet && q.Op != wire.OpDelete && q.Op != wire.OpIncr && q.Op != wire.OpFill:
		return nil
	}
	if ns := c.names.lookup(q.Namespace); ns != nil && ns.through != nil {
		return ns
	}
	return nil
}

// mayWrite says why a request cannot be written through.
func (c *core) mayWrite(ns *namespace, q *wire.Request, key []byte) *wire.Error {
	if err := checkKey(key); err != nil {
		return err
	}
	if q.Op == wire.OpIncr || q.Op == wire.OpFill || q.Op == wire.OpSet && q.Mode != wire.ModeSet {
		return wire.Errorf(wire.BadRequest, "namespace %s writes through to its origin, which knows no conditions, counters and tokens: SET without a condition, or DELETE", ns.name)
	}
	if n := len(q.Value); n > int(c.cfg.MaxValue) {
		return wire.Errorf(wire.TooLarge, "the value has %d bytes, max_value is %d: split it, or raise max_value", n, c.cfg.MaxValue)
	}
	if err := ns.origin.keys.Check(key); err != nil {
		return wire.Errorf(wire.BadRequest, "namespace %s: %v", ns.name, err)
	}
	return nil
}

// writeThrough writes one key, if this host holds it.
func (c *core) writeThrough(ctx context.Context, ns *namespace, q *wire.Request, k []byte, deadline time.Duration) (r wire.Reply, done bool) {
	if err := c.mayWrite(ns, q, k); err != nil {
		return errorReply(err), true
	}
	t := ns.through
	ctx, cancel := context.WithTimeout(ctx, deadline-c.clock.Read().Boot)
	defer cancel()
	defer context.AfterFunc(t.asking, cancel)()
	own := q.Clone() // which goes on without the request
	own.UntilNS = min(own.UntilNS, uint64(deadline))
	key := ns.key(bytes.Clone(k))
	leave, err := t.enter(ctx, key.Hash)
	if err != nil {
		t.shed.Add(1)
		return loadError(ns, err), true
	}
	result := make(chan wire.Reply, 1)
	go func() { // ends with the write, in the request's time, and its settling; or with close
		ctx, cancel := context.WithTimeout(t.asking, min(t.timeout, deadline-c.clock.Read().Boot))
		r, settled := c.writeNow(ctx, ns, &own, key)
		cancel()
		if !settled {
			t.unsettles()
		}
		leave()
		result <- r
		if !settled {
			c.settle(ns, &own, key.Bytes)
		}
	}()
	select {
	case r = <-result:
		return r, r.Status != wire.Moved
	case <-ctx.Done():
		return errorReply(wire.Errorf(wire.Timeout, "the origin of namespace %s did not answer in the request's time; the outcome is unknown: read the key, or write it again", ns.name)), true
	}
}

// writeNow is writeThrough, in its turn. It says whether that is all: else another
// host may hold what it has loaded before the origin was done.
func (c *core) writeNow(ctx context.Context, ns *namespace, q *wire.Request, key kv.Key) (r wire.Reply, settled bool) {
	t, p := ns.through, key.Hash.Partition()
	if n := t.unsettled.Load(); n >= maxUnsettled {
		t.shed.Add(1)
		return errorReply(wire.Errorf(wire.Busy, "namespace %s: the end of %d writes could not be told yet to the hosts that hold their keys now, so none begins: try again", ns.name, n)), true
	}
	now := c.clock.Read()
	c.node.Beat(now.Boot)
	holding := c.node.Holds(p)
	before := c.invalidate(ns, q, key, now)
	if holding == 0 || !deleted(&before) {
		return moved(), true // the origin has not been asked
	}
	if c.overdue(untilOf(q)) && !strike.Out(strike.OverdueOrigin) {
		return c.tooLate(q), true
	}
	err := t.write(ctx, q, key.Bytes)
	now = c.clock.Read()
	c.node.Beat(now.Boot)
	if held := c.node.Holds(p) == holding; err == nil && held {
		t.stored.Add(1)
		r = c.wroteThrough(ns, q, key, holding, before.Status, now)
		return r, r.Status != wire.Timeout
	}
	again := c.invalidate(ns, q, key, now)
	settled = deleted(&again)
	switch {
	case err == nil:
		t.unknown.Add(1)
		return lost(), settled
	case errors.Is(err, loader.ErrNotWritten):
		t.refused.Add(1)
		if errors.Is(err, loader.ErrBadKey) {
			return loadError(ns, err), true
		}
		return errorReply(wire.Errorf(wire.Origin, "%v", err)), true
	}
	t.unknown.Add(1)
	return errorReply(wire.Errorf(wire.Timeout, "%v; it may have written it, the outcome is unknown: read the key, or write it again", err)), settled
}

// deleted says whether a deletion has been done.
func deleted(r *wire.Reply) bool { return r.Status == wire.OK || r.Status == wire.Miss }

// wroteThrough does here what the origin has done. had says what there was. TIMEOUT
// says that the holding has ended.
func (c *core) wroteThrough(ns *namespace, q *wire.Request, key kv.Key, holding uint32, had wire.Status, now kv.Moment) wire.Reply {
	var r wire.Reply
	if q.Op == wire.OpSet {
		one := *q
		one.Key, one.UntilNS = key.Bytes, 0 // the origin has it
		// Where there is no room, or the origin has perhaps done an earlier write
		// after this one, who reads the key loads it.
		if r = c.set(ns, &one, now); r.Status != wire.OK || ns.through.isOvertaken(key.Hash) {
			r = c.invalidate(ns, q, key, now)
			r.Status = wire.OK
		}
	} else {
		r = c.invalidate(ns, q, key, now)
		r.Status = had
	}
	if !c.still(key.Hash.Partition(), holding) {
		return lost()
	}
	return r
}

// invalidate deletes a key here, with the namespace's hold.
func (c *core) invalidate(ns *namespace, q *wire.Request, key kv.Key, now kv.Moment) wire.Reply {
	b := borrowed{names: c.names}
	defer b.release()
	return c.deleteKey(&wire.Request{Op: wire.OpDelete, Namespace: []byte(ns.name), HoldMS: q.HoldMS}, key.Bytes, &b, now)
}
