package endpoint

import (
	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
)

// Framing finds the commands of memcached's protocol.
type Framing struct {
	MaxValue int // bytes
}

// Longest bounds a command, in bytes. One byte more than the longest line tells that a line is
// too long.
func (f Framing) Longest() int { return memcached.MaxLine + 1 + f.MaxValue }

// Cut finds the first command.
func (f Framing) Cut(b []byte, scanned, _ int) server.Cut {
	span, err := memcached.Cut(b, scanned, f.MaxValue)
	switch {
	case err != nil:
		return server.Cut{Frame: b, Need: len(b), Bad: err}
	case span.Size == 0:
		return server.Cut{Need: span.Need, Scanned: span.Scanned}
	}
	return server.Cut{Frame: b[:span.Size], Size: span.Size, Drop: span.Drop}
}

// Busy answers a value that there is no memory for.
func (Framing) Busy(dst, beginning []byte, _ error) (out []byte, ok bool) {
	if memcached.IsQuiet(beginning) {
		return dst, true
	}
	return append(dst, "SERVER_ERROR out of memory storing object\r\n"...), true
}
