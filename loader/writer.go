package loader

import (
	"context"
	"errors"
)

// Writer is an origin that takes changes: write-through.
//
// Store makes v the key's value, and Delete removes the key, whether or not it
// was there. nil says that the origin has done it. An error that wraps
// ErrNotWritten says that surely nothing has changed there: nobody could be
// reached, or the origin has refused. After any other error nobody knows: it may
// have been done, or be done yet, since an origin that did not answer in time
// can still be at work on it. Neither repeats anything by itself.
//
// Flags are stored where the origin has a place for them. TTL and NoStore mean
// nothing here: how long a cache keeps a value is not how long its origin does.
//
// They are called by several goroutines at once, return soon after ctx is done,
// and may not keep key or v.Bytes. An error that also wraps ErrBadKey is about
// the key. Errors hold no secrets.
type Writer interface {
	Store(ctx context.Context, key []byte, v Value) error
	Delete(ctx context.Context, key []byte) error
}

// ErrNotWritten: a write has changed nothing at the origin.
var ErrNotWritten = errors.New("nothing was written")
