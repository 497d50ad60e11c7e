package server

import (
	"errors"
	"fmt"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Framing finds the requests in what a connection has read, and says BUSY in the words of its
// protocol. Limits.Framing is one; all connections of a server share it.
type Framing interface {
	// Cut finds the first request in b, what a connection has read and not served. b begins where a request does, and
	// is not empty. scanned is Cut.Scanned of the last Cut of the same request, which has seen fewer bytes of it; 0:
	// there was none. longest bounds the bytes of a request.
	Cut(b []byte, scanned, longest int) Cut
	// Busy appends the answer to a request that has begun and that there is no memory for. beginning is what has come
	// of it; its Cut.Need is known. ok false: there is no answer, and the connection ends.
	Busy(dst, beginning []byte, why error) (out []byte, ok bool)
}

// Cut is what a Framing has found.
type Cut struct {
	Frame []byte // a whole request, for Handler.Serve, in the bytes of b; nil: none is complete
	Size  int    // bytes of b that the request takes; Frame may be some of them
	// Drop is how many bytes behind Size belong to the request and are of no use. They are dropped as they come.
	Drop int
	// If no request is complete: Need is how many bytes the one that has begun takes, as far
	// as that is known; 0: it is not. It is more than b has.
	Need    int
	Scanned int // bytes of b that the next Cut need not look at
	// Bad ends the connection, after the requests before it are served. Handler.Oversized
	// gets Frame as the beginning, Need as the length, and Bad.
	Bad error
}

// ErrFrame ends a connection.
var ErrFrame = errors.New("the frame's length is out of bounds")

// prefixed is the Framing of this project's protocol: each request begins with its length.
type prefixed struct{}

// Cut is only used where it need not be fast: see Conn.cut.
func (prefixed) Cut(b []byte, _, longest int) Cut {
	if len(b) < wire.LengthSize {
		return Cut{}
	}
	length := wire.FrameLength(b)
	size := wire.LengthSize + length
	switch {
	case length == 0 || length > longest:
		return Cut{
			Frame: b[wire.LengthSize:], Need: length,
			Bad: fmt.Errorf("%w: %d bytes, 1 to %d are taken", ErrFrame, length, longest),
		}
	case size > len(b):
		return Cut{Need: size}
	}
	return Cut{Frame: b[wire.LengthSize:size:size], Size: size}
}

// Busy needs the id of the request.
func (prefixed) Busy(dst, beginning []byte, why error) (out []byte, ok bool) {
	id, ok := wire.PeekID(beginning[wire.LengthSize:])
	if !ok {
		return dst, false
	}
	return wire.AppendError(dst, id,
		wire.Errorf(wire.Busy, "a request of %d bytes: %v", wire.FrameLength(beginning), why)), true
}
