package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Engine answers requests. Sessions and the embedding program ask it with the same types,
// wire.Request and wire.Reply. Its methods may be called concurrently.
//
// Its own methods are the way of a request, of one key or many. Each part has one duty. New makes the parts and what
// they stand on; no field is replaced afterwards. The parts use each other in the order of the fields: each one only
// those above it.
type Engine struct {
	deps
	Access *access.Rules               // of the socket
	Budget *quota.Budget               // what requests under way may hold
	Serves func(partition uint16) bool // what the store asks before a change; New sets it

	Watches  *Watches
	Barriers *Barriers
	Changes  *Changes
	Delegate *Delegate
	Remote   *Remote
	Loads    *Loads
	Tokens   *Tokens
	Local    *Local
	Acks     *Acks
	Regions  *Regions
	Pressure *Pressure
	Admin    *Admin
	Origins  memory // of their answers
	kept     kept

	leaseTimes leaseTimes

	Work    *quota.Window // of the apps' requests that cannot be answered in place
	Waiting atomic.Int64  // requests that wait for another host, a load or a fill
}

// Execute answers a request from what this host has, without waiting, or with MOVED (see
// slowway.go). q.Namespace must be set. fetchedEpoch is the ownership epoch in which an entry
// that may be on its way here has been asked for; zero is none. For GET and MGET sessions
// call Value instead, which puts values straight into the connection's buffer.
func (e *Engine) Execute(q *wire.Request, pins *namespaces.Pins, now kv.Moment, fetchedEpoch uint32) (r wire.Reply) {
	e.ExecuteTo(q, pins, now, fetchedEpoch, &r)
	return r
}

// ExecuteTo is Execute with a reply that is filled in place.
func (e *Engine) ExecuteTo(q *wire.Request, pins *namespaces.Pins, now kv.Moment, fetchedEpoch uint32, r *wire.Reply) {
	switch q.Op {
	case wire.OpPing:
		*r = wire.Reply{}
	case wire.OpDelete:
		if e.writeThroughOf(q) != nil {
			*r = Moved()
			return
		}
		e.Local.deleteKeys(q, pins, now, r)
	case wire.OpFlush:
		if q.Has(wire.Cluster) && !e.Node.SingleNode() {
			*r = Moved()
			return
		}
		*r = e.Changes.flushLocal(q, pins, now)
	case wire.OpDrain:
		*r = Moved()
	case wire.OpRing:
		*r = e.Admin.Ring(q)
	case wire.OpMembers:
		*r = wire.BodyReply(e.Admin.Members())
	case wire.OpForget:
		*r = e.Admin.Forget(kv.NodeID(q.Key))
	case wire.OpGet, wire.OpLease:
		value, _, _ := e.Local.Value(nil, pins, q, q.Key, segment.NoLimit, now, fetchedEpoch, r)
		if r.Status == wire.OK {
			r.Value = value
		}
	case wire.OpSet:
		e.Local.set(q, pins, now, fetchedEpoch, r)
	case wire.OpFill:
		e.Local.onKey(q, pins, now, fetchedEpoch, r, e.Tokens.fill)
	case wire.OpTouch:
		e.Local.onKey(q, pins, now, fetchedEpoch, r, e.Local.touch)
	case wire.OpIncr:
		e.Local.onKey(q, pins, now, fetchedEpoch, r, e.Local.incr)
	case wire.OpMetaGet:
		e.Local.metaGet(q, pins, now, fetchedEpoch, r)
	default:
		*r = failed(wire.Unsupported, "%s is not served by this version", q.Op)
	}
}

// ServeNow answers a request wherever its keys are. deadline is on the boot clock; pins is
// released while ServeNow waits. When ServeNow returns, a write with ack=all has been
// executed, but still has to be acknowledged by all hosts (see Acks).
func (e *Engine) ServeNow(
	ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	switch q.Op {
	case wire.OpMGet:
		return e.readMany(ctx, q, pins, deadline)
	case wire.OpDelete:
		return e.deleteMany(ctx, q, pins, deadline)
	case wire.OpFlush:
		return e.Changes.FlushCluster(ctx, q, pins, deadline)
	case wire.OpRing:
		return e.Admin.ringOfOwner(ctx, q)
	case wire.OpForget:
		return e.Admin.ForgetEverywhere(ctx, q)
	case wire.OpStats:
		return e.Admin.Stats(ctx, q, e.Config.Program.Stats())
	case wire.OpVerify:
		return e.Admin.Verify(q, deadline)
	case wire.OpReload:
		return e.Admin.reload(ctx)
	case wire.OpDrain:
		return e.Admin.drain(ctx, q, deadline)
	}
	r := e.serve(ctx, q, pins, deadline)
	if e.Loads.unsaid(q, &r) {
		return e.Loads.loadUnsaid(ctx, q, &r, deadline)
	}
	return r
}

// ServePeer answers a request that another sidecar has passed on, if this host owns the
// key's partition or is about to. Otherwise it answers MOVED. deadline is on the boot
// clock; pins is released while it waits.
func (e *Engine) ServePeer(
	ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	if q.Op == wire.OpMGet || q.Op == wire.OpDelete {
		r := wire.Reply{Items: make([]wire.Reply, len(q.Keys))}
		pins.Release()
		e.eachAtOnce(len(q.Keys), pins.By, func(i int, pins *namespaces.Pins) {
			one := *q
			if q.Op == wire.OpMGet {
				one.Op, one.Key, one.Keys = wire.OpGet, q.Keys[i], nil
			}
			r.Items[i] = e.servePeer(ctx, &one, q.Keys[i], pins, deadline)
		})
		return r
	}
	return e.servePeer(ctx, q, q.Key, pins, deadline)
}

// Reload puts other settings of namespaces into effect. It returns the key filters that
// must be run from now on.
func (e *Engine) Reload(p *namespaces.Plan) []namespaces.Runner {
	if !p.OtherReplicaLag() {
		return p.Apply()
	}
	e.Barriers.everywhere(e.Clock.Read().Boot) // changes until now were not noted, or for another replica_lag
	begun := p.Apply()
	e.Barriers.everywhere(e.Clock.Read().Boot) // nor were those until the settings took effect
	return begun
}
