package session

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/slow"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Pending is a request in the socket's protocol that waits.
//
// Nearly all of them are GETs of other hosts' keys, and these need no goroutine: the
// connection's reader sends the request to the owner, and the goroutine that reads the
// owner's answer answers the app. This wakes two goroutines fewer, and these wake-ups are
// most of the time that such a GET takes. Of LEASEs thousands may wait for one fill: they have no
// goroutine either (see queue). A request that cannot go that way, or whose call fails, is served on
// a goroutine of its own.
type Pending struct {
	Waiting
	handler *Handler
	Call    *engine.Call      // the call that this request makes itself
	stack   bool              // there is memory for a goroutine of its own
	wait    *engine.LeaseWait // in queue
	fills   tokenOf           // the token that a FILL uses; zero: none
}

// pendingSize is what a waiting request takes beside its own bytes and a goroutine: its bookkeeping.
const pendingSize = int(unsafe.Sizeof(Pending{})) + 512

// MaxConnLeases bounds the waiting LEASEs of one app's connection. A connection with too
// many waiting requests is not read, but the FILL that ends the wait may come over it.
// For another host's connection the bound is half of the calls that may wait there.
const MaxConnLeases = 512

func (c *Handler) mostLeases() int64 {
	if c.from.Node != "" {
		return peer.MaxCalls / 2
	}
	return MaxConnLeases
}

