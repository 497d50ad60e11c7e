package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Errors of calls, to be tested with errors.Is. The error's text says what to do.
var (
	ErrNotFound     = errors.New("not found")
	ErrAbsent       = fmt.Errorf("%w: the origin has no such key", ErrNotFound)
	ErrExists       = errors.New("the condition is not met")
	ErrNotStored    = errors.New("not stored")
	ErrBadRequest   = errors.New("bad request")
	ErrTooLarge     = errors.New("too large")
	ErrUnauthorized = errors.New("unauthorized")
	ErrUnavailable  = errors.New("unavailable")        // the call was surely not executed
	ErrNoOwner      = fmt.Errorf("%w", ErrUnavailable) // the key's owner is unreachable
	ErrTimeout      = errors.New("timed out")          // the outcome is unknown
	ErrBusy         = errors.New("busy")               // the call was surely not executed
	ErrOrigin       = errors.New("the origin failed")
	ErrUnsupported  = errors.New("unsupported")
	ErrInternal     = errors.New("internal error")
	ErrClosed       = errors.New("the client is closed")
)

var statusErrors = map[wire.Status]error{
	wire.BadRequest: ErrBadRequest, wire.TooLarge: ErrTooLarge, wire.Unauthorized: ErrUnauthorized,
	wire.Moved: ErrNoOwner, wire.Unavailable: ErrNoOwner, wire.Timeout: ErrTimeout, wire.Busy: ErrBusy,
	wire.Origin: ErrOrigin, wire.Unsupported: ErrUnsupported, wire.Internal: ErrInternal,
}

// VersionError reports the version because of which a condition is not met. It is
// ErrExists.
type VersionError struct{ Version uint64 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("%v: version %d is there", ErrExists, e.Version)
}

// Is makes VersionError an ErrExists.
func (e *VersionError) Is(target error) bool { return target == ErrExists }

// replyError turns a reply into an error. It returns nil for OK, STALE and LEASE.
func replyError(r *wire.Reply) error {
	switch r.Status {
	case wire.OK, wire.Stale, wire.Lease:
		return nil
	case wire.Miss:
		switch r.Why {
		case wire.Absent:
			return ErrAbsent
		case wire.Degraded:
			return errDegraded
		}
		return ErrNotFound
	case wire.Exists:
		return &VersionError{r.Version}
	case wire.NotStored:
		return fmt.Errorf("%w: %s", ErrNotStored, r.Message)
	}
	if known := statusErrors[r.Status]; known != nil {
		return fmt.Errorf("%w: %s", known, r.Message)
	}
	return fmt.Errorf("%w: %s: %s", ErrInternal, r.Status, r.Message)
}

var errDegraded = fmt.Errorf("%w: the host that owns the key cannot be reached", ErrNotFound)

// callError turns an error of a call into one of the public errors.
func callError(err error) error {
	switch {
	case errors.Is(err, rpc.ErrFull):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, rpc.ErrNotSent):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.Is(err, rpc.ErrNoAnswer), errors.Is(err, rpc.ErrClosed):
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTimeout, err)
	}
	return err
}
