package engine

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Requests that wait without a goroutine:
//
//	GET    of another host's key, for the owner's answer. The reader of the app's connection sends
//	       the request, and the reader of the owner's answers the app. This wakes two goroutines
//	       fewer, and these wake-ups are most of the time that such a GET takes.
//	LEASE  of a key of this host, for the token or the fill. Thousands may wait for one fill.

// Wait is a request that waits: one of these, or one with a goroutine of its own. The caller gives the fields that are
// exported. They do not change while the engine has it.
type Wait struct {
	Request  wire.Request // with its own bytes
	Conn     *server.Conn
	By       *quota.Account // on whose behalf it waits
	Deadline time.Duration  // on the boot clock
	Trace    inspect.Trace
	Reading  context.Context // ends with the connection
	Asker    Asker

	// Of those without a goroutine.
	e     *Engine
	host  string        // that is asked
	began time.Duration // on the boot clock
	call  *Call         // that this GET makes itself
	until time.Duration // the present call of the owner is given up, on the boot clock
	lease flight.LeaseWaiter
	over  func() // a LEASE has its reply
	end   leaseEnd
}

// Asker is told the reply to its request once. MOVED means that a GET must go the slow way, and that a
// LEASE must be looked up again. Tell must not wait.
type Asker interface {
	Tell(a *transport.Answers, r wire.Reply)
}

// StartWait makes a request wait, or answers it. MOVED, without a wait, means that the request must go the
// slow way. The reader of the connection calls it.
func (e *Engine) StartWait(w *Wait, pins *namespaces.Pins) (r wire.Reply, waits bool) {
	ns := pins.Read(w.Request.Namespace)
	if ns == nil {
		return Moved(), false
	}
	w.e = e
	if w.Request.Op == wire.OpLease {
		return e.queueLease(w, ns)
	}
	return Moved(), e.startGet(w, ns)
}

// startGet asks the owner of a GET's key, or joins a call that asks already. It reports whether that was
// possible without waiting.
func (e *Engine) startGet(w *Wait, ns *namespaces.Namespace) bool {
	q, now := &w.Request, e.Clock.Read()
	e.Node.CheckPause(now.Boot)
	key := ns.Key(q.Key)
	owner := e.Node.View().AssignedOwner(key.Hash.Partition())
	if owner == nil || owner.Process == e.Node.Self() || e.Node.OwnershipEpoch(key.Hash.Partition()) != 0 {
		return false
	}
	w.until = e.patience(ns, q, w.Deadline)
	if now.Boot >= w.until || !q.Has(wire.Fresh) && !owner.Answers(now.Boot, e.Node.Bound()) {
		return false
	}
	to := e.Node.Live(owner.Process)
	if to == nil {
		return false
	}
	w.host, w.began = string(owner.Node), now.Boot
	cl, lead := e.Remote.Join(owner, key, q, now, w.until, w.Deadline, w)
	if !lead {
		return cl != nil
	}
	w.call = cl
	w.Conn.FlushLater(to)
	err := w.askOwner(to, now)
	if err != nil { // else the call is Answered's
		var a transport.Answers
		e.Remote.Finish(&a, cl, nil, err)
		a.Write()
	}
	return err == nil
}

// askOwner begins to ask the owner.
func (wait *Wait) askOwner(to *rpc.Client, now kv.Moment) error {
	out, left := questionFor(wait.Request.Namespace, []*Call{wait.call}), wait.until-now.Boot
	out.TimeoutMS = uint32(max(left.Milliseconds(), 1))
	return to.Start(out, left, wait)
}

// askAgain asks the owner again, whose load takes longer than it was asked to wait. It reports whether it does.
func (wait *Wait) askAgain() bool {
	now, to, until := wait.e.Clock.Read(), wait.e.Node.Live(wait.call.owner.Process), wait.until
	if wait.until = wait.Deadline; now.Boot >= wait.until || to == nil || wait.askOwner(to, now) != nil {
		wait.until = until
		return false
	}
	to.Flush()
	return true
}

// TraceWait notes the wait, which ends at a moment on the boot clock.
func (wait *Wait) TraceWait(now time.Duration) {
	what := inspect.Owner
	if wait.Request.Op == wire.OpLease {
		what = inspect.Token
	}
	wait.Trace.Add(what, wait.host, now-wait.began)
}

// Account returns the account on whose behalf the owner is asked.
func (wait *Wait) Account() *quota.Account { return wait.By }

// Answered takes the owner's answer, and answers all reads that have joined the call.
func (wait *Wait) Answered(a *transport.Answers, frame []byte, err error) {
	e, cl := wait.e, wait.call
	var r wire.Reply
	if err == nil {
		err = wire.DecodeReply(wire.OpGet, frame, &r)
	}
	if err == nil {
		err = e.Node.CheckVersion(cl.owner.Process, r.NewestVersion())
	}
	if err == nil && wait.until < wait.Deadline && cl.goesOn(&r) && wait.askAgain() {
		return
	}
	e.Remote.Finish(a, cl, &r, err)
	wait.tell(a, cl)
}

// tell answers with the result of a call, if the result answers the request.
func (wait *Wait) tell(a *transport.Answers, cl *Call) {
	e := wait.e
	// The caller that made the call may have had less time than this one. This one may have failed to ask again.
	all := wait.call == cl && wait.until == wait.Deadline
	if (wait.call != cl && !cl.Serves(wait.began) || cl.ofOne() && !all) && e.Clock.Read().Boot < wait.Deadline {
		wait.Request.Heard = cl.err == nil
		wait.Asker.Tell(a, Moved())
		return
	}
	r := e.Remote.outcome(cl, &wait.Request, wait.began)
	if e.Loads.unsaid(&wait.Request, &r) {
		r = Moved()
	}
	wait.Asker.Tell(a, r)
}

// queueLease makes a LEASE wait for the token of its key, or for the fill, until its time is over or its
// connection ends.
func (e *Engine) queueLease(w *Wait, ns *namespaces.Namespace) (r wire.Reply, waits bool) {
	claim, ok := e.Tokens.claimOf(ns, &w.Request, w.By)
	if !ok {
		return Moved(), false
	}
	key, now := claim.Key, e.Clock.Read().Boot
	w.began = now
	w.lease.Tell = func(g flight.Grant, err error, later func(func())) {
		w.over()
		var a transport.Answers
		w.Asker.Tell(&a, e.Tokens.outcome(ns, key, g, err))
		later(a.Write)
	}
	stop := context.AfterFunc(w.Reading, func() {
		var a transport.Answers
		w.giveUp(&a)
		a.Write()
	})
	w.over = func() {
		stop()
		e.leaseTimes.remove(&w.end)
	}
	e.leaseTimes.add(&w.end, w.Deadline-now, w.giveUp)
	grant, waits, err := e.LeaseTokens.Queue(claim, &w.lease)
	if waits {
		return wire.Reply{}, true
	}
	w.over()
	return e.Tokens.outcome(ns, key, grant, err), false
}

// giveUp makes a LEASE give up, unless it has been told its reply.
func (wait *Wait) giveUp(a *transport.Answers) {
	if !wait.e.LeaseTokens.Leave(&wait.lease) {
		return
	}
	wait.over()
	wait.Asker.Tell(a, wire.ErrorReply(waitedInVain))
}
