package client

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Client is a client of the sidecar on this host.
type Client struct {
	*shared
	namespace []byte // nil: the connections' default
	near      nearView
	place     atomic.Pointer[place] // of the namespace in the shared memory; nil: not looked for
}

// shared is the state that all views of a Client share.
type shared struct {
	cfg   Config
	slots []*slot
	clock kv.Clock
	turn  atomic.Uint32
	seed  maphash.Seed
	loads loads

	memory memory
	hits   *hits

	closed context.Context
	close  context.CancelFunc
	tasks  sync.WaitGroup // of the near cache and of loads
}

// Dial connects to the sidecar. Its error says why it cannot connect. With Config.Lazy,
// an unavailable sidecar is not an error.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	return dialWith(ctx, cfg, nil)
}

func dialWith(ctx context.Context, cfg Config, clock kv.Clock) (*Client, error) {
	if clock == nil {
		clock = kv.NewSystemClock()
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &shared{cfg: cfg.withDefaults(), clock: clock, seed: maphash.MakeSeed()}
	s.loads.keys = map[loadKey]*queue{}
	s.closed, s.close = context.WithCancel(context.Background())
	c := &Client{shared: s}
	s.hits = newHits(func() { // it fails once the client is closed
		_ = c.begin(context.Background(), func(ctx context.Context) { sendHits(ctx, c) })
	})
	together := new(moves)
	for range s.cfg.Conns {
		s.slots = append(s.slots, newSlot(s, together))
	}
	if _, err := s.slots[0].get(ctx); err != nil && !(cfg.Lazy && errors.Is(err, cachesidecar.ErrUnavailable)) {
		s.close()
		return nil, err
	}
	if cfg.NearCache != (NearCache{}) {
		n, err := newNear(cfg.NearCache, clock, s.hits)
		if err != nil {
			_ = c.Close()
			return nil, err
		}
		c.near = nearView{cache: n}.in(s.cfg.Namespace)
		f := newFeed(s, nil, n.cfg.Bound/4)
		f.options = wire.All
		s.tasks.Go(func() { n.run(s.closed, f) }) // ends with Close, which waits
	}
	return c, nil
}

// InNamespace returns a view of the client with another namespace. The view shares the
// client's connections and near cache; closing either one closes both.
func (c *Client) InNamespace(name string) *Client {
	return &Client{shared: c.shared, namespace: []byte(name), near: c.near.in(name)}
}

// Close closes all connections, the near cache and every Watch. Calls in flight fail.
// Close cancels the context of functions that load, and waits for them.
func (c *Client) Close() error {
	last, cancel := context.WithTimeout(c.closed, c.cfg.DialTimeout)
	sendHits(last, c)
	cancel()
	c.loads.close()
	c.shared.close()
	c.tasks.Wait()
	for _, s := range c.slots {
		s.Redialer.Close()
	}
	return nil
}

// sendHits reports what was not reported yet. It makes no connection for that.
func sendHits(ctx context.Context, c *Client) {
	select {
	case c.hits.one <- struct{}{}:
		defer func() { <-c.hits.one }()
	case <-ctx.Done():
		return
	}
	c.hits.due.Store(false) // before the counts are read: a read that comes later makes it due
	for _, t := range c.hits.all() {
		at := slices.IndexFunc(c.slots, func(s *slot) bool { return s.Live() != nil })
		if at < 0 || ctx.Err() != nil {
			return
		}
		if q := t.take(); q != nil {
			a, err := c.do(ctx, c.slots[at], q)
			a.release()
			if errors.Is(err, cachesidecar.ErrTimeout) {
				return
			}
		}
	}
}

// slotFor returns the slot of a key. Calls of one key share a slot, so that they keep
// their order.
func (s *shared) slotFor(key []byte) *slot {
	if len(s.slots) == 1 {
		return s.slots[0]
	}
	return s.slots[maphash.Bytes(s.seed, key)%uint64(len(s.slots))]
}

func (s *shared) anySlot() *slot { return s.slots[int(s.turn.Add(1))%len(s.slots)] }

// connect returns a slot's connection. If that connection cannot be made, for example
// because the sidecar has reached its connection limit, connect returns another slot's
// live connection. It continues to return that one until no call is in flight on it: a
// call that was sent there and given up may still be executed, and calls of one key must
// keep their order.
func (s *shared) connect(ctx context.Context, want *slot) (*slot, *rpc.Client, error) {
	if l := want.lent.Load(); l != nil {
		if l.conn.Err() == nil && l.conn.InFlight() > 0 && !l.conn.Retiring() {
			return l.by, l.conn, nil
		}
		want.lent.CompareAndSwap(l, nil)
	}
	conn, err := want.get(ctx)
	if err == nil || !errors.Is(err, cachesidecar.ErrUnavailable) {
		return want, conn, connectError(err)
	}
	for _, other := range s.slots {
		if conn := other.Live(); conn != nil {
			want.lent.Store(&lent{other, conn})
			return other, conn, nil
		}
	}
	return want, nil, err
}

// do makes one call. The caller releases the answer, also after an error.
func (c *Client) do(ctx context.Context, s *slot, q *wire.Request) (a answer, err error) {
	return c.doWithin(ctx, s, q, c.timeout(ctx))
}

// timeout returns the time that a call has: until ctx's deadline, else RequestTimeout.
func (s *shared) timeout(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return time.Until(d)
	}
	return s.cfg.RequestTimeout
}

