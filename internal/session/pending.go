package session

import (
	"bytes"
	"context"
	"time"
	"unsafe"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/slow"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Pending is a request that cannot be answered in place.
//
// Nearly all of them are GETs of other hosts' keys, and these need no goroutine: the
// connection's reader sends the request to the owner, and the goroutine that reads the
// owner's answer answers the app. This wakes two goroutines fewer, and these wake-ups are
// most of the time that such a GET takes. Of LEASEs thousands may wait for one fill: they have no
// goroutine either (see queue). A request that cannot go that way, or whose call fails, is served on
// a goroutine of its own.
type Pending struct {
	Session  *Session
	Conn     *server.Conn
	Request  wire.Request  // with its own bytes
	Held     quota.Held    // bytes that the connection's account has for it
	Deadline time.Duration // on the boot clock
	began    time.Duration // when the owner was asked, on the boot clock
	turn     turn
	Call     *engine.Call      // the call that this request makes itself
	Since    time.Duration     // when the request was read, on the boot clock
	owner    string            // the host that ask has asked; "": none
	trace    slow.Trace        // of serve
	stack    bool              // there is memory for a goroutine of its own
	wait     *engine.LeaseWait // in queue
	fills    tokenOf           // the token that a FILL uses; zero: none
	awaited  bool              // the account counts it as a read; q may become another request
}

// pendingSize is what a waiting request takes beside its own bytes and a goroutine: its bookkeeping.
const pendingSize = int(unsafe.Sizeof(Pending{})) + 512

// sizeOf returns the size of a request's clone in bytes.
func sizeOf(q *wire.Request) int {
	n := len(q.Namespace) + len(q.Key) + len(q.Value) + len(q.Token) + len(q.Body)
	n += len(q.Keys) * int(unsafe.Sizeof(q.Key))
	for _, k := range q.Keys {
		n += len(k)
	}
	return n
}

// MaxSlow bounds the requests of all connections that wait.
const MaxSlow = 1 << 16

// MaxConnLeases bounds the waiting LEASEs of one app's connection. A connection with too
// many waiting requests is not read, but the FILL that ends the wait may come over it.
// For another host's connection the bound is half of the calls that may wait there.
const MaxConnLeases = 512

func (c *Session) mostLeases() int64 {
	if c.from.Node != "" {
		return peer.MaxCalls / 2
	}
	return MaxConnLeases
}

// later answers c.Req when that is possible, after earlier requests of this connection
// for the same keys.
func (c *Session) later(conn *server.Conn) {
	p := pendOr(c, conn)
	if p == nil {
		return
	}
	// A FILL must not wait for the LEASEs that wait for it.
	c.order.enter(&p.turn, c.keys(), c.Req.Op != wire.OpLease)
	if p.Request.Op == wire.OpFill {
		p.fills = c.tokens.take(p.Request.Token) // the request has it now, and not the end of the connection
	}
	c.Names.Release() // the request may wait for others to end
	if !p.mayAsk() && !p.mayQueue() {
		if err := p.takeStack(); err != nil { // with the other answers of the batch
			r := wire.ErrorReply(err)
			conn.Out = p.end(conn.Out, &r)
			return
		}
	}
	var room func() bool
	if p.awaited && !conn.Account().Awaits() {
		room = conn.Account().Awaits
	}
	stands := conn.Begin(room)
	switch {
	case !stands && OnlyReads(&p.Request):
		conn.Run(p.dropped)
	case !p.ask() && !p.queue():
		p.start()
	}
}

// start serves the request on a goroutine of its own, if there is memory for it. Else the request is
// BUSY. start does not wait.
func (p *Pending) start() {
	err := p.takeStack()
	if err == nil {
		p.Conn.Run(p.serve)
		return
	}
	r := wire.ErrorReply(err)
	p.answer(&r).Write()
}

// answer answers a request that only reads, or has not been executed. The caller writes the answer.
func (p *Pending) answer(r *wire.Reply) *transport.Answers {
	a := &transport.Answers{Frame: p.end(nil, r)}
	p.Conn.Answer(a, true)
	return a
}

// takeStack takes the memory of a goroutine.
func (p *Pending) takeStack() *wire.Error {
	if p.stack {
		return nil
	}
	err := NoRoom(p.Held.Take(server.Waits))
	p.stack = err == nil
	return err
}

// long answers another host's read with a long value, after the short answers: it must
// not delay the answers to other apps of that host.
func (c *Session) long(conn *server.Conn, size int) {
	if p := pendOr(c, conn); p != nil {
		c.Names.Release()
		conn.Begin(nil)
		conn.Long(size, p.long)
	}
}

// pendOr makes a Pending of the present request. If there is no room, it answers the request and returns nil.
func pendOr(c *Session, conn *server.Conn) *Pending {
	p, err := c.Pend(conn)
	if err != nil {
		c.answerError(conn, err)
	}
	return p
}

// Pend makes a Pending of c.Req, if there is room.
func (c *Session) Pend(conn *server.Conn) (*Pending, *wire.Error) {
	if c.Req.Op == wire.OpLease && c.leasing.Add(1) > c.mostLeases() {
		c.leasing.Add(-1)
		return nil, wire.Errorf(wire.Busy,
			"%d LEASEs of this connection wait: try again, or load the key without filling it", c.mostLeases())
	}
	size := pendingSize + sizeOf(c.Req)
	if c.Req.Op == wire.OpLease {
		size += queuedSize
	}
	err := c.member.Acquire(quota.Waiting)
	if err == nil {
		if err = NoRoom(conn.Hold(size)); err != nil {
			c.member.Release(quota.Waiting)
		}
	}
	if err != nil {
		c.leased(c.Req)
		return nil, err
	}
	c.Core.Waiting.Add(1)
	if c.ctx == nil {
		c.ctx = quota.With(rpc.WithAccount(context.Background(), conn.Account()), c.member)
		c.reading = conn.While(c.ctx)
	}
	p := &Pending{
		Session: c, Conn: conn, Request: c.Req.Clone(),
		Deadline: c.Core.Deadlines.Of(c.Req, c.Now), Since: c.Now.Boot, awaited: c.awaited(c.Req),
	}
	p.Held.Begin(conn.Account(), size)
	if p.awaited {
		conn.Account().Reads(1)
	}
	if !c.Quiet {
		p.Request.Conn = server.EndOf(conn)
	}
	return p, nil
}

// awaited reports whether a request is an app's read, which needs room for its answer.
func (c *Session) awaited(q *wire.Request) bool {
	return c.from.Node == "" && (q.Op == wire.OpGet || q.Op == wire.OpMGet)
}

// leased notes that a LEASE does not wait any more.
func (c *Session) leased(q *wire.Request) {
	if q.Op == wire.OpLease {
		c.leasing.Add(-1)
	}
}

// serve answers the request on a goroutine of its own, and says whether it has only read.
func (p *Pending) serve() (answer []byte, reads bool) {
	r := p.Serve()
	defer p.Held.Copy(ValuesOf(&r))()
	return p.end(nil, &r), OnlyReads(&p.Request)
}

// Serve serves the request, on the caller's goroutine.
func (p *Pending) Serve() wire.Reply {
	b := namespaces.Pins{Table: p.Session.Core.Names, Member: p.Session.member}
	defer b.Release()
	ctx := p.Session.ctx
	if OnlyReads(&p.Request) {
		ctx = p.Session.reading
	}
	ctx = quota.WithHeld(slow.With(ctx, &p.trace), &p.Held)
	waited := slow.Begin(ctx, slow.Order, "")
	p.turn.wait()
	waited()
	r := p.Session.slow(ctx, &p.Request, &b, p.Deadline)
	if c := p.Session.Core; c.Acks.Wanted(&p.Request) {
		p.turn.leave() // later requests are answered from what is stored
		b.Release()
		waited := slow.Begin(ctx, slow.Acks, "")
		r = c.Acks.Wait(context.Background(), &p.Request, r, p.Deadline)
		waited()
	}
	return r
}

// long answers a read whose value was present and is long. If the value has gone by now,
// the read waits for a new one in serve.
func (p *Pending) long() []byte {
	c := p.Session.Core
	if p.Session.reading.Err() != nil { // no client takes the answer
		return p.end(nil, &wire.Reply{Status: wire.Miss, Why: wire.Degraded})
	}
	now := c.Clock.Read()
	c.Node.CheckPause(now.Boot)
	b := namespaces.Pins{Table: c.Names, Member: p.Session.member}
	r := c.Execute(&p.Request, &b, now, 0)
	b.Release()
	if r.Status == wire.Moved {
		p.start()
		return nil
	}
	return p.end(nil, &r)
}

// dropped ends a read of a connection that has ended.
func (p *Pending) dropped() (answer []byte, reads bool) {
	r := wire.ErrorReply(wire.Errorf(wire.Busy, "the connection has ended"))
	return p.end(nil, &r), true
}

// end ends the request, and appends its answer.
func (p *Pending) end(dst []byte, r *wire.Reply) []byte {
	p.End(r)
	defer p.Held.Free()
	r.ID = p.Request.ID
	return wire.AppendReply(dst, p.Request.Op, r)
}

// End counts the request and gives its place up. Its answer takes memory before it is made, which is
// given back with the rest of what the request holds: many requests may get one long value at once.
// Without memory the reply is BUSY.
func (p *Pending) End(r *wire.Reply) {
	if n := ValuesOf(r); n > SmallValue && OnlyReads(&p.Request) {
		if err := NoRoom(p.Held.Take(n)); err != nil {
			*r = wire.ErrorReply(err)
		}
	}
	p.Session.Count(&p.Request, r)
	p.note(r)
	if p.Session.given(&p.Request, r); p.fills.until > 0 && r.Status.IsError() {
		p.Session.remember(p.Request.Token, p.fills)
	}
	p.turn.leave()
	p.Session.Core.Waiting.Add(-1)
	p.Session.member.Release(quota.Waiting)
	p.Session.leased(&p.Request)
	if p.awaited {
		p.Conn.Account().Reads(-1)
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

// note notes the request of an app if it was slow.
func (p *Pending) note(r *wire.Reply) {
	s, q := p.Session, &p.Request
	if s.from.Node != "" || !timed[q.Op] {
		return
	}
	now := s.Core.Clock.Read()
	s.Core.Inspection.Requests.Note(now.Boot-p.Since, now, func() slow.Call {
		c := slow.Call{
			Op: q.Op.String(), Namespace: string(cut(q.Namespace, kv.MaxNamespaceLen)),
			Keys: namespaces.KeysIn(q), Result: r.Status.String(), Parts: p.trace.Parts(),
		}
		if key := q.Key; key != nil || len(q.Keys) > 0 {
			if key == nil {
				key = q.Keys[0]
			}
			c.Key, c.Hash = bytes.Clone(cut(key, kv.MaxKeyLen)), s.Core.Names.Hash(q.Namespace, key)
		}
		if p.owner != "" {
			c.Parts = append(c.Parts, slow.Part{What: slow.Owner, Node: p.owner, Took: now.Boot - p.began})
		}
		return c
	})
}

// OnlyReads reports whether a request changes nothing: BUSY may replace its answer, and nobody
// misses it once the connection has ended.
func OnlyReads(q *wire.Request) bool {
	return engine.ReadOp(q.Op) || q.Op == wire.OpMetaGet && !q.Has(wire.Touch) && !q.Has(wire.Claim)
}

// cut returns at most the first n bytes. A request that is refused may name anything, and
// an MGET may have a key that is too long beside keys that are loaded.
func cut(b []byte, n int) []byte { return b[:min(n, len(b))] }

// timed are the requests that note may list: those that are to be fast.
var timed = [wire.OpCount]bool{
	wire.OpGet: true, wire.OpMGet: true, wire.OpSet: true, wire.OpDelete: true, wire.OpTouch: true,
	wire.OpIncr: true, wire.OpLease: true, wire.OpFill: true, wire.OpFlush: true, wire.OpMetaGet: true,
}
