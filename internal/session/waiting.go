package session

import (
	"bytes"
	"context"
	"time"
	"unsafe"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Waiting is a request that cannot be answered in place. A write that still waits when its connection
// has ended is not executed: its client may have written the key again over another connection, or
// another client may have. A write waits as a Waiting, or in a batch whose reader has had to wait. A
// write that its reader answers at once is executed even if its client has gone already, and so is
// one without an answer.
type Waiting struct {
	engine.Wait
	Session          *Session
	Held             quota.Held    // bytes that By has for it
	Since            time.Duration // when the request was read, on the boot clock
	turn             turn
	work             quota.Work
	chargedForAnswer int  // bytes of Held: taken for the answer before End
	awaited          bool // the account counts it as a read; Request may become another one
}

// sizeOf returns the size of a request's clone in bytes.
func sizeOf(q *wire.Request) int {
	n := len(q.Namespace) + len(q.Key) + len(q.Value) + len(q.Token) + len(q.Body)
	n += len(q.Keys) * int(unsafe.Sizeof(q.Key))
	for _, k := range q.Keys {
		n += len(k)
	}
	return n
}

// MaxWaiting bounds the requests of all connections that wait.
const MaxWaiting = 1 << 16

// Begin makes w the present request of a session, which then waits; more bytes are taken for what the
// caller has for it. End and Held.Free end it. After an error there is no room, and it does not wait.
func (w *Waiting) Begin(c *Session, conn *server.Conn, more int) *wire.Error {
	account := c.asker(c.Req, conn)
	err := account.Acquire(quota.Waiting)
	size := more + sizeOf(c.Req)
	if err == nil {
		if err = Busy(account.Take(quota.ForRequests, int64(size))); err != nil {
			account.Release(quota.Waiting)
		}
	}
	if err != nil {
		return err
	}
	c.Core.Waiting.Add(1)
	if c.ctx == nil {
		c.ctx = quota.WithAccount(context.Background(), c.account)
		c.reading = conn.While(c.ctx)
	}
	w.Session, w.Conn, w.By, w.Request = c, conn, account, c.Req.Clone()
	w.Deadline, w.Since, w.awaited = c.Core.Deadlines.Of(c.Req, c.Now), c.Now.Boot, c.awaited(c.Req)
	w.Held.Begin(account, size)
	if w.awaited {
		account.Reads(1)
	}
	if !c.Quiet {
		w.Request.Conn = conn.End()
	}
	return nil
}

// awaited reports whether a request is an app's read, which needs room for its answer.
func (ss *Session) awaited(q *wire.Request) bool {
	return ss.from.Node == "" && (q.Op == wire.OpGet || q.Op == wire.OpMGet)
}

// ServeInTurn serves the request on the caller's goroutine, once it is its turn.
func (w *Waiting) ServeInTurn() wire.Reply {
	w.Trace.Add(inspect.Turn, "", w.Session.Core.Work.Wait(&w.work, w.By, workOf(&w.Request)))
	defer w.work.End()
	return w.Serve()
}

// Serve serves the request, on the caller's goroutine.
func (w *Waiting) Serve() wire.Reply {
	s := w.Session
	b := namespaces.Pins{Table: s.Core.Namespaces, By: w.By}
	defer b.Release()
	ctx := s.ctx
	if w.Request.OnlyReads() {
		ctx = s.reading
	}
	if s.account == nil {
		ctx = quota.WithAccount(ctx, w.By)
	}
	ctx = quota.WithHeld(inspect.WithTrace(ctx, &w.Trace), &w.Held)
	waited := inspect.BeginWait(ctx, inspect.Order, "")
	w.turn.wait()
	waited()
	r := s.serveWaiting(ctx, &w.Request, &b, w.Deadline)
	if s.Core.Acks.Wanted(&w.Request) {
		w.turn.leave() // later requests are answered from what is stored
		b.Release()
		waited := inspect.BeginWait(ctx, inspect.Acks, "")
		r = s.Core.Acks.Wait(context.Background(), &w.Request, r, w.Deadline)
		waited()
	}
	return r
}

// workOf returns the work of a request, for a quota.Window: 64 keys of one request are as much as four requests.
func workOf(q *wire.Request) int { return 1 + len(q.Keys)/16 }

// End counts the request and gives its place up. Its answer takes memory before it is made, which is
// given back with the rest of what the request holds: many requests may get one long value at once.
// Without memory the reply is BUSY.
func (w *Waiting) End(r *wire.Reply) {
	if n := ValuesOf(r); n > SmallValue && w.Request.OnlyReads() {
		if err := Busy(w.Held.Take(max(0, n-w.chargedForAnswer))); err != nil {
			*r = wire.ErrorReply(err)
		}
	}
	s := w.Session
	s.Count(&w.Request, r)
	w.noteSlow(r)
	w.turn.leave()
	w.work.End()
	s.Core.Waiting.Add(-1)
	w.By.Release(quota.Waiting)
	if w.awaited {
		w.By.Reads(-1)
	}
}

// ValuesOf returns how many bytes the values of a reply have.
func ValuesOf(r *wire.Reply) int {
	n := len(r.Value)
	for i := range r.Items {
		n += len(r.Items[i].Value)
	}
	return n
}

// noteSlow notes the request of an app if it was slow.
func (w *Waiting) noteSlow(r *wire.Reply) {
	s, q := w.Session, &w.Request
	if s.from.Node != "" || !q.Op.Watched() {
		return
	}
	now, ns := s.Core.Clock.Read(), truncate(q.Namespace, kv.MaxNamespaceLen)
	s.Core.Admin.Requests.Note(ns, now.Boot-w.Since, now, func() inspect.SlowCall {
		c := inspect.SlowCall{
			Op: q.Op.String(), Keys: q.Subjects(), Result: r.Status.String(), Parts: w.Trace.Parts(),
		}
		if key := q.Key; key != nil || len(q.Keys) > 0 {
			if key == nil {
				key = q.Keys[0]
			}
			c.Key, c.Hash = bytes.Clone(truncate(key, kv.MaxKeyLen)), s.Core.Namespaces.Hash(q.Namespace, key)
		}
		return c
	})
}

// truncate returns at most the first n bytes. A request that is refused may name anything, and
// an MGET may have a key that is too long beside keys that are loaded.
func truncate(b []byte, n int) []byte { return b[:min(n, len(b))] }