// leaseGrace is how much longer a LEASE waits than it tells the sidecar. A token that
// arrives after its caller has left would delay other callers.
const leaseGrace = 100 * time.Millisecond

// doWithin is do with a timeout.
func (c *Client) doWithin(
	ctx context.Context, s *slot, q *wire.Request, timeout time.Duration,
) (a answer, err error) {
	if !writes(q) {
		return call(ctx, c, s, q, timeout)
	}
	c.memory.begin(c.seed, q)
	a, err = call(ctx, c, s, q, timeout)
	c.memory.end(c.seed, q, err)
	return a, err
}

// call makes one call, if need be over a second connection.
func call(
	ctx context.Context, c *Client, s *slot, q *wire.Request, timeout time.Duration,
) (a answer, err error) {
	if q.Namespace == nil {
		q.Namespace = c.namespace
	}
	if err := ctx.Err(); err != nil {
		return a, callError(err)
	}
	all, began := timeout, time.Now()
	for attempt := 0; ; attempt++ {
		if q.Op == wire.OpFill && s.Live() == nil && s.moving() && !s.borrows() {
			return a, fmt.Errorf("%w: the sidecar closes, and its token has ended", cachesidecar.ErrUnavailable)
		}
		if a.from, a.conn, timeout, err = c.reach(ctx, s, timeout); err != nil {
			return a, err
		}
		if timeout, err = a.from.settle(ctx, a.conn, timeout); err != nil {
			return a, err
		}
		if err := supports(a.from.welcomeOf(a.conn), q); err != nil {
			return a, err
		}
		q.TimeoutMS = uint32(min(max(timeout.Milliseconds(), 1), wire.MaxTimeout))
		if q.UntilNS = 0; writes(q) && a.from.oneClock(a.conn) {
			q.UntilNS = c.givenUp(ctx, timeout)
		}
		grace := time.Duration(0)
		if q.Op == wire.OpLease {
			grace = leaseGrace
		}
		if a.call, err = a.conn.Do(ctx, timeout+grace, q); err == nil {
			if err = wire.DecodeAnswer(q, a.call.Frame(), &a.Reply); err != nil {
				return a, fmt.Errorf("%w: the sidecar's answer: %w", cachesidecar.ErrInternal, err)
			}
			return a, calls.Err(&a.Reply)
		}
		a.from.doubts(ctx, a.conn, began, err)
		again := errors.Is(err, rpc.ErrNotSent) || errors.Is(err, rpc.ErrClosed) && repeatable(q.Op)
		if !again || attempt > 0 && !errors.Is(err, rpc.ErrRetiring) {
			return a, callError(withReason(ctx, err))
		}
		a.release()
		a.conn, a.call = nil, nil
		timeout = max(all-time.Since(began), time.Millisecond)
	}
}

