package client

import (
	"context"
	"errors"
	"hash/maphash"
	"slices"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

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
		_ = s.beginTask(context.Background(), func(ctx context.Context) { sendHits(ctx, c) })
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
	case c.hits.sending <- struct{}{}:
		defer func() { <-c.hits.sending }()
	case <-ctx.Done():
		return
	}
	c.hits.due.Store(false) // before the counts are read: a read that comes later makes it due
	for _, t := range c.hits.tallies() {
		at := slices.IndexFunc(c.slots, func(s *slot) bool { return s.Live() != nil })
		if at < 0 || ctx.Err() != nil {
			return
		}
		if q := t.takeReport(); q != nil {
			a, err := c.do(ctx, c.slots[at], q)
			a.release()
			if errors.Is(err, cachesidecar.ErrTimeout) {
				return
			}
		}
	}
}
