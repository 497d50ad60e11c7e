package endpoint

import (
	"bytes"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Door is what all connections have in common that speak memcached's protocol.
type Door struct {
	Sessions  *session.Doors      // of the host
	Namespace []byte              // of keys that name none
	Delimiter byte                // ends the name of a namespace in front of a key; zero: no key names one
	MaxValue  int                 // bytes
	Conns     func() server.Stats // of the endpoint
	Address   string              // on which it listens: the path of a Unix socket, or host:port

	counts counts

	mu      sync.Mutex
	base    tally       // the counts at the last stats reset
	flush   *time.Timer // the flush_all with a delay that has not come; nil: none
	flushes int         // flush_all so far: one with a delay gives way to the next
	closed  bool
}

// split returns the namespace of a key, and the key within it. ok is false if the key has the
// delimiter, and does not name a configured namespace and a key in it. Such a key is refused,
// and is never one of Namespace: while hosts reload one after the other, some know a namespace
// that others do not know, and the same key would be two.
func (d *Door) split(key []byte) (namespace, rest []byte, ok bool) {
	if d.Delimiter == 0 {
		return d.Namespace, key, true
	}
	at := bytes.IndexByte(key, d.Delimiter)
	if at < 0 {
		return d.Namespace, key, true
	}
	if at == len(key)-1 || !d.Sessions.Engine.Names.Configured(key[:at]) {
		return d.Namespace, key, false
	}
	return key[:at], key[at+1:], true
}

// refuse returns the error for a key that split does not know a namespace for.
func (d *Door) refuse(key []byte) *wire.Error {
	name, rest, _ := bytes.Cut(key, []byte{d.Delimiter})
	if len(rest) == 0 {
		return wire.Errorf(wire.BadRequest, "%q names no key: put one behind the delimiter %q", key, d.Delimiter)
	}
	return wire.Errorf(wire.BadRequest, "this host's configuration has no namespace %q, which the key names: "+
		"add it to namespaces and reload, or take a key without the delimiter %q", name, d.Delimiter)
}

// has reports whether a key has this prefix in front of its key within its namespace.
func (d *Door) has(prefix, key []byte) bool {
	_, rest, ok := d.split(key)
	return ok && bytes.Equal(key[:len(key)-len(rest)], prefix)
}
