package client

import (
	"bytes"
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Get returns a key's value. It returns ErrNotFound if the key has none.
func (c *Client) Get(ctx context.Context, key string, o cachesidecar.GetOptions) (cachesidecar.Item, error) {
	if it, ok, err := c.local(ctx, key, o); ok {
		return it, err
	}
	k := borrowed(key)
	q := calls.Get(k, o)
	q.Options |= c.memory.option()
	sent := c.near.noteSent(&q)
	a, err := c.do(ctx, c.slotFor(k), &q)
	defer a.release()
	if err != nil {
		return cachesidecar.Item{}, err
	}
	c.near.keep(key, sent, &a, &a.Reply)
	return item(&a.Reply), nil
}

// item returns the result of a read, which outlives the answer.
func item(r *wire.Reply) cachesidecar.Item {
	it := calls.Item(r)
	it.Value = bytes.Clone(it.Value)
	return it
}

// GetMulti returns the values of the keys that have one. A key without a value is no error. If keys have failed, the
// error is a *cachesidecar.BatchError, and the values are those of all other keys.
func (c *Client) GetMulti(
	ctx context.Context, keys []string, o cachesidecar.GetOptions,
) (map[string]cachesidecar.Item, error) {
	found := make(map[string]cachesidecar.Item, len(keys))
	if c.near.on() || c.memory.reader.Load() != nil {
		left := make([]string, 0, len(keys))
		for _, key := range keys {
			switch it, ok, err := c.local(ctx, key, o); {
			case !ok:
				left = append(left, key)
			case err == nil:
				found[key] = it
			}
		}
		keys = left
	}
	var sent asked
	var from *answer
	err := calls.Many(keys, func(some []string, tell func(string, *wire.Reply)) error {
		q := calls.GetMulti(calls.Keys(some), o)
		q.Options |= c.memory.option()
		sent = c.near.noteSent(&q)
		a, err := c.do(ctx, c.anySlot(), &q)
		defer a.release()
		from = &a
		for i := range a.Items {
			tell(some[i], &a.Items[i])
		}
		return err
	}, func(key string, r *wire.Reply) {
		if r.Status != wire.Miss {
			found[key] = item(r)
			c.near.keep(key, sent, from, r)
		}
	})
	return found, err
}

// local answers a read from this process or from the memory that it shares with the sidecar.
func (c *Client) local(ctx context.Context, key string, o cachesidecar.GetOptions) (
	it cachesidecar.Item, ok bool, err error,
) {
	if it, ok = c.near.get(ctx, key, o); ok {
		return it, true, nil
	}
	r := c.memory.reader.Load()
	if r == nil || o.Fresh || len(key) == 0 || len(key) > kv.MaxKeyLen || ctx.Err() != nil {
		return it, false, nil
	}
	return fromMemory(c, r, key)
}

// fromMemory answers a read from the shared memory. It allocates the value only.
func fromMemory(c *Client, r *shm.Reader, key string) (it cachesidecar.Item, ok bool, err error) {
	now := c.clock.Read().Boot // before anything else
	p := c.place.Load()
	if p == nil || p.reader != r || !p.found && now >= p.again {
		p = find(c, r, now)
	}
	if !p.found {
		return it, false, nil
	}
	k := borrowed(key)
	m := c.memory.mark(c.seed, k)
	if m.underWay.Load() != 0 || int64(now) < m.until.Load() {
		return it, false, nil
	}
	f, ok, gone := r.Get(&p.view, p.view.Hash(k), k, now)
	if !ok {
		if gone {
			c.place.CompareAndSwap(p, nil)
		}
		if r.Closed() {
			c.memory.drop(r)
		}
		return it, false, nil
	}
	if f.Kind == kv.Absent {
		p.tally.add(isAbsent, key)
		return it, true, calls.Err(&wire.Reply{Status: wire.Miss, Why: wire.Absent})
	}
	p.tally.add(inShared, key)
	it = calls.ItemOf(f.Value, f.Facts)
	it.TTL, it.Source, it.Age = ttlOf(f.Ends, now), "shared", f.Age
	return it, true, nil
}

// find looks the client's namespace up in a region.
func find(c *Client, r *shm.Reader, now time.Duration) *place {
	name := c.cfg.Namespace
	if c.namespace != nil {
		name = string(c.namespace)
	}
	p := &place{reader: r, again: now + findAgain}
	if p.view, p.found = r.Find(name); p.found {
		p.tally = c.hits.tallyOf(name)
	}
	c.place.Store(p)
	return p
}

// ttlOf returns the time until an end, in whole milliseconds and at least one.
func ttlOf(ends, now time.Duration) time.Duration {
	if ends == 0 {
		return 0
	}
	return max(time.Millisecond, (ends - now).Truncate(time.Millisecond))
}

// findAgain is how long a namespace that is not in the region is not looked for.
const findAgain = 10 * time.Millisecond

// SharedStats is the statistics of the memory that this client shares with the sidecar.
type SharedStats struct {
	Attached bool  // whether there is a region that serves
	Regions  int64 // that were attached so far
	Hits     int64 // reads that were answered from it
}

// SharedStats returns the statistics of the shared memory.
func (c *Client) SharedStats() SharedStats {
	r := c.memory.reader.Load()
	return SharedStats{
		Attached: r != nil && !r.Closed(), Regions: c.memory.attached.Load(), Hits: c.hits.sum(inShared, isAbsent),
	}
}
