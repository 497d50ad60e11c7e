package client

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Set stores a value and returns its version.
func (c *Client) Set(ctx context.Context, key string, value []byte, o cachesidecar.SetOptions) (uint64, error) {
	return set(ctx, c, key, value, wire.ModeSet, 0, o)
}

// Add stores a value if the key has none, else it returns ErrExists.
func (c *Client) Add(ctx context.Context, key string, value []byte, o cachesidecar.SetOptions) (uint64, error) {
	return set(ctx, c, key, value, wire.ModeAdd, 0, o)
}

// Replace stores a value if the key has one, else it returns ErrNotFound.
func (c *Client) Replace(ctx context.Context, key string, value []byte, o cachesidecar.SetOptions) (uint64, error) {
	return set(ctx, c, key, value, wire.ModeReplace, 0, o)
}

// CompareAndSwap stores a value if the key's version is still the given one. Else it
// returns a *cachesidecar.VersionError, which is ErrExists, or ErrNotFound.
func (c *Client) CompareAndSwap(
	ctx context.Context, key string, value []byte, version uint64, o cachesidecar.SetOptions,
) (uint64, error) {
	return set(ctx, c, key, value, wire.ModeCAS, version, o)
}

func set(
	ctx context.Context, c *Client, key string, value []byte, m wire.Mode, compare uint64, o cachesidecar.SetOptions,
) (uint64, error) {
	q, err := calls.Set([]byte(key), value, m, compare, o)
	r, err := write(ctx, c, q, err)
	return r.Version, err
}

// write makes the write q of one key, unless err says why it cannot be made. Of the reply only the
// numbers are valid.
func write(ctx context.Context, c *Client, q wire.Request, err error) (wire.Reply, error) {
	if err != nil {
		return wire.Reply{}, err
	}
	// For a FILL this is mostly the connection that brought the token; when that ends, the token is
	// given back.
	slot := c.slotFor(q.Key)
	if err := slot.fits(q.Value); err != nil {
		return wire.Reply{}, err
	}
	a, err := c.do(ctx, slot, &q)
	defer a.release()
	c.near.wrote(q.Key, a.Changed(), err)
	return a.Reply, err
}

// Append puts a value behind the present one. Without AppendOptions.Create it returns
// ErrNotFound if the key has none.
func (c *Client) Append(ctx context.Context, key string, value []byte, o cachesidecar.AppendOptions) (uint64, error) {
	return join(ctx, c, key, value, wire.ModeAppend, o)
}

// Prepend puts a value before the present one, like Append.
func (c *Client) Prepend(ctx context.Context, key string, value []byte, o cachesidecar.AppendOptions) (uint64, error) {
	return join(ctx, c, key, value, wire.ModePrepend, o)
}

func join(
	ctx context.Context, c *Client, key string, value []byte, m wire.Mode, o cachesidecar.AppendOptions,
) (uint64, error) {
	q, err := calls.Append([]byte(key), value, m, o)
	r, err := write(ctx, c, q, err)
	return r.Version, err
}

// Delete removes a key's value from the whole cluster. It returns ErrNotFound if the key
// has none.
func (c *Client) Delete(ctx context.Context, key string, o cachesidecar.DeleteOptions) error {
	had, err := c.DeleteMulti(ctx, []string{key}, o)
	if err == nil && had == 0 {
		return cachesidecar.ErrNotFound
	}
	return calls.Of(err, key)
}

// DeleteMulti removes the values of keys from the whole cluster. It returns how many of
// the keys had a value. A key without a value is no error. If keys have failed, the error is a
// *cachesidecar.BatchError; after an ErrTimeout its key may have been deleted.
func (c *Client) DeleteMulti(ctx context.Context, keys []string, o cachesidecar.DeleteOptions) (had int, err error) {
	q, err := calls.Delete(nil, o)
	if err != nil {
		return 0, err
	}
	err = calls.Many(keys, func(some []string, tell func(string, *wire.Reply)) error {
		q := q
		q.Keys = calls.Keys(some)
		s := c.anySlot()
		if len(some) == 1 {
			s = c.slotFor(q.Keys[0])
		}
		a, err := c.do(ctx, s, &q)
		defer a.release()
		for i, key := range q.Keys {
			if err != nil {
				c.near.wrote(key, 0, err)
				continue
			}
			r := &a.Items[i]
			// A deletion that found no value counts as a change too: the owner may have lost
			// a value that the near cache still has.
			failed := calls.Err(r)
			if r.Status == wire.Miss {
				failed = nil
			}
			c.near.wrote(key, r.Version, failed)
			tell(some[i], r)
		}
		return err
	}, func(_ string, r *wire.Reply) {
		if r.Status == wire.OK {
			had++
		}
	})
	return had, err
}

// Touch gives a key's value a new TTL. It returns ErrNotFound if the key has none.
func (c *Client) Touch(ctx context.Context, key string, o cachesidecar.TouchOptions) error {
	q, err := calls.Touch([]byte(key), o)
	_, err = write(ctx, c, q, err)
	return err
}

// Incr adds delta to a decimal number and returns the sum. Without IncrOptions.Create it
// returns ErrNotFound if the key has no value. ErrNotStored means that the value is no
// number, or that the sum does not fit into 64 bits.
func (c *Client) Incr(ctx context.Context, key string, delta int64, o cachesidecar.IncrOptions) (int64, error) {
	q, err := calls.Incr([]byte(key), delta, o)
	r, err := write(ctx, c, q, err)
	return r.Number, err
}

// IncrUnsigned adds delta to an unsigned decimal number and returns the sum, which wraps at
// 2^64. Without UnsignedOptions.Create it returns ErrNotFound if the key has no value.
// ErrNotStored means that the value is no unsigned number of 64 bits.
func (c *Client) IncrUnsigned(
	ctx context.Context, key string, delta uint64, o cachesidecar.UnsignedOptions,
) (uint64, error) {
	return unsigned(ctx, c, key, delta, false, o)
}

// DecrUnsigned subtracts delta from an unsigned decimal number, like IncrUnsigned. The result
// stops at zero.
func (c *Client) DecrUnsigned(
	ctx context.Context, key string, delta uint64, o cachesidecar.UnsignedOptions,
) (uint64, error) {
	return unsigned(ctx, c, key, delta, true, o)
}

func unsigned(
	ctx context.Context, c *Client, key string, delta uint64, down bool, o cachesidecar.UnsignedOptions,
) (uint64, error) {
	q, err := calls.IncrUnsigned([]byte(key), delta, down, o)
	r, err := write(ctx, c, q, err)
	return uint64(r.Number), err
}

// GetAndTouch returns a key's value and gives it a new TTL, in one step at the host that owns
// the key. It returns ErrNotFound if the key has none. Item.Source is empty.
func (c *Client) GetAndTouch(ctx context.Context, key string, ttl time.Duration) (cachesidecar.Item, error) {
	k := []byte(key)
	q, err := calls.GetAndTouch(k, ttl)
	if err != nil {
		return cachesidecar.Item{}, err
	}
	a, err := c.do(ctx, c.slotFor(k), &q)
	defer a.release()
	if err != nil || a.Event != 0 {
		c.near.wrote(k, a.Event, err)
	}
	if err = calls.Live(&a.Reply, err); err != nil {
		return cachesidecar.Item{}, err
	}
	return item(&a.Reply), nil
}

// Flush empties the client's namespace on every host, or as the options say.
func (c *Client) Flush(ctx context.Context, o cachesidecar.FlushOptions) error {
	q := calls.Flush(o)
	a, err := c.do(ctx, c.anySlot(), &q)
	a.release()
	c.near.flushed()
	return err
}
