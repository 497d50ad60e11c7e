package sidecar

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Get returns a key's value. It returns ErrNotFound if the key has none.
func (s *Sidecar) Get(
	ctx context.Context, namespace, key string, o cachesidecar.GetOptions,
) (cachesidecar.Item, error) {
	r, err := s.call(ctx, namespace, calls.Get([]byte(key), o))
	if err != nil {
		return cachesidecar.Item{}, err
	}
	return calls.Item(&r), nil
}

// GetMulti returns the values of the keys that have one. A key without a value is no error. If keys have failed, the
// error is a *cachesidecar.BatchError, and the values are those of all other keys.
func (s *Sidecar) GetMulti(
	ctx context.Context, namespace string, keys []string, o cachesidecar.GetOptions,
) (map[string]cachesidecar.Item, error) {
	found := make(map[string]cachesidecar.Item, len(keys))
	err := many(ctx, s, namespace, calls.GetMulti(nil, o), keys, func(key string, r *wire.Reply) {
		if r.Status != wire.Miss {
			found[key] = calls.Item(r)
		}
	})
	return found, err
}

// many makes a call of many keys. Each request may be passed on to another host.
func many(
	ctx context.Context, s *Sidecar, namespace string, q wire.Request, keys []string,
	each func(key string, r *wire.Reply),
) error {
	return calls.Many(keys, func(some []string, tell func(string, *wire.Reply)) error {
		q := q
		q.Keys = calls.Keys(some)
		r, err := s.call(ctx, namespace, q)
		if err == nil {
			for i := range r.Items {
				tell(some[i], &r.Items[i])
			}
		}
		return err
	}, each)
}

// Set stores a value and returns its version. The caller may reuse value after Set has
// returned.
func (s *Sidecar) Set(
	ctx context.Context, namespace, key string, value []byte, o cachesidecar.SetOptions,
) (version uint64, err error) {
	return set(ctx, s, namespace, key, value, wire.ModeSet, 0, o)
}

// Add stores a value if the key has none, else it returns ErrExists.
func (s *Sidecar) Add(
	ctx context.Context, namespace, key string, value []byte, o cachesidecar.SetOptions,
) (version uint64, err error) {
	return set(ctx, s, namespace, key, value, wire.ModeAdd, 0, o)
}

// Replace stores a value if the key has one, else it returns ErrNotFound.
func (s *Sidecar) Replace(
	ctx context.Context, namespace, key string, value []byte, o cachesidecar.SetOptions,
) (version uint64, err error) {
	return set(ctx, s, namespace, key, value, wire.ModeReplace, 0, o)
}

// CompareAndSwap stores a value if the key's version is still the given one. Else it
// returns a *cachesidecar.VersionError, which is ErrExists, or ErrNotFound.
func (s *Sidecar) CompareAndSwap(
	ctx context.Context, namespace, key string, value []byte, version uint64, o cachesidecar.SetOptions,
) (uint64, error) {
	return set(ctx, s, namespace, key, value, wire.ModeCAS, version, o)
}

func set(
	ctx context.Context, s *Sidecar, namespace, key string, value []byte, m wire.Mode, compare uint64,
	o cachesidecar.SetOptions,
) (uint64, error) {
	q, err := calls.Set([]byte(key), value, m, compare, o)
	if err != nil {
		return 0, err
	}
	r, err := s.call(ctx, namespace, q)
	return r.Version, err
}

// Append puts a value behind the present one. Without AppendOptions.Create it returns
// ErrNotFound if the key has none.
func (s *Sidecar) Append(
	ctx context.Context, namespace, key string, value []byte, o cachesidecar.AppendOptions,
) (version uint64, err error) {
	return appendOrPrepend(ctx, s, namespace, key, value, wire.ModeAppend, o)
}

// Prepend puts a value before the present one, like Append.
func (s *Sidecar) Prepend(
	ctx context.Context, namespace, key string, value []byte, o cachesidecar.AppendOptions,
) (version uint64, err error) {
	return appendOrPrepend(ctx, s, namespace, key, value, wire.ModePrepend, o)
}

func appendOrPrepend(
	ctx context.Context, s *Sidecar, namespace, key string, value []byte, m wire.Mode, o cachesidecar.AppendOptions,
) (uint64, error) {
	q, err := calls.Append([]byte(key), value, m, o)
	if err != nil {
		return 0, err
	}
	r, err := s.call(ctx, namespace, q)
	return r.Version, err
}

// Delete removes a key's value from the whole cluster. It returns ErrNotFound if the key
// has none.
func (s *Sidecar) Delete(ctx context.Context, namespace, key string, o cachesidecar.DeleteOptions) error {
	had, err := s.DeleteMulti(ctx, namespace, []string{key}, o)
	if err == nil && had == 0 {
		return cachesidecar.ErrNotFound
	}
	return calls.Of(err, key)
}

// DeleteMulti removes the values of keys from the whole cluster. It returns how many of
// the keys had a value. A key without a value is no error. If keys have failed, the error is a
// *cachesidecar.BatchError; after an ErrTimeout its key may have been deleted.
func (s *Sidecar) DeleteMulti(
	ctx context.Context, namespace string, keys []string, o cachesidecar.DeleteOptions,
) (had int, err error) {
	q, err := calls.Delete(nil, o)
	if err != nil {
		return 0, err
	}
	err = many(ctx, s, namespace, q, keys, func(_ string, r *wire.Reply) {
		if r.Status == wire.OK {
			had++
		}
	})
	return had, err
}

