package cachesidecar

import (
	"errors"
	"fmt"
)

// The errors of client and sidecar. Test them with errors.Is: most errors wrap one of
// these and add a text that says what to do.
//
// After ErrUnavailable and ErrBusy, and after all errors that refuse a call, the call was
// surely not executed. After ErrTimeout its outcome is unknown. It is unknown too if the
// context is cancelled during the call: then the error of client is the context's.
var (
	// ErrNotFound means that the key has no value, or, for a read without Fresh in a namespace
	// without an origin, that the host that owns it cannot be asked. For a cache this is a
	// normal answer: load the value, or use GetOrLoad.
	ErrNotFound = errors.New("not found")
	// ErrAbsent is an ErrNotFound: the origin of the namespace has no such key. A load
	// would find nothing either.
	ErrAbsent = fmt.Errorf("%w: the origin has no such key", ErrNotFound)
	// ErrExists means that the condition of Add or CompareAndSwap is not met. The error is
	// a *VersionError: read the value again and decide anew.
	ErrExists = errors.New("the condition is not met")
	// ErrNotStored means that nothing was stored: the value is no number (Incr), or the
	// lease is over (Fill, Abandon). A repeat fails in the same way.
	ErrNotStored = errors.New("not stored")

	// ErrBadRequest means that an argument or an option is not valid. Correct the call.
	ErrBadRequest = errors.New("bad request")
	// ErrTooLarge means that the value, or the answer, is above the limit. Split it, or
	// raise max_value.
	ErrTooLarge = errors.New("too large")
	// ErrEncoding means that a value cannot be encoded, or that its bytes are not of the
	// encoding that its flags name. The item's bytes can be read all the same.
	ErrEncoding = errors.New("wrong encoding")
	// ErrUnauthorized means that the caller has no right to do this in the namespace.
	// Change the sidecar's settings access or tokens.
	ErrUnauthorized = errors.New("unauthorized")
	// ErrUnsupported means that the sidecar does not know the call, or speaks another
	// version of the protocol. Update the older of the two.
	ErrUnsupported = errors.New("unsupported")

	// ErrUnavailable means that the sidecar cannot be reached, or ErrNoOwner. The call was
	// surely not executed. Go on without the cache, or repeat the call later.
	ErrUnavailable = errors.New("unavailable")
	// ErrNoOwner is an ErrUnavailable: the sidecar answers, but the host that owns the key
	// cannot be reached. Other keys may work.
	ErrNoOwner = fmt.Errorf("%w", ErrUnavailable)
	// ErrBusy means that a limit of calls, loads or memory is reached. The call was surely
	// not executed. Repeat it later, and make fewer calls at once.
	ErrBusy = errors.New("busy")
	// ErrTimeout means that there was no answer in time, or that the connection broke. The
	// outcome is unknown: a write may have been executed, or may still be.
	ErrTimeout = errors.New("timed out")
	// ErrOrigin means that the origin of the namespace has failed, and that there is no
	// value to return in its place; of a write: that nothing was written. Repeat the call
	// later.
	ErrOrigin = errors.New("the origin failed")
	// ErrInternal means that a sidecar has a defect, or has sent an answer that cannot be
	// read. Report it.
	ErrInternal = errors.New("internal error")
	// ErrClosed means that Close was called, or that Run of an embedded sidecar has ended.
	ErrClosed = errors.New("closed")
)

// VersionError is the ErrExists of Add and CompareAndSwap. It has the version of the
// value that the key has now.
type VersionError struct{ Version uint64 }

func (e *VersionError) Error() string {
	return fmt.Sprintf("%v: version %d is there", ErrExists, e.Version)
}

// Unwrap returns ErrExists.
func (e *VersionError) Unwrap() error { return ErrExists }

// BatchError is the error of a call of several keys, some of which have failed. The result beside it is that of the
// others. It is each of its errors: errors.Is finds them.
type BatchError struct {
	Keys   []string         // that have failed, each once
	Errors map[string]error // by key
}

func (err *BatchError) Error() string {
	first := err.Keys[0]
	if len(err.Keys) == 1 {
		return fmt.Sprintf("key %.64q: %v", first, err.Errors[first])
	}
	return fmt.Sprintf("%d keys have failed: key %.64q: %v", len(err.Keys), first, err.Errors[first])
}

// Unwrap returns the errors, in the order of Keys.
func (err *BatchError) Unwrap() (list []error) {
	for _, key := range err.Keys {
		list = append(list, err.Errors[key])
	}
	return list
}
