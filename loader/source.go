package loader

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Source is an origin. Load gets the value of one key.
//
// Load may be called concurrently. It must return soon after ctx is done, and must not
// keep key. The caller owns the bytes of the returned value. An error that wraps
// ErrAbsent means that the origin has no such key. An error that wraps ErrPermanent,
// ErrTooLarge or ErrBadKey means that a retry is useless. Any other error may be
// retried. Errors must not contain secrets, because they are shown to people. A Source
// that asks the sidecar for the key that it loads, with ctx, gets an error at once.
type Source interface {
	Load(ctx context.Context, key []byte) (Value, error)
}

// SourceFunc is a function that implements Source.
type SourceFunc func(ctx context.Context, key []byte) (Value, error)

// Load calls f.
func (f SourceFunc) Load(ctx context.Context, key []byte) (Value, error) { return f(ctx, key) }

// Value is the value of a key in an origin.
type Value struct {
	Bytes   []byte
	Flags   uint32        // the app's own mark of the encoding
	TTL     time.Duration // as set by the origin; zero: the namespace's TTL
	NoStore bool          // the origin forbids caching the value
}

var (
	// ErrAbsent means that the origin has no such key.
	ErrAbsent = errors.New("the origin has no such key")
	// ErrBusy means that the call was shed to protect the origin. It was certainly not
	// executed. Retry later.
	ErrBusy = errors.New("the origin is busy")
	// ErrBadKey means that the key must not be requested.
	ErrBadKey = errors.New("key not allowed")
	// ErrTooLarge means that the value exceeds the limit.
	ErrTooLarge = errors.New("the origin's value is too large")
	// ErrPermanent means that the origin has refused, and would refuse again.
	ErrPermanent = errors.New("the origin refuses")
	// ErrRefused wraps ErrPermanent. It means that the origin refuses this host, as for a wrong password,
	// whatever the key: the breaker counts it, and a value that is kept for such a time may be used.
	ErrRefused = fmt.Errorf("%w this host", ErrPermanent)
)

// Answered reports whether err, which may be nil, is the answer of a working origin.
// Then a retry is useless, and the error does not count as a failure of the origin.
func Answered(err error) bool {
	return err == nil || errors.Is(err, ErrAbsent) || errors.Is(err, ErrTooLarge) ||
		errors.Is(err, ErrBadKey) || errors.Is(err, ErrPermanent) && !errors.Is(err, ErrRefused)
}
