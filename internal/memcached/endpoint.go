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
func (d *Endpoint) split(key []byte) (namespace, rest []byte, ok bool) {
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
func (t *handler) flushAll(conn *server.Conn, cmd *Command) {
	q := t.Req
	*q = wire.Request{Keys: q.Keys[:0]}
	q.Op, q.Namespace, q.Options, q.App = wire.OpFlush, t.endpoint.Namespace, wire.Cluster, true
	if err := t.Refusal(q); err != nil {
		t.refuse(conn, err)
		return
	}
	delay, over := TTL(cmd.Delay, t.Now.Wall, wire.MaxTTL)
	t.endpoint.flushLater(time.Duration(delay) * time.Millisecond)
	switch {
	case delay > 0 && !over:
		t.endpoint.counts[cmdFlush].Add(1)
		conn.Out = cmd.form.appendLine(conn.Out, "OK")
	case !t.Core.Node.SingleNode():
		t.wait(conn)
	default:
		t.answerOrWait(conn, t.Execute(conn))
	}
}

// flushLater flushes the namespace after a delay, in the place of what an earlier flush_all
// has left to be done. Zero: there is nothing left to be done.
func (d *Endpoint) flushLater(delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushes++
	if d.flush != nil {
		d.flush.Stop()
		d.flush = nil
	}
	if delay > 0 {
		d.flushInLocked(delay)
	}
}

// flushInLocked sets the timer of the present delayed flush.
func (d *Endpoint) flushInLocked(delay time.Duration) {
	if n := d.flushes; !d.closed {
		d.flush = time.AfterFunc(delay, func() { d.flushNow(n) })
	}
}

// flushNow flushes the namespace on all hosts. It tries again while that fails, unless another
// flush_all than the nth has come.
func (d *Endpoint) flushNow(n int) {
	host, core := d.Sessions.Host, d.Sessions.Engine
	leave, ok := host.Enter()
	if !ok {
		return // the sidecar has ended
	}
	defer leave()
	q := &wire.Request{Op: wire.OpFlush, Namespace: d.Namespace, Options: wire.Cluster}
	b := namespaces.Pins{Table: core.Names}
	r := host.Serve(context.Background(), q, &b, core.Deadlines.Of(q, core.Clock.Read()))
	b.Release()
	if err := r.Err(); err != nil {
		core.Config.Log.Warn("a flush_all that was to come later has failed; trying again",
			"namespace", string(d.Namespace), "error", err)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.flushes == n {
			d.flushInLocked(flushAgain)
		}
	}
}

// flushAgain is the pause after a delayed flush that has failed.
const flushAgain = time.Second

// Close takes back a flush_all with a delay.
func (d *Endpoint) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.flush != nil {
		d.flush.Stop()
	}
}
