package loader

import (
	"context"
	"errors"
)

// Writer is an origin that accepts changes, for write-through.
//
// Store sets the value of the key to v. Delete removes the key, whether or not it
// exists. nil means that the origin has made the change. An error that wraps
// ErrNotWritten means that certainly nothing has changed: the origin was not reached, or
// it refused. After any other error the outcome is unknown: the change may have been
// made, or may still be made, because an origin that did not answer in time may still be
// working on it. Store and Delete do not retry.
//
// Store keeps Flags if the origin has a place for them. It ignores TTL and NoStore,
// because they limit how long a cache keeps the value, not how long the origin does.
//
// Both may be called concurrently. They must return soon after ctx is done, and must not
// keep key or v.Bytes. An error that also wraps ErrBadKey is about the key. Errors
// contain no secrets.
type Writer interface {
	Store(ctx context.Context, key []byte, v Value) error
	Delete(ctx context.Context, key []byte) error
}

// ErrNotWritten means that a write has changed nothing at the origin.
var ErrNotWritten = errors.New("nothing was written")
