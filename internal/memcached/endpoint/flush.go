package endpoint

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// flushAll answers flush_all: all hosts drop the keys of the endpoint's namespace, and of no
// other. It comes after all commands before it, and before all later ones.
func (t *handler) flushAll(conn *server.Conn, cmd *memcached.Command) {
	q := t.Req
	*q = wire.Request{Keys: q.Keys[:0]}
	q.Op, q.Namespace, q.Options, q.App = wire.OpFlush, t.door.Namespace, wire.Cluster, true
	if err := t.Refusal(q); err != nil {
		t.refuse(conn, err)
		return
	}
	delay, over := memcached.TTL(cmd.Delay, t.Now.Wall, wire.MaxTTL)
	t.door.flushLater(time.Duration(delay) * time.Millisecond)
	switch {
	case delay > 0 && !over:
		t.door.counts[cmdFlush].Add(1)
		conn.Out = cmd.Form.AppendLine(conn.Out, "OK")
	case !t.Core.Node.Alone():
		t.wait(conn)
	default:
		t.answerOr(conn, t.Execute(conn))
	}
}

// flushLater flushes the namespace after a delay, in the place of what an earlier flush_all
// has left to be done. Zero: there is nothing left to be done.
func (d *Door) flushLater(delay time.Duration) {
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
func (d *Door) flushInLocked(delay time.Duration) {
	if n := d.flushes; !d.closed {
		d.flush = time.AfterFunc(delay, func() { d.flushNow(n) })
	}
}

// flushNow flushes the namespace on all hosts. It tries again while that fails, unless another
// flush_all than the nth has come.
func (d *Door) flushNow(n int) {
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
func (d *Door) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.flush != nil {
		d.flush.Stop()
	}
}
