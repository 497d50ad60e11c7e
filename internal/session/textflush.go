package session

import (
	"context"
	"log/slog"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// flushAll answers flush_all: all hosts drop the keys of the endpoint's namespace, and of no
// other. It comes after all commands before it, and before all later ones.
func (t *Text) flushAll(conn *server.Conn, cmd *memcached.Command) {
	c, door := t.Session, t.text.door
	c.req.Keys = c.req.Keys[:0]
	*c.req = wire.Request{Keys: c.req.Keys}
	q := c.req
	q.Op, q.Namespace, q.Options, q.App = wire.OpFlush, door.Namespace, wire.Cluster, true
	if err := c.Refusal(q); err != nil {
		c.answerError(conn, err)
		return
	}
	delay, over := memcached.TTL(cmd.Delay, t.now.Wall, wire.MaxTTL)
	door.flushLater(c, time.Duration(delay)*time.Millisecond)
	switch {
	case delay > 0 && !over:
		c.text.door.counts[cmdFlush].Add(1)
		conn.Out = cmd.Form.AppendLine(conn.Out, "OK")
	case !c.Core.Node.Alone():
		c.later(conn)
	default:
		c.execute(conn)
	}
}

// flushLater flushes the namespace after a delay, in the place of what an earlier flush_all
// has left to be done. Zero: there is nothing left to be done.
func (d *TextDoor) flushLater(c *Session, delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushes++
	if d.flush != nil {
		d.flush.Stop()
		d.flush = nil
	}
	if delay > 0 {
		d.flushInLocked(c.d, c.Core.Config.Log, delay)
	}
}

// flushInLocked sets the timer of the present delayed flush.
func (d *TextDoor) flushInLocked(of *Doors, log *slog.Logger, delay time.Duration) {
	if n := d.flushes; !d.closed {
		d.flush = time.AfterFunc(delay, func() { d.flushNow(of, log, n) })
	}
}

// flushNow flushes the namespace on all hosts. It tries again while that fails, unless another
// flush_all than the nth has come.
func (d *TextDoor) flushNow(of *Doors, log *slog.Logger, n int) {
	leave, ok := of.cfg.Host.Enter()
	if !ok {
		return // the sidecar has ended
	}
	defer leave()
	core := of.cfg.Engine
	q := &wire.Request{Op: wire.OpFlush, Namespace: d.Namespace, Options: wire.Cluster}
	b := namespaces.Pins{Table: core.Names}
	r := of.cfg.Host.Serve(context.Background(), q, &b, core.Deadlines.Of(q, core.Clock.Read()))
	b.Release()
	if err := r.Err(); err != nil {
		log.Warn("a flush_all that was to come later has failed; trying again",
			"namespace", string(d.Namespace), "error", err)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.flushes == n {
			d.flushInLocked(of, log, flushAgain)
		}
	}
}

// flushAgain is the pause after a delayed flush that has failed.
const flushAgain = time.Second

// Close takes back a flush_all with a delay.
func (d *TextDoor) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.flush != nil {
		d.flush.Stop()
	}
}