// Touch gives a key's value a new TTL. It returns ErrNotFound if the key has none.
func (s *Sidecar) Touch(ctx context.Context, namespace, key string, o cachesidecar.TouchOptions) error {
	q, err := calls.Touch([]byte(key), o)
	if err != nil {
		return err
	}
	_, err = s.call(ctx, namespace, q)
	return err
}

// Incr adds delta to a decimal number and returns the sum. Without IncrOptions.Create it
// returns ErrNotFound if the key has no value. ErrNotStored means that the value is no
// number, or that the sum does not fit into 64 bits.
func (s *Sidecar) Incr(
	ctx context.Context, namespace, key string, delta int64, o cachesidecar.IncrOptions,
) (int64, error) {
	q, err := calls.Incr([]byte(key), delta, o)
	if err != nil {
		return 0, err
	}
	r, err := s.call(ctx, namespace, q)
	return r.Number, err
}

// IncrUnsigned adds delta to an unsigned decimal number and returns the sum, which wraps at
// 2^64. Without UnsignedOptions.Create it returns ErrNotFound if the key has no value.
// ErrNotStored means that the value is no unsigned number of 64 bits.
func (s *Sidecar) IncrUnsigned(
	ctx context.Context, namespace, key string, delta uint64, o cachesidecar.UnsignedOptions,
) (uint64, error) {
	return unsigned(ctx, s, namespace, key, delta, false, o)
}

// DecrUnsigned subtracts delta from an unsigned decimal number, like IncrUnsigned. The result
// stops at zero.
func (s *Sidecar) DecrUnsigned(
	ctx context.Context, namespace, key string, delta uint64, o cachesidecar.UnsignedOptions,
) (uint64, error) {
	return unsigned(ctx, s, namespace, key, delta, true, o)
}

func unsigned(
	ctx context.Context, s *Sidecar, namespace, key string, delta uint64, down bool, o cachesidecar.UnsignedOptions,
) (uint64, error) {
	q, err := calls.IncrUnsigned([]byte(key), delta, down, o)
	if err != nil {
		return 0, err
	}
	r, err := s.call(ctx, namespace, q)
	return uint64(r.Number), err
}

// GetAndTouch returns a key's value and gives it a new TTL, in one step at the host that owns
// the key. It returns ErrNotFound if the key has none.
func (s *Sidecar) GetAndTouch(
	ctx context.Context, namespace, key string, ttl time.Duration,
) (cachesidecar.Item, error) {
	q, err := calls.GetAndTouch([]byte(key), ttl)
	if err != nil {
		return cachesidecar.Item{}, err
	}
	r, err := s.call(ctx, namespace, q)
	if err = calls.Live(&r, err); err != nil {
		return cachesidecar.Item{}, err
	}
	return calls.Item(&r), nil
}

// Flush empties a namespace on every host, or as the options say. With FlushOptions.All
// the name of the namespace has no effect.
func (s *Sidecar) Flush(ctx context.Context, namespace string, o cachesidecar.FlushOptions) error {
	_, err := s.call(ctx, namespace, calls.Flush(o))
	return err
}

// Drain hands over what this host owns to other hosts, while it goes on serving: from
// then on it owns nothing, and answers through the others. With Undo it takes its part of
// the keys again. With Stop the sidecar then ends, as if the context of Run had. Without a
// deadline Drain waits for LeaveTime at most; what has begun continues.
func (s *Sidecar) Drain(ctx context.Context, o cachesidecar.DrainOptions) (d cachesidecar.Drained, err error) {
	ctx, cancel := calls.DrainContext(ctx)
	defer cancel()
	r, err := s.call(ctx, "", calls.Drain(o))
	if err == nil {
		err = wire.UnmarshalBody(r.Body, &d)
	}
	return d, err
}

// call executes a request of the embedding program. It refuses the namespaces that VERIFY
// reserves.
func (s *Sidecar) call(ctx context.Context, namespace string, q wire.Request) (wire.Reply, error) {
	if q.Namespace = []byte(namespace); verify.Reserved(q.Namespace) {
		r := wire.ErrorReply(verify.ErrReserved)
		return r, calls.Err(&r)
	}
	return s.execute(ctx, &q)
}

// execute executes a request in any namespace while the store is open. After Run has returned, it returns ErrClosed.
func (s *Sidecar) execute(ctx context.Context, q *wire.Request) (r wire.Reply, err error) {
	if err := ctx.Err(); err != nil {
		return r, calls.ContextErr(err)
	}
	if !s.enter() {
		return r, cachesidecar.ErrClosed
	}
	defer s.inUse.Done()
	return s.engine.Answer(ctx, q)
}

// enter reports whether the store is open, and keeps it open until inUse.Done.
func (s *Sidecar) enter() bool {
	s.use.RLock()
	defer s.use.RUnlock()
	if s.closed {
		return false
	}
	s.inUse.Add(1)
	return true
}
