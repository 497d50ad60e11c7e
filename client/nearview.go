package client

import (
	"context"
	"errors"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// nearView is the near cache of one namespace. Without a near cache, or without a space
// for the namespace, it keeps nothing.
type nearView struct {
	cache *near  // nil: the client has no near cache
	space *space // nil: no value of the namespace is kept
}

// in returns the view of a namespace.
func (v nearView) in(namespace string) nearView {
	if v.cache == nil {
		return v
	}
	return nearView{v.cache, v.cache.space(namespace)}
}

// on reports whether values are kept.
func (v nearView) on() bool { return v.space != nil }

// get returns a key's value if the options and the cache allow it.
func (v nearView) get(ctx context.Context, key string, o cachesidecar.GetOptions) (it cachesidecar.Item, ok bool) {
	if v.space == nil || o.Fresh || ctx.Err() != nil {
		return it, false
	}
	return v.cache.get(v.space, key)
}

// ask prepares a read that is about to be sent.
func (v nearView) ask(q *wire.Request) (a asked) {
	if v.space == nil {
		return a
	}
	return v.cache.ask(q)
}

// keep keeps the answer to a read if it may be kept.
func (v nearView) keep(key string, a asked, from *answer, r *wire.Reply) {
	if v.space != nil {
		v.cache.keep(v.space, key, a, from, r)
	}
}

// wrote records the result of a write, before the caller gets it.
func (v nearView) wrote(key []byte, version uint64, err error) {
	switch {
	case v.space == nil:
	// After ErrExists, version is that of the present value.
	case err == nil, errors.Is(err, cachesidecar.ErrExists):
		v.cache.wrote(v.space, key, version)
	case changes(err):
		v.cache.wrote(v.space, key, 0)
	}
}

// flushed outdates all values.
func (v nearView) flushed() {
	if v.cache != nil {
		v.cache.drop()
	}
}

// refusals are the errors after which a write was surely not executed, and the near cache
// has no other value than the sidecars.
var refusals = []error{
	cachesidecar.ErrUnavailable, cachesidecar.ErrBusy, cachesidecar.ErrBadRequest, cachesidecar.ErrTooLarge,
	cachesidecar.ErrUnauthorized, cachesidecar.ErrUnsupported, cachesidecar.ErrClosed,
}

// changes reports whether a failed write may have been executed, or has found another
// value, or none, than the near cache may have.
func changes(err error) bool {
	for _, e := range refusals {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

// NearStats is the statistics of a near cache.
type NearStats struct {
	Following      bool // whether the sidecar is followed; if not, nothing is served
	Hits, Misses   int64
	Refused        int64 // values found that are outdated, or no longer surely current
	Entries, Bytes int64
	Limit          int64 // in bytes
	Events, Resets int64 // in the sidecar's stream
}
