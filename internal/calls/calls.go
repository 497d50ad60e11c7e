// Package calls translates the calls of the public API into messages and back, for
// packages client and sidecar.
//
// Input is arguments and options of package cachesidecar, and replies. Output is requests
// without a namespace, items and errors of package cachesidecar. The package is pure.
package calls

import (
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Get returns the request for the value of one key.
func Get(key []byte, o cachesidecar.GetOptions) wire.Request {
	return wire.Request{Op: wire.OpGet, Key: key, TTLMS: wire.TTLDefault, Options: ReadOptions(o)}
}

// GetMulti returns the request for the values of several keys, at most wire.MaxKeys.
func GetMulti(keys [][]byte, o cachesidecar.GetOptions) wire.Request {
	return wire.Request{Op: wire.OpMGet, Keys: keys, TTLMS: wire.TTLDefault, Options: ReadOptions(o)}
}

// ReadOptions returns the options of a read as they are on the wire.
func ReadOptions(o cachesidecar.GetOptions) (b wire.Options) {
	if o.Fresh {
		b |= wire.Fresh
	}
	if o.NoLoad {
		b |= wire.NoLoad
	}
	if o.StaleOK {
		b |= wire.StaleOK
	}
	return b
}

// Set returns the request to store a value. version is for wire.ModeCAS.
func Set(key, value []byte, m wire.Mode, version uint64, o cachesidecar.SetOptions) (wire.Request, error) {
	ttl, err := TTL(o.TTL, o.NoExpiry)
	if err != nil {
		return wire.Request{}, err
	}
	return wire.Request{
		Op: wire.OpSet, Key: key, Value: value, Mode: m, Compare: version,
		TTLMS: ttl, Attributes: kv.Attributes{Flags: o.Flags}, Options: ack(o.AckAll),
	}, nil
}

// Touch returns the request to give a key a new TTL.
func Touch(key []byte, o cachesidecar.TouchOptions) (wire.Request, error) {
	ttl, err := TTL(o.TTL, o.NoExpiry)
	if err != nil {
		return wire.Request{}, err
	}
	return wire.Request{Op: wire.OpTouch, Key: key, TTLMS: ttl, Options: ack(o.AckAll)}, nil
}

// Incr returns the request to add delta to a number.
func Incr(key []byte, delta int64, o cachesidecar.IncrOptions) (wire.Request, error) {
	ttl, err := TTL(o.TTL, o.NoExpiry)
	if err != nil {
		return wire.Request{}, err
	}
	return wire.Request{
		Op: wire.OpIncr, Key: key, Delta: delta, Create: o.Create, Initial: o.Initial,
		TTLMS: ttl, Options: ack(o.AckAll),
	}, nil
}

// Append returns the request to put a value behind the present one, or before it, as the mode
// says.
func Append(key, value []byte, m wire.Mode, o cachesidecar.AppendOptions) (wire.Request, error) {
	q, err := Set(key, value, m, 0, cachesidecar.SetOptions{
		TTL: o.TTL, NoExpiry: o.NoExpiry, Flags: o.Flags, AckAll: o.AckAll,
	})
	if o.Create {
		q.Options |= wire.Create
	}
	return q, err
}

// IncrUnsigned returns the request to add delta to an unsigned number, or to subtract it.
func IncrUnsigned(key []byte, delta uint64, down bool, o cachesidecar.UnsignedOptions) (wire.Request, error) {
	q, err := Incr(key, int64(delta), cachesidecar.IncrOptions{
		AckAll: o.AckAll, Create: o.Create, Initial: int64(o.Initial), TTL: o.TTL, NoExpiry: o.NoExpiry,
	})
	if q.Options |= wire.Unsigned; down {
		q.Options |= wire.Down
	}
	return q, err
}

// GetAndTouch returns the request for the value of a key that gets a new TTL.
func GetAndTouch(key []byte, ttl time.Duration) (wire.Request, error) {
	ms, err := TTL(ttl, false)
	if err == nil && ms == wire.TTLDefault {
		err = fmt.Errorf("%w: a TTL of 0: give 1ms to 8760h", cachesidecar.ErrBadRequest)
	}
	return wire.Request{Op: wire.OpMetaGet, Key: key, TTLMS: ms, Options: wire.Touch}, err
}

// Delete returns the request to remove keys, at most wire.MaxKeys.
func Delete(keys [][]byte, o cachesidecar.DeleteOptions) (wire.Request, error) {
	if o.ReplicaLag < 0 {
		return wire.Request{}, fmt.Errorf("%w: a replica lag of %v: give 1ms or more, or 0 for the namespace's",
			cachesidecar.ErrBadRequest, o.ReplicaLag)
	}
	q := wire.Request{Op: wire.OpDelete, Keys: keys, TTLMS: wire.TTLDefault, Options: ack(o.AckAll)}
	q.ReplicaLagMS = uint32(millis(min(o.ReplicaLag, wire.MaxTimeout*time.Millisecond)))
	if o.Soft {
		q.Options |= wire.Soft
	}
	if o.CacheOnly {
		q.Options |= wire.CacheOnly
	}
	return q, nil
}

// Flush returns the request to empty a namespace.
func Flush(o cachesidecar.FlushOptions) wire.Request {
	q := wire.Request{Op: wire.OpFlush, TTLMS: wire.TTLDefault}
	if o.All {
		q.Options |= wire.All
	}
	if !o.Local {
		q.Options |= wire.Cluster
	}
	return q
}

// Drain returns the request of a Drain.
func Drain(o cachesidecar.DrainOptions) wire.Request {
	q := wire.Request{Op: wire.OpDrain, TTLMS: wire.TTLDefault}
	for _, bit := range []struct {
		set bool
		o   wire.Options
	}{{o.Undo, wire.Undo}, {o.Force, wire.Force}, {o.Stop, wire.End}} {
		if bit.set {
			q.Options |= bit.o
		}
	}
	return q
}

// drainTimeout bounds a Drain whose context has no deadline: no leave_time is longer.
const drainTimeout = time.Hour

// DrainContext returns ctx with a deadline.
func DrainContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, drainTimeout)
}

// TTL returns a TTL in milliseconds, as it is on the wire.
func TTL(ttl time.Duration, none bool) (int64, error) {
	switch {
	case none:
		return 0, nil
	case ttl == 0:
		return wire.TTLDefault, nil
	case ttl < 0 || ttl > wire.MaxTTL*time.Millisecond:
		return 0, fmt.Errorf("%w: a TTL of %v: give 1ms to 8760h, or NoExpiry", cachesidecar.ErrBadRequest, ttl)
	}
	return millis(ttl), nil
}

// millis rounds up.
func millis(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

func ack(all bool) wire.Options {
	if all {
		return wire.AckAll
	}
	return 0
}

// Keys returns keys as they are in a request.
func Keys(keys []string) [][]byte {
	b := make([][]byte, len(keys))
	for i, k := range keys {
		b[i] = []byte(k)
	}
	return b
}
