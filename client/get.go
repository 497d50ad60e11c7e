package client

import (
	"bytes"
	"context"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
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
	sent := c.near.ask(&q)
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

// GetMulti returns the values of the keys that have one. A key without a value is no
// error. If GetMulti returns an error beside a result, it could not ask for some keys.
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
	for len(keys) > 0 {
		n := min(len(keys), wire.MaxKeys)
		answered, err := getSome(ctx, c, keys[:n], found, o)
		if err != nil {
			return found, err
		}
		keys = keys[answered:]
	}
	return found, nil
}

// getSome asks for up to MaxKeys keys. It returns how many of them, counted from the
// first, were answered: the sidecar ends an answer early if it would become too long.
func getSome(
	ctx context.Context, c *Client, keys []string, found map[string]cachesidecar.Item, o cachesidecar.GetOptions,
) (answered int, err error) {
	q := calls.GetMulti(calls.Keys(keys), o)
	q.Options |= c.memory.option()
	sent := c.near.ask(&q)
	a, err := c.do(ctx, c.anySlot(), &q)
	defer a.release()
	if err != nil {
		return 0, err
	}
	for i := range a.Items {
		switch r := &a.Items[i]; {
		case r.Status == wire.OK || r.Status == wire.Stale:
			found[keys[i]] = item(r)
			c.near.keep(keys[i], sent, &a, r)
		case r.Status == wire.Busy && i > 0:
			return i, nil // the caller asks again for the rest
		case r.Status != wire.Miss:
			return i, calls.Err(r)
		}
	}
	return len(keys), nil
}
