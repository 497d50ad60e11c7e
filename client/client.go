package client

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar"
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

	// movesAt is when the sidecar last said that it closes, on the boot clock, in ns; zero: never. It tells
	// only those that are connected.
	movesAt atomic.Int64

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
		_ = s.begin(context.Background(), func(ctx context.Context) { sendHits(ctx, c) })
	})
	for range s.cfg.Conns {
		s.slots = append(s.slots, newSlot(s))
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

// Close closes all connections, the near cache and every Watch. Calls in flight fail, and later ones get ErrClosed.
// Close cancels the context of functions that load, and waits for them.
func (c *Client) Close() error {
	last, cancel := context.WithTimeout(c.closed, c.cfg.DialTimeout)
	sendHits(last, c)
	cancel()
	c.loads.close()
	c.shared.close()
	c.tasks.Wait()
	c.memory.reader.Store(nil) // no task attaches it again
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

// begin runs f on a new goroutine, with the values of ctx. The context of f ends with
// Close at the latest.
func (s *shared) begin(ctx context.Context, f func(context.Context)) error {
	s.loads.mu.Lock()
	defer s.loads.mu.Unlock()
	if s.loads.closed { // no task may begin while Close waits
		return cachesidecar.ErrClosed
	}
	s.beginLocked(ctx, f)
	return nil
}

func (s *shared) beginLocked(ctx context.Context, f func(context.Context)) {
	s.tasks.Go(func() { // Close waits for it
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(s.closed, cancel)()
		f(ctx)
	})
}
