package sidecar

import (
	"context"
	"time"
	"unsafe"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// pending is a request that cannot be answered in place.
//
// Nearly all of them are GETs of other hosts' keys, and these need no goroutine:
// the connection's reader sends the owner a request, and who reads the owner's
// answer answers the app. Two goroutines fewer are woken that way, which is what
// such a GET takes its time for. What does not go that way, or does not go well,
// is served on a goroutine of its own.
type pending struct {
	session  *session
	conn     *rpc.Conn
	q        wire.Request  // with bytes of its own
	size     int           // that the connection's account has for it
	deadline time.Duration // on the boot clock
	began    time.Duration // of the asking, on the same clock
	turn     turn
	call     *engine.Call // that it makes itself
	fills    tokenOf      // that a FILL uses; zero is none
}

// pendingSize is what a request that waits takes beside its own bytes: what is noted
// of it, and a small stack.
const pendingSize = int(unsafe.Sizeof(pending{})) + 2<<10

// sizeOf is how many bytes a request's clone has.
func sizeOf(q *wire.Request) int {
	n := len(q.Namespace) + len(q.Key) + len(q.Value) + len(q.Token) + len(q.Body) + len(q.Keys)*int(unsafe.Sizeof(q.Key))
	for _, k := range q.Keys {
		n += len(k)
	}
	return n
}

// noRoom says that a request finds no memory.
func noRoom(err error) *wire.Error {
	if err == nil {
		return nil
	}
	return wire.Errorf(wire.Busy, "%v", err)
}

// serve answers on a goroutine of its own.
func (p *pending) serve() []byte {
	p.turn.wait()
	b := namespaces.Pins{Table: p.session.core.Names, Member: p.session.member}
	defer b.Release()
	ctx := p.session.ctx
	if engine.ReadOp(p.q.Op) {
		ctx = p.session.reading
	}
	r := p.session.slow(ctx, &p.q, &b, p.deadline)
	if c := p.session.core; c.WantsAll(&p.q) {
		p.turn.leave() // what comes behind is answered from what is stored
		b.Release()
		r = c.Acked(context.Background(), &p.q, r, p.deadline)
	}
	return p.end(nil, &r)
}

// long answers a read whose value was there, and is long, unless that has gone by now:
// who waits for a new one does so elsewhere.
func (p *pending) long() []byte {
	c := p.session.core
	if p.session.reading.Err() != nil { // nobody takes it
		return p.end(nil, &wire.Reply{Status: wire.Miss, Why: wire.Degraded})
	}
	now := c.Clock.Read()
	c.Node.Beat(now.Boot)
	b := namespaces.Pins{Table: c.Names, Member: p.session.member}
	r := c.Execute(&p.q, &b, now, 0)
	b.Release()
	if r.Status == wire.Moved {
		p.conn.Run(true, p.serve)
		return nil
	}
	return p.end(nil, &r)
}

// dropped ends a read of a connection that has ended.
func (p *pending) dropped() []byte {
	r := wire.ErrorReply(wire.Errorf(wire.Busy, "the connection has ended"))
	return p.end(nil, &r)
}

// end counts the request, gives its place up and appends its answer.
func (p *pending) end(dst []byte, r *wire.Reply) []byte {
	p.session.count(&p.q, r)
	if p.session.given(&p.q, r); p.fills.until > 0 && r.Status.IsError() {
		p.session.remember(p.q.Token, p.fills)
	}
	p.turn.leave()
	p.session.core.Waiting.Add(-1)
	p.session.member.Release(places.Waiting)
	p.conn.Free(p.size)
	p.session.leased(&p.q)
	if p.session.awaited(&p.q) {
		p.conn.Account().Reads(-1)
	}
	r.ID = p.q.ID
	return wire.AppendReply(dst, p.q.Op, r)
}

// ask asks the owner of a GET's key, or joins who does already, and says whether
// that was possible without waiting. The connection's reader calls it.
func (p *pending) ask() bool {
	s, c, q := p.session, p.session.core, &p.q
	if q.Op != wire.OpGet || s.from.Node != "" || len(p.turn.before) > 0 {
		return false
	}
	ns := s.names.Read(q.Namespace)
	if ns == nil {
		return false
	}
	now := c.Clock.Read()
	c.Node.Beat(now.Boot)
	key := ns.Key(q.Key)
	owner := c.Node.View().Owner(key.Hash.Partition())
	if owner == nil || owner.Process == c.Node.Self() || c.Node.Holds(key.Hash.Partition()) != 0 {
		return false
	}
	fresh := q.Has(wire.Fresh)
	left := p.deadline - now.Boot
	if left <= 0 || !fresh && !owner.Answers(now.Boot, c.Node.Bound()) {
		return false
	}
	to := c.Node.Live(owner.Process)
	if to == nil {
		return false
	}
	p.began = now.Boot
	cl, lead := c.Calls.Join(c, owner, key, engine.QuestionOf(q), now, p.deadline, p)
	if cl == nil {
		return false
	}
	if !lead {
		return true
	}
	p.call = cl
	err := p.conn.Start(to, &wire.Request{
		Op: wire.OpGet, Namespace: q.Namespace, Key: q.Key, Options: q.Options&engine.Asked | wire.Vouch,
		TimeoutMS: uint32(max(left.Milliseconds(), 1)),
	}, left, p)
	if err != nil {
		cl.Err = err
		c.Ended(cl)
	}
	return err == nil
}

// Wants says whether a long answer is of use: its connection takes it, or others have
// joined the call.
func (p *pending) Wants(n int) error {
	if err := p.conn.Takes(n); err != nil && p.session.core.Calls.GiveUp(p.call) {
		return err
	}
	return nil
}

// Account is on whose behalf the owner is asked.
func (p *pending) Account() *rpc.Account { return p.conn.Account() }

// Answered takes the owner's answer, and answers all who have asked for it.
func (p *pending) Answered(a *rpc.Answers, frame []byte, err error) {
	c, cl := p.session.core, p.call
	var r wire.Reply
	if err == nil {
		err = wire.DecodeReply(wire.OpGet, frame, &r)
	}
	if err == nil {
		err = c.Node.Admit(cl.Owner.Process, r.Newest())
	}
	if cl.Err = err; err == nil {
		c.Take(cl, &r)
	}
	for _, joined := range c.Calls.End(cl) {
		joined.Tell(a, cl)
	}
	p.Tell(a, cl)
}

// Tell answers with what a call has brought, if it brought an answer.
func (p *pending) Tell(a *rpc.Answers, cl *engine.Call) {
	c := p.session.core
	// The caller that made the call may have had less time than this one has.
	if p.call != cl && !cl.Serves(p.began) && c.Clock.Read().Boot < p.deadline {
		p.conn.Run(true, p.serve)
		return
	}
	r := c.Outcome(cl, &p.q, p.began)
	if r.Status == wire.Moved || engine.Degraded(&r) && c.MayLoadAside(&p.q) {
		p.conn.Run(true, p.serve)
		return
	}
	a.Frame = p.end(a.Frame[:0], &r)
	p.conn.Answer(a, true)
}
