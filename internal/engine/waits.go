package engine

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Waits has the requests that wait without a goroutine:
//
//	GET    of another host's key, for the owner's answer. The reader of the app's connection sends
//	       the request, and the reader of the owner's answers the app. This wakes two goroutines
//	       fewer, and these wake-ups are most of the time that such a GET takes.
//	LEASE  of a key of this host, for the token or the fill. Thousands may wait for one fill.
type Waits struct {
	*base
	calls  *Calls
	copies *Copies
	loads  *Loads
	tokens *Tokens
}

// Wait is one of these requests. The fields that are exported are given by the caller, and do not
// change while it waits.
type Wait struct {
	Request  *wire.Request
	Conn     Conn
	Member   *quota.Member
	Leases   *WaitingLeases // of the connection
	Deadline time.Duration  // on the boot clock
	Asker    Asker

	waits *Waits
	host  string        // that is asked
	began time.Duration // on the boot clock
	call  *Call         // that this GET makes itself
	lease flight.LeaseWaiter
}

// Conn is the connection of a Wait.
type Conn interface {
	Account() *quota.Account
	// FlushLater flushes calls behind the present batch.
	FlushLater(calls server.Flusher)
}

// Asker is told the reply to its request once. MOVED means that a GET must go the slow way, and that a
// LEASE must be looked up again. Tell must not wait.
type Asker interface {
	Tell(a *transport.Answers, r wire.Reply)
}

// Begin makes a request wait, or answers it. MOVED, without a wait, means that the request must go the
// slow way. The reader of the connection calls it.
func (c *Waits) Begin(w *Wait, pins *namespaces.Pins) (r wire.Reply, waits bool) {
	ns := pins.Read(w.Request.Namespace)
	if ns == nil {
		return Moved(), false
	}
	w.waits = c
	if w.Request.Op == wire.OpLease {
		return c.lease(w, ns)
	}
	return Moved(), c.get(w, ns)
}

// get asks the owner of a GET's key, or joins a call that asks already. It reports whether that was
// possible without waiting.
func (c *Waits) get(w *Wait, ns *namespaces.Namespace) bool {
	q, now := w.Request, c.Clock.Read()
	c.Node.CheckPause(now.Boot)
	key := ns.Key(q.Key)
	owner := c.Node.View().Owner(key.Hash.Partition())
	if owner == nil || owner.Process == c.Node.Self() || c.Node.OwnershipEpoch(key.Hash.Partition()) != 0 {
		return false
	}
	left := w.Deadline - now.Boot
	if left <= 0 || !q.Has(wire.Fresh) && !owner.Answers(now.Boot, c.Node.Bound()) {
		return false
	}
	to := c.Node.Live(owner.Process)
	if to == nil {
		return false
	}
	w.host, w.began = string(owner.Node), now.Boot
	cl, lead := c.calls.Join(owner, key, questionOf(q), now, w.Deadline, w)
	if !lead {
		return cl != nil
	}
	w.call = cl
	w.Conn.FlushLater(to)
	out := questionFor(q.Namespace, []*Call{cl})
	out.TimeoutMS = uint32(max(left.Milliseconds(), 1))
	err := to.Start(out, left, w)
	if err != nil { // else the call is Answered's
		cl.err = err
		c.calls.Ended(cl)
	}
	return err == nil
}

// Note notes the wait, which ends at a moment on the boot clock.
func (w *Wait) Note(t *inspect.Trace, now time.Duration) {
	what := inspect.Owner
	if w.Request.Op == wire.OpLease {
		what = inspect.Token
	}
	t.Add(what, w.host, now-w.began)
}

// Account returns the account on whose behalf the owner is asked.
func (w *Wait) Account() *quota.Account { return w.Conn.Account() }

// Answered takes the owner's answer, and answers all reads that have joined the call.
func (w *Wait) Answered(a *transport.Answers, frame []byte, err error) {
	c, cl := w.waits, w.call
	var r wire.Reply
	if err == nil {
		err = wire.DecodeReply(wire.OpGet, frame, &r)
	}
	if err == nil {
		err = c.Node.Admit(cl.owner.Process, r.NewestVersion())
	}
	if cl.err = err; err == nil {
		c.copies.Take(cl, &r)
	}
	for _, joined := range c.calls.End(cl) {
		joined.tell(a, cl)
	}
	w.tell(a, cl)
}

// tell answers with the result of a call, if the result answers the request.
func (w *Wait) tell(a *transport.Answers, cl *Call) {
	c := w.waits
	// The caller that made the call may have had less time than this one.
	if w.call != cl && !cl.Serves(w.began) && c.Clock.Read().Boot < w.Deadline {
		w.Asker.Tell(a, Moved())
		return
	}
	r := c.copies.outcome(cl, w.Request, w.began)
	if Degraded(&r) && c.loads.mayWithoutOwner(w.Request) {
		r = Moved()
	}
	w.Asker.Tell(a, r)
}

// lease makes a LEASE wait for the token of its key, or for the fill, until its time is over or its
// connection ends.
func (c *Waits) lease(w *Wait, ns *namespaces.Namespace) (r wire.Reply, waits bool) {
	claim, ok := c.tokens.claimOf(ns, w.Request, w.Member)
	if !ok {
		return Moved(), false
	}
	key, now := claim.Key, c.Clock.Read().Boot
	w.began = now
	w.lease.Tell = func(g flight.Grant, err error, later func(func())) {
		w.Leases.remove(w)
		var a transport.Answers
		w.Asker.Tell(&a, c.tokens.outcome(ns, key, g, err))
		later(a.Write)
	}
	w.Leases.add(w, w.Deadline-now)
	grant, waits, err := c.Leases.Queue(claim, &w.lease)
	if waits {
		return wire.Reply{}, true
	}
	w.Leases.remove(w)
	return c.tokens.outcome(ns, key, grant, err), false
}

// giveUp makes a LEASE give up, unless it has been told its reply.
func (w *Wait) giveUp() {
	if !w.waits.Leases.Leave(&w.lease) {
		return
	}
	w.Leases.remove(w)
	var a transport.Answers
	w.Asker.Tell(&a, wire.ErrorReply(waitedInVain))
	a.Write()
}

// WaitingLeases are the LEASEs of a connection that wait. The zero value has none.
type WaitingLeases struct {
	mu    sync.Mutex
	m     map[*Wait]*time.Timer
	ended bool
}

// add makes a LEASE give up after a time, or when the connection ends.
func (l *WaitingLeases) add(w *Wait, after time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		after = 0
	}
	if l.m == nil {
		l.m = map[*Wait]*time.Timer{}
	}
	l.m[w] = time.AfterFunc(after, w.giveUp)
}

func (l *WaitingLeases) remove(w *Wait) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.m[w]; t != nil {
		t.Stop()
		delete(l.m, w)
	}
}

// End makes all LEASEs give up: the connection has ended.
func (l *WaitingLeases) End() {
	l.mu.Lock()
	l.ended = true
	list := slices.Collect(maps.Keys(l.m))
	l.mu.Unlock()
	for _, w := range list {
		w.giveUp()
	}
}