// supports returns ErrUnsupported if a sidecar's version of the protocol does not have a call.
// nil is a sidecar that is not known.
func supports(w *wire.Welcome, q *wire.Request) error {
	if q.Op == wire.OpHits && (w == nil || !slices.Contains(w.Features, "hits")) {
		return fmt.Errorf("%w: the sidecar takes no report of hits: upgrade the sidecar", cachesidecar.ErrUnsupported)
	}
	since := 1
	if q.Op == wire.OpMetaGet || q.Mode >= wire.ModeAppend || q.Has(wire.Unsigned|wire.CacheOnly) {
		since = 2
	}
	if w == nil || w.Version >= since {
		return nil
	}
	return fmt.Errorf("%w: the sidecar speaks version %d of the protocol, and this call needs version %d: "+
		"upgrade the sidecar", cachesidecar.ErrUnsupported, w.Version, since)
}

// reach is connect, but waits for a sidecar that has said that it closes, until it is
// back. It returns how much of the call's time is left.
func (s *shared) reach(ctx context.Context, want *slot, timeout time.Duration) (
	from *slot, conn *rpc.Client, left time.Duration, err error,
) {
	if want.lent.Load() == nil {
		if conn := want.Live(); conn != nil {
			return want, conn, timeout, nil
		}
	}
	if !want.moving() {
		from, conn, err = s.connect(ctx, want)
		return from, conn, timeout, err
	}
	began := time.Now()
	wait, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	from, conn, err = s.connect(wait, want)
	for want.again(wait, err) {
		from, conn, err = s.connect(wait, want)
	}
	switch {
	case err == nil:
		left = max(timeout-time.Since(began), time.Millisecond)
	case ctx.Err() != nil:
		err = callError(ctx.Err())
	case wait.Err() != nil:
		err = fmt.Errorf("%w: it has stopped, and was not started again in time: %w", cachesidecar.ErrUnavailable, err)
	}
	return from, conn, left, err
}

// givenUp returns the time on the boot clock at which a call that begins now is given up,
// because of its timeout or its context.
func (s *shared) givenUp(ctx context.Context, timeout time.Duration) uint64 {
	// Read the clock first: time that passes after this makes the result earlier.
	now := s.clock.Read().Boot
	if d, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(d))
	}
	return uint64(max(1, now+timeout-min(clockError, timeout/4)))
}

// writes reports whether a request is a write that must not be executed after it was
// given up.
func writes(q *wire.Request) bool {
	switch q.Op {
	case wire.OpSet, wire.OpDelete, wire.OpTouch, wire.OpIncr, wire.OpFill:
		return !q.Has(wire.Abandon)
	case wire.OpMetaGet:
		return q.Has(wire.Touch) || q.Has(wire.Claim)
	}
	return false
}

func repeatable(op wire.Op) bool {
	switch op {
	case wire.OpGet, wire.OpMGet, wire.OpLease, wire.OpPing, wire.OpStats, wire.OpMembers, wire.OpRing:
		return true
	}
	return false
}

// begin runs f on a new goroutine, with the values of ctx. The context of f ends with
// Close at the latest.
func (c *Client) begin(ctx context.Context, f func(context.Context)) error {
	c.loads.mu.Lock()
	defer c.loads.mu.Unlock()
	if c.loads.closed { // no task may begin while Close waits
		return cachesidecar.ErrClosed
	}
	c.beginLocked(ctx, f)
	return nil
}

func (c *Client) beginLocked(ctx context.Context, f func(context.Context)) {
	c.tasks.Go(func() { // Close waits for it
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(c.closed, cancel)()
		f(ctx)
	})
}
