package session

import (
	"bytes"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
)

// TextDoor is what all connections have in common that speak memcached's protocol.
type TextDoor struct {
	Namespace []byte            // of keys that name none
	Delimiter byte              // ends the name of a configured namespace in front of a key; zero: none
	Names     *namespaces.Table // of the host
	MaxValue  int               // bytes
	Conns     func() rpc.Stats  // of the endpoint
	Socket    string            // the path of its Unix socket; "": it has a TCP address

	counts textCounts

	mu      sync.Mutex
	base    textTally   // the counts at the last stats reset
	flush   *time.Timer // the flush_all with a delay that has not come; nil: none
	flushes int         // flush_all so far: one with a delay gives way to the next
	closed  bool
}

// split returns the namespace of a key, and the key within it.
func (d *TextDoor) split(key []byte) (namespace, rest []byte) {
	if d.Delimiter == 0 {
		return d.Namespace, key
	}
	at := bytes.IndexByte(key, d.Delimiter)
	if at <= 0 || at == len(key)-1 || !d.Names.Configured(key[:at]) {
		return d.Namespace, key
	}
	return key[:at], key[at+1:]
}

// prefixOf returns what a key has in front of its key within its namespace.
func (d *TextDoor) prefixOf(key []byte) []byte {
	_, rest := d.split(key)
	return key[:len(key)-len(rest)]
}
