package calls

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Item returns the result of a read. Its value is the reply's, without a copy.
func Item(r *wire.Reply) cachesidecar.Item {
	it := ItemOf(r.Value, r.Facts(0))
	it.TTL, it.Age = time.Duration(r.TTLMS)*time.Millisecond, time.Duration(r.AgeMS)*time.Millisecond
	it.Source = r.Source.String()
	return it
}

// ItemOf returns a value with what its entry says of itself, but for its end.
func ItemOf(value []byte, f kv.Facts) cachesidecar.Item {
	return cachesidecar.Item{
		Value: value, Flags: f.Flags, Version: uint64(f.Version), Stale: f.Kind == kv.Stale,
	}
}

// Live returns the error of a METAGET whose stale value is not wanted, or err.
func Live(r *wire.Reply, err error) error {
	if err == nil && r.Status == wire.Stale {
		return cachesidecar.ErrNotFound
	}
	return err
}

// statusErrors are the errors of the statuses that have a message.
var statusErrors = map[wire.Status]error{
	wire.NotStored:    cachesidecar.ErrNotStored,
	wire.BadRequest:   cachesidecar.ErrBadRequest,
	wire.TooLarge:     cachesidecar.ErrTooLarge,
	wire.Unauthorized: cachesidecar.ErrUnauthorized,
	wire.Moved:        cachesidecar.ErrNoOwner,
	wire.Unavailable:  cachesidecar.ErrNoOwner,
	wire.Timeout:      cachesidecar.ErrTimeout,
	wire.Busy:         cachesidecar.ErrBusy,
	wire.Origin:       cachesidecar.ErrOrigin,
	wire.Unsupported:  cachesidecar.ErrUnsupported,
	wire.Internal:     cachesidecar.ErrInternal,
}

// ErrDegraded is the ErrNotFound of a read that could not ask the key's owner.
var ErrDegraded = fmt.Errorf("%w: the host that owns the key cannot be reached", cachesidecar.ErrNotFound)

// Err returns a reply's error: nil for OK, STALE and LEASE.
func Err(r *wire.Reply) error {
	switch r.Status {
	case wire.OK, wire.Stale, wire.Lease:
		return nil
	case wire.Miss:
		switch r.Why {
		case wire.Absent:
			return cachesidecar.ErrAbsent
		case wire.Degraded:
			return ErrDegraded
		}
		return cachesidecar.ErrNotFound
	case wire.Exists:
		return &cachesidecar.VersionError{Version: r.Version}
	}
	if known := statusErrors[r.Status]; known != nil {
		return fmt.Errorf("%w: %s", known, r.Message)
	}
	return fmt.Errorf("%w: %s: %s", cachesidecar.ErrInternal, r.Status, r.Message)
}

// ContextErr returns the error of a call whose context has ended: an ErrTimeout if the
// deadline has passed, else err.
func ContextErr(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", cachesidecar.ErrTimeout, err)
	}
	return err
}
