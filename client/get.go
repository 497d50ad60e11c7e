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
		sent = c.near.ask(&q)
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
