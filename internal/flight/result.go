package flight

import (
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Errors of loads and leases.
var (
	// ErrNotStored means that the token of a fill is not valid, or not valid any more.
	ErrNotStored = errors.New("not stored: the token is not the current one, or the key was invalidated")
	// ErrPresent means that the key has been stored since the miss.
	ErrPresent = errors.New("the key is there by now")
	// ErrClosed means that Close has been called.
	ErrClosed = errors.New("the loader is closed")
	// ErrAgain means that the caller must begin anew: the ownership has ended in which it has waited, or the lease
	// was detached and its holder gave up.
	ErrAgain = errors.New("the token has ended without a fill")
)

// Stamp is the moment at which a load began.
type Stamp struct {
	Version kv.Version    // of the value to load, which is current as of it
	At      time.Duration // on the boot clock
}

// Result is the result of a load.
type Result struct {
	loader.Value
	Stamp
	// Absent says that the origin has no such key, so there is no value.
	Absent bool
	// NoStore says that no cache may keep the value: its key was invalidated or its
	// ownership ended during the load, or the origin forbids it.
	NoStore bool
}

// Facts returns what the entry of the result says of itself, if it is kept until a deadline.
func (r *Result) Facts(end kv.Deadline) kv.Facts {
	f := kv.Facts{Version: r.Version, Deadline: end, Attributes: AttributesOf(&r.Value)}
	if r.Absent {
		f.Kind = kv.Absent
	}
	return f
}

// AttributesOf returns what an origin, or the app in its place, says of a value.
func AttributesOf(v *loader.Value) kv.Attributes { return kv.Attributes{Flags: v.Flags} }

// ValueOf returns a value that an app has given, as an origin would.
func ValueOf(b []byte, a kv.Attributes) loader.Value { return loader.Value{Bytes: b, Flags: a.Flags} }

// offer offers a result to keep, which reports whether it has stored it. The result of a
// flight that was detached is not offered, nor one that the origin forbids to keep. The
// caller must look at the flight again afterwards: an invalidation that has detached it
// meanwhile has removed what keep stored.
func (r *Result) offer(detached bool, keep func(Result) bool) {
	r.NoStore = detached || r.NoStore
	if !r.NoStore && keep != nil {
		r.NoStore = !keep(*r)
	}
}
