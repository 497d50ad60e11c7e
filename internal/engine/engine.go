package engine

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Engine answers requests. Sessions and the embedding program ask it with the same types,
// wire.Request and wire.Reply. Its methods may be called concurrently.
//
// Each part of the engine has one duty. New makes the parts and what they stand on; no
// field is replaced afterwards. The parts use each other in the order of the fields: each
// one only those above it.
type Engine struct {
	base
	Access *access.Rules // of the socket
	Shares *quota.Places
	Budget *quota.Budget               // of memory for requests and answers under way
	Serves func(partition uint16) bool // what the store asks before a change; New sets it

	Watches    *Watches
	Calls      *Calls
	Barriers   *Barriers
	Changes    *Changes
	Flushes    *Flushes
	Tiers      *Tiers
	Copies     *Copies
	Forwarder  *Forwarder
	Loads      *Loads
	audits     *audits
	Tokens     *Tokens
	Waits      *Waits
	Reads      *Reads
	Writes     *Writes
	through    *writeThrough
	keys       *keys
	origins    memory
	kept       kept
	Hosts      *Hosts
	Acks       *Acks
	Inspection *Inspection
	warm       *warm

	Waiting atomic.Int64 // requests that wait for another host, a load or a fill
}

// Execute answers a request from what this host has, without waiting, or with MOVED (see
// keys.go). q.Namespace must be set. fetchedEpoch is the ownership epoch in which an entry
// that may be on its way here has been asked for; zero is none. For GET and MGET sessions
// call Reads.Value instead, which puts values straight into the connection's buffer.
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
		if e.through.of(q) != nil {
			*r = Moved()
			return
		}
		*r = e.Writes.deleteKeys(q, pins, now)
	case wire.OpFlush:
		if q.Has(wire.Cluster) && !e.Node.SingleNode() {
			*r = Moved()
			return
		}
		*r = e.Flushes.local(q, pins, now)
	case wire.OpDrain:
		*r = Moved()
	case wire.OpRing:
		*r = e.Hosts.Ring(q)
	case wire.OpMembers:
		*r = wire.BodyReply(e.Hosts.Members())
	case wire.OpForget:
		*r = e.Hosts.Forget(kv.NodeID(q.Key))
	default:
		e.keys.execute(q, pins, now, fetchedEpoch, r)
	}
}

// Features lists the operations that are served, as HELLO names them.
var Features = []string{
	"get", "mget", "set", "delete", "touch", "incr", "lease", "fill", "flush", "stats", "members", "ring", "watch",
	"verify", "forget", "keys", "hot", "slow", "reload", "ping", "drain", "leaving", "shared", "hits",
	"metaget",
}

// Copied returns how many bytes of a value Execute copies for a request of one key.
func (e *Engine) Copied(q *wire.Request, pins *namespaces.Pins) int {
	return e.keys.copied(q, q.Key, pins)
}

// ServeNow answers a request wherever its keys are. deadline is on the boot clock; pins is
// released while ServeNow waits. When ServeNow returns, a write with ack=all has been
// executed, but still has to be acknowledged by all hosts (see Acks).
func (e *Engine) ServeNow(
	ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	switch q.Op {
	case wire.OpMGet:
		return e.keys.readMany(ctx, q, pins, deadline)
	case wire.OpDelete:
		return e.keys.deleteMany(ctx, q, pins, deadline)
	case wire.OpFlush:
		return e.Flushes.Cluster(ctx, q, pins, deadline)
	case wire.OpRing:
		return e.Hosts.ringOfOwner(ctx, q)
	case wire.OpForget:
		return e.Hosts.ForgetEverywhere(ctx, q)
	}
	r := e.keys.serve(ctx, q, pins, deadline)
	if Degraded(&r) {
		if loaded, ok := e.Loads.withoutOwner(ctx, q, deadline); ok {
			return loaded
		}
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
		group := errgroup.Group{} // each key may wait for the origin, or for its last owner
		group.SetLimit(fetchesAtOnce)
		for i, key := range q.Keys {
			group.Go(func() error {
				pins := namespaces.Pins{Table: e.Names, Member: pins.Member}
				defer pins.Release()
				one := *q
				if q.Op == wire.OpMGet {
					one.Op, one.Key, one.Keys = wire.OpGet, key, nil
				}
				r.Items[i] = e.keys.servePeer(ctx, &one, key, &pins, deadline)
				return nil
			})
		}
		_ = group.Wait() // no function in it fails
		return r
	}
	return e.keys.servePeer(ctx, q, q.Key, pins, deadline)
}

// Reload puts other settings of namespaces into effect. It returns the key filters that
// must be run from now on.
func (e *Engine) Reload(p *namespaces.Plan) []*namespaces.KeyFilter {
	if !p.MoreReplicaLag() {
		return p.Apply()
	}
	e.Barriers.everywhere(e.Clock.Read().Boot) // deletions until now had no barrier, or a shorter one
	begun := p.Apply()
	e.Barriers.everywhere(e.Clock.Read().Boot) // nor had those until the settings took effect
	return begun
}

// Audit compares hits that were chosen with their origins until ctx ends.
func (e *Engine) Audit(ctx context.Context) { e.audits.run(ctx) }

// Warm loads once the keys of a namespace's list that this host owns. It returns early if
// ctx ends.
func (e *Engine) Warm(ctx context.Context, ns *namespaces.Namespace) { e.warm.run(ctx, ns) }
