package engine

import (
	"context"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// forward passes a request on to a key's owner. ns is nil if this host has no slot for the namespace.
func (m *Remote) forward(
	ctx context.Context, owner *cluster.Host, q *wire.Request, ns *namespaces.Namespace, key kv.Key,
	deadline time.Duration,
) wire.Reply {
	if q.Op == wire.OpGet || q.Op == wire.OpLease {
		return m.read(ctx, owner, q, ns, key, patience{m.patience(ns, q, deadline), deadline})
	}
	return m.write(ctx, owner, q, key, deadline)
}

// join returns the call that answers a read, with lead set if the caller must make it. If
// there is no need to ask the owner, the call is nil and r is the answer.
func (m *Remote) join(
	owner *cluster.Host, q *wire.Request, ns *namespaces.Namespace, key kv.Key, now kv.Moment, wait patience,
) (cl *Call, lead bool, r wire.Reply) {
	if !q.Has(wire.Fresh) {
		if ns != nil {
			if cp := m.Get(key, owner, now); cp != nil {
				return nil, false, m.reply(q, cp, wire.SourceL1, owner.LeasedAt(), now)
			}
		}
		if !owner.Answers(now.Boot, m.Node.Bound()) || wait.loads() && now.Boot >= wait.silent {
			return nil, false, unanswered(q, owner) // not worth the wait
		}
	}
	if ns == nil { // the key names no slot, by which calls are found
		m.Counts.PeerReads.Add(1)
		cl = newCall(owner, key, q, now, wait.silent, wait.deadline)
		cl.slotless = true
		return cl, true, r
	}
	cl, lead = m.Join(owner, key, q, now, wait.silent, wait.deadline, nil)
	return cl, lead, r
}

// read asks a key's owner, once for all readers at the same time. A token answers only the LEASE that
// asked; then the next one that waits asks on behalf of the rest.
func (m *Remote) read(
	ctx context.Context, owner *cluster.Host, q *wire.Request, ns *namespaces.Namespace, key kv.Key, wait patience,
) wire.Reply {
	began := m.Clock.Read().Boot
	for {
		cl, lead, r := m.join(owner, q, ns, key, m.Clock.Read(), wait)
		switch {
		case cl == nil:
			return r
		case lead:
			m.askOwner(ctx, q.Namespace, []*Call{cl}, wait)
			return m.outcome(cl, q, began)
		case !m.waitFor(ctx, cl, wait):
			return inVain(q, owner, wait)
		case cl.Serves(began) && !cl.ofOne():
			return m.outcome(cl, q, began)
		}
		// The caller that made the call may have had less time than this one.
		switch over := m.Clock.Read().Boot >= wait.deadline; {
		case over && q.Op == wire.OpLease:
			return inVain(q, owner, wait)
		case over:
			return m.outcome(cl, q, began)
		}
		if cl.err == nil { // the owner has answered: it is not silent
			wait.silent = wait.deadline
		}
	}
}

// patience is until when a read waits for an owner.
type patience struct {
	silent   time.Duration // if the owner says nothing
	deadline time.Duration // if it has said that its load goes on
}

// loads says whether the read has its key loaded without an owner that is silent.
func (pat patience) loads() bool { return pat.silent < pat.deadline }

// inVain answers a read that has waited for another one's call until its time for that was over.
func inVain(q *wire.Request, owner *cluster.Host, wait patience) wire.Reply {
	if q.Op == wire.OpLease && !wait.loads() {
		return wire.ErrorReply(waitedInVain)
	}
	return unanswered(q, owner)
}

// askOwner makes one request for the keys of some calls to their owner, and ends the calls. It asks again
// for those whose load takes longer than the wait for a silent owner.
func (m *Remote) askOwner(ctx context.Context, ns []byte, list []*Call, wait patience) {
	owner := list[0].owner
	if list[0].asks.Lease {
		ctx = context.WithoutCancel(ctx) // the answer may be a token, which must be given back if no client wants it
	}
	var a peer.Answer
	defer a.Release()
	err := errNoTime
	if left := wait.silent - m.Clock.Read().Boot; left > 0 {
		waited := inspect.BeginWait(ctx, inspect.Owner, string(owner.Node))
		err = m.Node.Do(ctx, owner.Process, left, questionFor(ns, list), &a)
		waited()
	}
	var answers transport.Answers
	var goOn []*Call
	for i, cl := range list {
		r := &a.Reply
		if err == nil && len(list) > 1 && r.Status == wire.OK {
			r = &a.Items[i]
		}
		if err == nil && wait.loads() && cl.goesOn(r) {
			goOn = append(goOn, cl)
			continue
		}
		m.Finish(&answers, cl, r, err)
	}
	answers.Write()
	if len(goOn) > 0 {
		m.askOwner(ctx, ns, goOn, patience{wait.deadline, wait.deadline})
	}
}

// questionFor returns the request that asks the owner of some calls.
func questionFor(ns []byte, list []*Call) *wire.Request {
	cl := list[0]
	q := &wire.Request{Op: wire.OpGet, Namespace: ns, Key: cl.key.Bytes, Options: cl.asks.Options, By: cl.by}
	if cl.asks.Lease {
		q.Op = wire.OpLease
	}
	if !cl.slotless {
		q.Options |= wire.Attest
	}
	if len(list) > 1 {
		q.Op, q.Key = wire.OpMGet, nil
		for _, cl := range list {
			q.Keys = append(q.Keys, cl.key.Bytes)
		}
	}
	return q
}

var errNoTime = errors.New("no time was left")

// waitFor waits until a call has ended, and reports whether it has in time.
func (m *Remote) waitFor(ctx context.Context, cl *Call, wait patience) bool {
	defer inspect.BeginWait(ctx, inspect.Owner, string(cl.owner.Node))()
	t := time.NewTimer(max(wait.silent-m.Clock.Read().Boot, 0))
	defer t.Stop()
	for heard := !wait.loads(); ; heard = true {
		select {
		case <-cl.done:
			return true
		case <-t.C:
			if heard || !cl.heard.Load() {
				return false
			}
			t.Reset(max(wait.deadline-m.Clock.Read().Boot, 0))
		case <-ctx.Done():
			return false
		}
	}
}

// sourceOf returns the source of a value in an owner's answer, as this host tells it.
func sourceOf(r *wire.Reply) wire.Source {
	if r.Source == wire.SourceOrigin {
		return wire.SourceOrigin
	}
	return wire.SourcePeer
}

// write passes a write, or a METAGET, on to a key's owner. It notes the change before the app hears of
// it, so that no later read through this host returns an older value.
func (m *Remote) write(
	ctx context.Context, owner *cluster.Host, q *wire.Request, key kv.Key, deadline time.Duration,
) wire.Reply {
	if ended(q) {
		return m.Deadlines.tooLate(q)
	}
	out := *q
	out.UntilNS = executeBeforeAtOwner(owner, q, deadline)
	out.Options &^= wire.AckAll // asked for once the write is executed
	changes := !q.Op.Reads() || q.Has(wire.Touch)
	var a peer.Answer
	defer a.Release()
	if executed, bad := m.send(ctx, owner, &out, &a, deadline); bad != nil {
		return m.unwritten(owner, key, executed && changes, bad)
	}
	r := owned(&a.Reply)
	if q.Op.Reads() {
		r.Source = wire.SourcePeer
	}
	switch {
	case changes && (!q.Op.Reads() || r.Event != 0 || r.Status == wire.Timeout):
		m.changes.wrote(key, &r)
	case r.Status == wire.Miss && q.Has(wire.CacheOnly): // a change whose event a miss does not name
		m.changes.unknown(key)
	}
	return r
}

// delete passes the deletion of some keys on to their owner.
func (m *Remote) delete(
	ctx context.Context, owner *cluster.Host, q *wire.Request, list []int, items []wire.Reply, deadline time.Duration,
) {
	out := &wire.Request{
		Op: wire.OpDelete, Namespace: q.Namespace, Keys: make([][]byte, len(list)), Options: q.Options &^ wire.AckAll,
		ReplicaLagMS: q.ReplicaLagMS, UntilNS: executeBeforeAtOwner(owner, q, deadline), Compare: q.Compare,
		StaleMS: q.StaleMS, By: q.By,
	}
	for n, i := range list {
		out.Keys[n] = q.Keys[i]
	}
	var a peer.Answer
	defer a.Release()
	executed, bad := m.send(ctx, owner, out, &a, deadline)
	if bad == nil && a.Status != wire.OK {
		executed, bad = false, &wire.Error{Status: a.Status, Message: string(a.Message)}
	}
	for n, i := range list {
		key := kv.Key{Hash: m.Namespaces.Hash(q.Namespace, q.Keys[i])}
		if bad != nil {
			items[i] = m.unwritten(owner, key, executed, bad)
			continue
		}
		items[i] = owned(&a.Items[n])
		m.changes.wrote(key, &items[i])
	}
}

// unwritten answers a write without an answer of the owner of its key, which may have changed the key.
func (m *Remote) unwritten(owner *cluster.Host, key kv.Key, changed bool, bad *wire.Error) wire.Reply {
	switch {
	case changed:
		m.changes.unknown(key)
	case m.Node.View().AssignedOwner(key.Hash.Partition()) != owner: // the next one can be asked
		return Moved()
	}
	return wire.ErrorReply(bad)
}

// send passes a write on to the owner of its keys. If executed is set beside an error, the
// owner may have executed the write.
func (m *Remote) send(
	ctx context.Context, owner *cluster.Host, out *wire.Request, a *peer.Answer, deadline time.Duration,
) (executed bool, bad *wire.Error) {
	left := deadline - m.Clock.Read().Boot
	if left <= 0 {
		return false, wire.Errorf(wire.Unavailable, "no time was left to ask %s, which owns the key: try again",
			owner.Node)
	}
	if !m.reaches(owner) {
		return false, unreached(owner)
	}
	waited := inspect.BeginWait(ctx, inspect.Owner, string(owner.Node))
	err := m.Node.Do(ctx, owner.Process, left, out, a)
	if waited(); err == nil {
		return true, nil
	}
	m.Counts.PeerErrors.Add(1)
	if errors.Is(err, rpc.ErrFull) {
		return false, wire.Errorf(wire.Busy,
			"too many requests to %s, which owns the key, are under way: try again (%v)", owner.Node, err)
	}
	// The words of the network and of TLS are for the log: they have addresses, and say nothing to an app.
	m.Config.Log.Info("a write has got no answer from the owner of its key", "node", owner.Node, "error", err)
	if peer.NotExecuted(err) {
		return false, wire.Errorf(wire.Unavailable,
			"%s, which owns the key, cannot be reached; the sidecar's log has more", owner.Node)
	}
	return true, wire.Errorf(wire.Timeout,
		"the outcome is unknown: %s, which owns the key, has not answered; the sidecar's log has more", owner.Node)
}
