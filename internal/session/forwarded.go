package session

import (
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/slow"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

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
		c.Forwarder.Ended(cl)
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
	r := c.Forwarder.Outcome(cl, &p.Request, p.began)
	if r.Status == wire.Moved || engine.Degraded(&r) && c.Loads.MayWithoutOwner(&p.Request) {
		p.goOn()
		return
	}
	a.Frame = p.end(a.Frame[:0], &r)
	p.Conn.Answer(a, true)
}
