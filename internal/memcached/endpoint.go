package memcached

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Endpoint is what all connections have in common that speak memcached's protocol. It is their
// server.Framing.
type Endpoint struct {
	Sessions  *session.Sessions   // of the host
	Namespace []byte              // of keys that name none
	Delimiter byte                // ends the name of a namespace in front of a key; zero: no key names one
	MaxValue  int                 // bytes
	Conns     func() server.Stats // of the endpoint
	Address   string              // on which it listens: the path of a Unix socket, or host:port

	counts counts

	mu    sync.Mutex
	base  tally       // the counts at the last stats reset
	flush *time.Timer // the latest flush_all with a delay; nil: it has been taken back
}

// split returns the namespace of a key, and the key within it. ok is false if the key has the
// delimiter, and does not name a configured namespace and a key in it. Such a key is refused,
// and is never one of Namespace: while hosts reload one after the other, some know a namespace
// that others do not know, and the same key would be two.
func (d *Endpoint) split(key []byte) (namespace, rest []byte, ok bool) {
	if d.Delimiter == 0 {
		return d.Namespace, key, true
	}
	at := bytes.IndexByte(key, d.Delimiter)
	if at < 0 {
		return d.Namespace, key, true
	}
	if at == len(key)-1 || !d.Sessions.Engine.Namespaces.Configured(key[:at]) {
		return d.Namespace, key, false
	}
	return key[:at], key[at+1:], true
}

// refuse returns the error for a key that split does not know a namespace for.
func (d *Endpoint) refuse(key []byte) *wire.Error {
	name, rest, _ := bytes.Cut(key, []byte{d.Delimiter})
	if len(rest) == 0 {
		return wire.Errorf(wire.BadRequest, "%q names no key: put one behind the delimiter %q", key, d.Delimiter)
	}
	return wire.Errorf(wire.BadRequest, "this host's configuration has no namespace %q, which the key names: "+
		"add it to namespaces and reload, or take a key without the delimiter %q", name, d.Delimiter)
}

// has reports whether a key has this prefix in front of its key within its namespace.
func (d *Endpoint) has(prefix, key []byte) bool {
	_, rest, ok := d.split(key)
	return ok && bytes.Equal(key[:len(key)-len(rest)], prefix)
}

// flushAll answers flush_all: all hosts drop the keys of the endpoint's namespace, and of no
// other. It comes after all commands before it, and before all later ones.
func (t *handler) flushAll(conn *server.Conn, cmd *command) {
	t.beginRequest(wire.OpFlush, nil).Options = wire.Cluster
	if t.refused(conn) {
		return
	}
	delay, over := ttlOf(cmd.exptime, t.Now.Wall)
	t.endpoint.flushLater(time.Duration(delay) * time.Millisecond)
	switch {
	case delay > 0 && !over:
		t.Reply = wire.Reply{}
		t.answer(conn)
	case !t.Core.Node.SingleNode():
		t.wait(conn)
	default:
		t.run(conn)
	}
}

// flushLater flushes the namespace after a delay, in the place of what an earlier flush_all
// has left to be done. Zero: there is nothing left to be done.
func (d *Endpoint) flushLater(delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.flush != nil {
		d.flush.Stop()
		d.flush = nil
	}
	if delay > 0 {
		var own *time.Timer
		own = time.AfterFunc(delay, func() {
			err := d.flushNow()
			d.mu.Lock()
			defer d.mu.Unlock()
			if err != nil && d.flush == own { // and no other flush_all has come
				own.Reset(flushAgain)
			}
		})
		d.flush = own
	}
}

// flushNow flushes the namespace on all hosts.
func (d *Endpoint) flushNow() error {
	host, core := d.Sessions.Host, d.Sessions.Engine
	leave, ok := host.Enter()
	if !ok {
		return nil // the sidecar has ended
	}
	defer leave()
	q := &wire.Request{Op: wire.OpFlush, Namespace: d.Namespace, Options: wire.Cluster}
	b := namespaces.Pins{Table: core.Namespaces}
	defer b.Release()
	r := host.Serve(context.Background(), q, &b, core.Deadlines.Of(q, core.Clock.Read()))
	err := r.Err()
	if err != nil {
		core.Config.Log.Warn("a flush_all that was to come later has failed; trying again",
			"namespace", string(d.Namespace), "error", err)
	}
	return err
}

// flushAgain is the pause after a delayed flush that has failed.
const flushAgain = time.Second

// Close takes back a flush_all with a delay. The connections have ended.
func (d *Endpoint) Close() { d.flushLater(0) }
