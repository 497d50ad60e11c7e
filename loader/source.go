package loader

import (
	"context"
	"errors"
	"time"
)

// Source is an origin. Load gets the value of one key.
//
// It is called by several goroutines at once, returns soon after ctx is done,
// may not keep key, and gives the value's bytes away. An error that wraps
// ErrAbsent says that the origin has no such key; one that wraps ErrPermanent,
// ErrTooLarge or ErrBadKey, that asking again is no use. Any other error may be
// retried. Errors must not hold secrets: people read them.
type Source interface {
	Load(ctx context.Context, key []byte) (Value, error)
}

// SourceFunc is a function as a Source.
type SourceFunc func(ctx context.Context, key []byte) (Value, error)

// Load calls f.
func (f SourceFunc) Load(ctx context.Context, key []byte) (Value, error) { return f(ctx, key) }

// Value is what an origin has for a key.
type Value struct {
	Bytes   []byte
	Flags   uint32        // the apps' own encoding mark
	TTL     time.Duration // as the origin wants it; zero: the namespace's
	NoStore bool          // the origin forbids to keep it
}

var (
	// ErrAbsent: the origin says that there is none.
	ErrAbsent = errors.New("the origin has no such key")
	// ErrBusy: shed to spare the origin, surely not executed; ask again later.
	ErrBusy = errors.New("the origin is busy")
	// ErrBadKey: the key may not be asked for.
	ErrBadKey = errors.New("key not allowed")
	// ErrTooLarge: the value is beyond the limit.
	ErrTooLarge = errors.New("the origin's value is too large")
	// ErrPermanent: the origin has refused, and would again.
	ErrPermanent = errors.New("the origin refuses")
	// ErrNotStored: a fill came with a token that is not, or no longer, good.
	ErrNotStored = errors.New("not stored: the token is not the current one, or the key was invalidated")
	// ErrPresent: the key has been stored since it was missed.
	ErrPresent = errors.New("the key is there by now")
	// ErrClosed: Close has been called.
	ErrClosed = errors.New("the loader is closed")
)

// Answered says whether err (nil included) is an answer of a working origin,
// so that asking again is no use and nothing is held against it.
func Answered(err error) bool {
	return err == nil || errors.Is(err, ErrAbsent) || errors.Is(err, ErrTooLarge) ||
		errors.Is(err, ErrBadKey) || errors.Is(err, ErrPermanent)
}
