package session

import (
	"time"
	"unsafe"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Pending is a request in the socket's protocol that waits: in the engine, without a goroutine, if it
// may (see engine.Wait), or else on a goroutine of its own.
type Pending struct {
	Waiting
	handler *Handler
	stack   bool    // there is memory for a goroutine of its own
	fills   tokenOf // the token that a FILL uses; zero: none
}

// pendingSize is what a waiting request takes beside its own bytes and a goroutine: its bookkeeping.
const pendingSize = int(unsafe.Sizeof(Pending{})) + 512

// MaxConnLeases bounds the waiting LEASEs of one app's connection. A connection with too
// many waiting requests is not read, but the FILL that ends the wait may come over it.
const MaxConnLeases = 512

// later answers c.Req when that is possible, after earlier requests of this connection
// for the same keys.
func (c *Handler) later(conn *server.Conn) {
	p := pendOr(c, conn)
	if p == nil {
		return
	}
	// A FILL must not wait for the LEASEs that wait for it. Nor must reads of another host's apps for each other: they
	// have times of their own, and their host keeps the order of each app.
	c.order.enter(&p.turn, c.keys(), c.Req.Op != wire.OpLease && (c.Req.App || !c.Req.OnlyReads()))
	if p.Request.Op == wire.OpFill {
		p.fills = c.tokens.takeToken(p.Request.Token) // the request has it now, and not the end of the connection
	}
	c.Names.Release() // the request may wait for others to end
	var room func() bool
	if !p.hasRoom() {
		room = p.hasRoom
	}
	stands := conn.Begin(room)
	switch {
	case !stands && p.Request.OnlyReads():
		conn.Run(p.dropped)
	case !p.waits():
		p.startInTurn()
	}
}

// maxQueued bounds the work of one connection that waits for its turn. The connection is not read from then on.
const maxQueued = 256

// hasRoom says whether there is room for the answer, and to wait for a turn.
func (p *Pending) hasRoom() bool {
	return (!p.awaited || p.By.Awaits()) && p.handler.queued.Load() < maxQueued
}

// startInTurn starts the request, now or once it is its turn. Requests of other hosts have had theirs there.
func (p *Pending) startInTurn() {
	size := workOf(&p.Request)
	if p.Session.from.Node != "" || p.Session.Core.Work.Begin(&p.work, p.By, size, p) {
		p.start()
		return
	}
	p.handler.queued.Add(int64(size))
}

// TurnCame begins a request that has waited for its turn.
func (p *Pending) TurnCame(waited time.Duration) {
	p.handler.queued.Add(int64(-workOf(&p.Request)))
	p.Trace.Add(inspect.Turn, "", waited)
	err := p.takeStack()
	if err == nil {
		p.start()
		return
	}
	p.Conn.Run(func() ([]byte, bool) { // the end begins others: not all those without memory on this goroutine
		r := wire.ErrorReply(err)
		return p.endRequest(nil, &r), true
	})
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
	p.writeAnswer(&r)
}

// writeAnswer answers a request that only reads, or has not been executed.
func (p *Pending) writeAnswer(r *wire.Reply) {
	a := &transport.Answers{Frame: p.endRequest(nil, r)}
	p.Conn.Answer(a, true)
	a.Write()
}

// takeStack takes the memory of a goroutine.
func (p *Pending) takeStack() *wire.Error {
	if p.stack {
		return nil
	}
	err := Busy(p.Held.Take(server.Waits))
	p.stack = err == nil
	return err
}

// long answers another host's read with a long value, after the short answers: it must
// not delay the answers to other apps of that host.
func (c *Handler) long(conn *server.Conn, size int) {
	if p := pendOr(c, conn); p != nil {
		c.Names.Release()
		conn.Begin(nil)
		conn.Long(size, p.long)
	}
}

// pendOr makes a Pending of the present request. If there is no room, it answers the request and
// returns nil.
func pendOr(c *Handler, conn *server.Conn) *Pending {
	p, err := c.pend(conn)
	if err != nil {
		c.answerError(conn, err)
	}
	return p
}

// pend makes a Pending of c.Req, if there is room.
func (c *Handler) pend(conn *server.Conn) (*Pending, *wire.Error) {
	size := pendingSize
	if c.Req.Op == wire.OpLease {
		if size += queuedSize; c.leasing.Add(1) > MaxConnLeases && c.from.Node == "" {
			c.leasing.Add(-1)
			return nil, wire.Errorf(wire.Busy,
				"%d LEASEs of this connection wait: try again, or load the key without filling it", MaxConnLeases)
		}
	}
	p := &Pending{handler: c}
	if err := p.Begin(c.Session, conn, size); err != nil {
		c.leased(c.Req)
		return nil, err
	}
	return p, nil
}

// leased notes that a LEASE does not wait any more.
func (c *Handler) leased(q *wire.Request) {
	if q.Op == wire.OpLease {
		c.leasing.Add(-1)
	}
}

// serve answers the request on a goroutine of its own, and says whether it has only read.
func (p *Pending) serve() (answer []byte, reads bool) {
	if q := &p.Request; (q.Op.Repeatable() || q.OnlyReads()) && q.Conn != nil && q.Conn.Ended() {
		return p.dropped()
	}
	r := p.Serve()
	defer p.Held.Copy(ValuesOf(&r))()
	answer, reads = p.endRequest(nil, &r), p.Request.OnlyReads()
	engine.FreeItems(&r)
	return answer, reads
}

// long answers a read whose value was present and is long. If the value has gone by now,
// the read waits for a new one in serve.
func (p *Pending) long() []byte {
	c := p.Session.Core
	if p.Session.reading.Err() != nil { // no client takes the answer
		answer, _ := p.dropped()
		return answer
	}
	now := c.Clock.Read()
	c.Node.CheckPause(now.Boot)
	b := namespaces.Pins{Table: c.Namespaces, By: p.By}
	r := c.Execute(&p.Request, &b, now, 0)
	b.Release()
	if r.Status == wire.Moved {
		p.Held.Give(p.chargedForAnswer)
		p.chargedForAnswer = 0
		p.startInTurn()
		return nil
	}
	return p.endRequest(nil, &r)
}

var errGone = wire.Errorf(wire.Busy, "the connection has ended")

// dropped ends a read of a connection that has ended.
func (p *Pending) dropped() (answer []byte, reads bool) {
	r := wire.ErrorReply(errGone)
	return p.endRequest(nil, &r), true
}

// endRequest ends the request, and appends its answer.
func (p *Pending) endRequest(dst []byte, r *wire.Reply) []byte {
	h := p.handler
	if h.given(&p.Request, r); p.fills.until > 0 && r.Status.IsError() {
		h.remember(p.Request.Token, p.fills)
	}
	p.End(r)
	defer p.Held.Free()
	h.leased(&p.Request)
	r.ID = p.Request.ID
	return wire.AppendReply(dst, p.Request.Op, r)
}

// queuedSize is what a LEASE takes while it waits without a goroutine, beside pendingSize: its
// timer, and its place among those that wait.
const queuedSize = 1 << 10

// mayWait says whether the request is one that may need no goroutine.
func (p *Pending) mayWait() bool {
	op, app := p.Request.Op, p.Session.from.Node == ""
	return (op == wire.OpGet && app || op == wire.OpLease) && len(p.turn.before) == 0
}

// waits makes the request wait in the engine, or answers it there. It returns false if it must be
// served on a goroutine. The connection's reader calls it.
func (p *Pending) waits() bool {
	if !p.mayWait() {
		return false
	}
	s := p.Session
	p.Reading, p.Asker = s.reading, p
	r, waits := s.Core.StartWait(&p.Wait, &s.Names)
	if waits {
		return true
	}
	if r.Status == wire.Moved {
		return false
	}
	p.writeAnswer(&r)
	return true
}

// Tell takes the reply of the engine. It does not wait.
func (p *Pending) Tell(a *transport.Answers, r wire.Reply) {
	c, now := p.Session.Core, p.Session.Core.Clock.Read()
	p.TraceWait(now.Boot)
	n := ValuesOf(&r)
	if r.Status == wire.Moved && p.Request.Op == wire.OpLease { // mostly it is in the store
		c.Node.CheckPause(now.Boot)
		b := namespaces.Pins{Table: c.Namespaces, By: p.By}
		if n = c.Copied(&p.Request, &b); n <= SmallValue {
			r = c.Execute(&p.Request, &b, now, 0)
		}
		b.Release()
	}
	// Thousands may get a long value at once: it is in r, or MOVED says that it is in the store.
	if n > SmallValue && p.Request.Op == wire.OpLease {
		err := Busy(p.Held.Take(n))
		if err == nil {
			p.chargedForAnswer = n
			p.Conn.Long(n, func() []byte {
				defer p.Held.Copy(n)()
				if r.Status == wire.Moved {
					return p.long()
				}
				return p.endRequest(nil, &r)
			})
			return
		}
		r = wire.ErrorReply(err)
	}
	if r.Status == wire.Moved {
		p.startInTurn()
		return
	}
	a.Frame = p.endRequest(a.Frame[:0], &r)
	p.Conn.Answer(a, true)
}
