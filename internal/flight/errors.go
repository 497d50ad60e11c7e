package flight

import "errors"

// Errors of loads and leases.
var (
	// ErrNotStored means that the token of a fill is not valid, or not valid any more.
	ErrNotStored = errors.New("not stored: the token is not the current one, or the key was invalidated")
	// ErrPresent means that the key has been stored since the miss.
	ErrPresent = errors.New("the key is there by now")
	// ErrClosed means that Close has been called.
	ErrClosed = errors.New("the loader is closed")
)