// later answers c.Req when that is possible, after earlier requests of this connection
// for the same keys.
func (c *Handler) later(conn *server.Conn) {
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
		if size += queuedSize; c.leasing.Add(1) > c.mostLeases() {
			c.leasing.Add(-1)
			return nil, wire.Errorf(wire.Busy,
				"%d LEASEs of this connection wait: try again, or load the key without filling it", c.mostLeases())
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
	r := p.Serve()
	defer p.Held.Copy(ValuesOf(&r))()
	return p.end(nil, &r), OnlyReads(&p.Request)
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

// goOn serves the request on a goroutine, after the owner's answer did not answer it.
func (p *Pending) goOn() {
	p.trace.Add(slow.Owner, p.owner, p.Session.Core.Clock.Read().Boot-p.began)
	p.owner = ""
	p.start()
}

// mayAsk says whether the request is one that may need no goroutine.
func (p *Pending) mayAsk() bool {
	return p.Request.Op == wire.OpGet && p.Session.from.Node == "" && len(p.turn.before) == 0
}

// ask asks the owner of a GET's key, or joins a call that asks already. It reports
// whether that was possible without waiting. The connection's reader calls it.
func (p *Pending) ask() bool {
	s, c, q := p.Session, p.Session.Core, &p.Request
	if !p.mayAsk() {
		return false
	}
	ns := s.Names.Read(q.Namespace)
	if ns == nil {
		return false
	}
	now := c.Clock.Read()
	c.Node.CheckPause(now.Boot)
	key := ns.Key(q.Key)
	owner := c.Node.View().Owner(key.Hash.Partition())
	if owner == nil || owner.Process == c.Node.Self() || c.Node.OwnershipEpoch(key.Hash.Partition()) != 0 {
		return false
	}
	fresh := q.Has(wire.Fresh)
	left := p.Deadline - now.Boot
	if left <= 0 || !fresh && !owner.Answers(now.Boot, c.Node.Bound()) {
		return false
	}
	to := c.Node.Live(owner.Process)
	if to == nil {
		return false
	}
	p.began, p.owner = now.Boot, string(owner.Process.Node)
	cl, lead := c.Calls.Join(owner, key, engine.QuestionOf(q), now, p.Deadline, p)
	if cl == nil {
		p.owner = ""
		return false
	}
	if !lead {
		return true
	}
	p.Call = cl
	p.Conn.FlushLater(to)
	err := to.Start(&wire.Request{
		Op: wire.OpGet, Namespace: q.Namespace, Key: q.Key, Options: q.Options&engine.Asked | wire.Attest,
		TimeoutMS: uint32(max(left.Milliseconds(), 1)),
	}, left, p)
	if err != nil {
		p.owner, cl.Err = "", err
		c.Calls.Ended(cl)
	}
	return err == nil
}

// Wants returns nil if a long answer of n bytes is of use: the connection takes it, or
// other reads have joined the call.
func (p *Pending) Wants(n int) error {
	if err := p.Conn.Takes(n); err != nil && p.Session.Core.Calls.GiveUp(p.Call) {
		return err
	}
	return nil
}

// Account returns the account on whose behalf the owner is asked.
func (p *Pending) Account() *quota.Account { return p.Conn.Account() }

// Answered takes the owner's answer, and answers all reads that have joined the call.
func (p *Pending) Answered(a *transport.Answers, frame []byte, err error) {
	c, cl := p.Session.Core, p.Call
	var r wire.Reply
	if err == nil {
		err = wire.DecodeReply(wire.OpGet, frame, &r)
	}
	if err == nil {
		err = c.Node.Admit(cl.Owner.Process, r.NewestVersion())
	}
	if cl.Err = err; err == nil {
		c.Copies.Take(cl, &r)
	}
	for _, joined := range c.Calls.End(cl) {
		joined.Tell(a, cl)
	}
	p.Tell(a, cl)
}

// Tell answers with the result of a call, if the result answers the request.
func (p *Pending) Tell(a *transport.Answers, cl *engine.Call) {
	c := p.Session.Core
	// The caller that made the call may have had less time than this one.
	if p.Call != cl && !cl.Serves(p.began) && c.Clock.Read().Boot < p.Deadline {
		p.goOn()
		return
	}
	r := c.Copies.Outcome(cl, &p.Request, p.began)
	if r.Status == wire.Moved || engine.Degraded(&r) && c.Loads.MayWithoutOwner(&p.Request) {
		p.goOn()
		return
	}
	a.Frame = p.end(a.Frame[:0], &r)
	p.Conn.Answer(a, true)
}

// queuedSize is what a LEASE takes while it waits without a goroutine, beside pendingSize: its
// timer, and its place among those that wait.
const queuedSize = 1 << 10

// mayQueue says whether the request is one that may wait in queue.
func (p *Pending) mayQueue() bool {
	return p.Request.Op == wire.OpLease && len(p.turn.before) == 0
}

// queue makes a LEASE wait for the token of its key, or for the fill, without a goroutine: thousands
// may wait for one key. It returns false if the LEASE must be served on a goroutine. The
// connection's reader calls it.
func (p *Pending) queue() bool {
	s, tokens := p.handler, p.Session.Core.Tokens
	if !p.mayQueue() {
		return false
	}
	ns := s.Names.Read(p.Request.Namespace)
	if ns == nil {
		return false
	}
	p.wait = &engine.LeaseWait{Tell: p.granted}
	s.queued.add(p, p.Deadline-s.Core.Clock.Read().Boot)
	r, waits := tokens.Queue(p.wait, ns, &p.Request, s.member)
	if waits {
		return true
	}
	s.queued.remove(p)
	if r.Status == wire.Moved {
		return false
	}
	p.answer(&r).Write()
	return true
}

// giveUp ends a wait in queue, because its time is over or its connection has ended.
func (p *Pending) giveUp() {
	if r, left := p.Session.Core.Tokens.Leave(p.wait); left {
		p.handler.queued.remove(p)
		p.answer(&r).Write()
	}
}

// queued are the LEASEs of a connection that wait in queue.
type queued struct {
	mu    sync.Mutex
	m     map[*Pending]*time.Timer
	ended bool
}

// add makes a LEASE give up after a time, or when the connection ends.
func (l *queued) add(p *Pending, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		after = 0
	}
	if l.m == nil {
		l.m = map[*Pending]*time.Timer{}
		context.AfterFunc(p.Session.reading, l.end)
	}
	l.m[p] = time.AfterFunc(after, p.giveUp)
}

func (l *queued) remove(p *Pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.m[p]; t != nil {
		t.Stop()
		delete(l.m, p)
	}
}

// end makes all LEASEs give up.
func (l *queued) end() {
	l.mu.Lock()
	l.ended = true
	list := slices.Collect(maps.Keys(l.m))
	l.mu.Unlock()
	for _, p := range list {
		p.giveUp()
	}
}

// granted takes the outcome of queue. It does not wait.
func (p *Pending) granted(r wire.Reply, later func(func())) {
	p.handler.queued.remove(p)
	c := p.Session.Core
	now := c.Clock.Read()
	p.trace.Add(slow.Token, "", now.Boot-p.Since)
	if r.Status == wire.Moved { // mostly: it is in the store
		c.Node.CheckPause(now.Boot)
		b := namespaces.Pins{Table: c.Names, Member: p.Session.member}
		if c.Copied(&p.Request, &b) <= SmallValue {
			r = c.Execute(&p.Request, &b, now, 0)
		}
		b.Release()
	}
	n := ValuesOf(&r)
	switch {
	case r.Status == wire.Moved:
		p.start()
		return
	case n > SmallValue:
		err := p.takeStack()
		if err == nil {
			p.Conn.Run(func() ([]byte, bool) { // copies it
				defer p.Held.Copy(n)()
				return p.end(nil, &r), true
			})
			return
		}
		r = wire.ErrorReply(err)
	}
	later(p.answer(&r).Write)
}
