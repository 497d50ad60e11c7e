package engine

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l1"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Engine answers requests. Sessions and the embedding program ask it with the same types,
// wire.Request and wire.Reply. Its methods may be called concurrently.
type Engine struct {
	Config   Config
	Clock    kv.Clock
	HLC      *kv.HLC
	Self     []byte // Config.Node
	Store    *segment.Store
	Names    *namespaces.Table
	Barriers barriers

	Access *access.Rules // of the socket

	Node    *cluster.Node
	Handoff *handoff.Handoff
	Ledger  *invalidation.Ledger
	Leases  *flight.Leases
	Log     *invalidation.Log // Log and L1 are nil if the node is alone
	L1      *l1.Cache
	Watches watches
	Calls   Calls
	Counts  Counts
	Waiting atomic.Int64 // requests that wait for another host, a load or a fill
	Shares  *places.Table
	Budget  *rpc.Budget // of memory for requests and answers under way

	flushing sync.Mutex // locked while a flush of the cluster is noted
}

// Config has the settings that answers depend on.
type Config struct {
	Node           string        // this node's name
	Seed           uint64        // of the hash
	MaxValue       int           // bytes
	RequestTimeout time.Duration // of requests without a timeout
	Policy         string        // of ownership, see package cluster
	Log            *slog.Logger
}

// Counts counts events that concern other hosts.
type Counts struct {
	PeerReads, Joined, PeerErrors atomic.Int64
	CopiesRefused, FillsRefused   atomic.Int64 // copies that were not served, or not kept
	Served                        atomic.Int64 // keys read or written for other sidecars
	Overdue                       atomic.Int64 // writes that came after their callers had given them up
	Strays                        atomic.Int64 // entries and partitions dropped after a split
}

// Execute answers a request from what this host has, without waiting, or with MOVED (see
// route.go). q.Namespace must be set. fetched is the ownership epoch in which an entry
// that may be on its way here has been asked for; zero is none. For GET and MGET sessions
// call Value instead, which puts values straight into the connection's buffer.
func (c *Engine) Execute(q *wire.Request, b *namespaces.Pins, now kv.Moment, fetched uint32) wire.Reply {
	switch q.Op {
	case wire.OpPing:
		return wire.Reply{}
	case wire.OpGet, wire.OpLease:
		var r wire.Reply
		if value, _, _ := c.Value(nil, b, q, q.Key, segment.NoLimit, now, fetched, &r); r.Status == wire.OK {
			r.Value = value
		}
		return r
	case wire.OpSet:
		return c.onKey(q, b, now, fetched, c.Set)
	case wire.OpFill:
		return c.onKey(q, b, now, fetched, c.fill)
	case wire.OpTouch:
		return c.onKey(q, b, now, fetched, c.touch)
	case wire.OpIncr:
		return c.onKey(q, b, now, fetched, c.incr)
	case wire.OpDelete:
		if c.through(q) != nil {
			return Moved()
		}
		return c.deleteAll(q, b, now)
	case wire.OpFlush:
		if q.Has(wire.Cluster) && !c.Node.Alone() {
			return Moved()
		}
		return c.flush(q, b, now)
	case wire.OpRing:
		return c.Ring(q)
	case wire.OpMembers:
		return wire.BodyReply(c.members())
	case wire.OpForget:
		return c.Forget(kv.NodeID(q.Key))
	}
	return wire.ErrorReply(wire.Errorf(wire.Unsupported, "%s is not served by this version", q.Op))
}

// Features lists the operations that are served, as HELLO names them.
var Features = []string{"get", "mget", "set", "delete", "touch", "incr", "lease", "fill", "flush", "stats", "members", "ring", "watch", "verify", "forget", "ping"}

// CheckKey returns an error if a key is empty or too long.
func CheckKey(key []byte) *wire.Error {
	if !kv.ValidKey(key) {
		return wire.Errorf(wire.BadRequest, "the key has %d bytes: a key has 1 to %d", len(key), kv.MaxKeyLen)
	}
	return nil
}

// onKey runs a write of one key, f, inside its namespace.
func (c *Engine) onKey(q *wire.Request, b *namespaces.Pins, now kv.Moment, fetched uint32, f func(*namespaces.Namespace, *wire.Request, kv.Moment) wire.Reply) wire.Reply {
	if err := CheckKey(q.Key); err != nil {
		return wire.ErrorReply(err)
	}
	ns, err := b.Write(q.Namespace)
	if err != nil {
		return wire.ErrorReply(err)
	}
	partition := ns.Key(q.Key).Hash.Partition()
	holding := c.Node.OwnershipEpoch(partition)
	if holding == 0 || ns.WriteThrough != nil && q.Op != wire.OpTouch || fetched != holding && needsOld(q) && c.mayArriveByHandoff(ns.Key(q.Key), now) {
		return Moved()
	}
	failpoint.At(failpoint.WriteDue)
	r := f(ns, q, now)
	if !c.stillOwner(partition, holding) {
		return ownershipEnded()
	}
	return r
}

// needsOld reports whether a write depends on the present entry.
func needsOld(q *wire.Request) bool {
	return q.Op != wire.OpFill && (q.Op != wire.OpSet || q.Mode != wire.ModeSet)
}

// mayArriveByHandoff reports whether an absent key may have an entry on its way here.
func (c *Engine) mayArriveByHandoff(key kv.Key, now kv.Moment) bool {
	if c.Handoff.Incoming[key.Hash.Partition()].Load() == nil {
		return false
	}
	_, present := c.Store.Peek(key, now.Boot)
	return !present
}

// stillOwner reports whether an ownership that was found before a write was stored has
// lasted until after it. Only then no other host can have accepted another write.
func (c *Engine) stillOwner(partition uint16, holding uint32) bool {
	if !c.Node.Alone() {
		c.Node.CheckPause(c.Clock.Read().Boot)
	}
	return c.Node.OwnershipEpoch(partition) == holding || failpoint.Out(failpoint.SecondCheck)
}

// ownershipEnded answers a write during which the ownership has ended.
func ownershipEnded() wire.Reply {
	return wire.ErrorReply(wire.Errorf(wire.Timeout, "the key's partition went to another host in this moment; the outcome is unknown"))
}

// OwnsAll reports whether this host owns the partitions of all keys.
func (c *Engine) OwnsAll(keys []kv.Hash) bool {
	for _, h := range keys {
		if c.Node.OwnershipEpoch(h.Partition()) == 0 {
			return false
		}
	}
	return true
}

// Value looks a key up in what this host owns and in its copies, and appends the value to
// dst. GET and MGET call it. A value longer than limit is not appended: then r.Source is
// zero and size is the value's length. MOVED means that the request must go the slow way;
// it is not counted.
func (c *Engine) Value(dst []byte, b *namespaces.Pins, q *wire.Request, key []byte, limit int, now kv.Moment, fetched uint32, r *wire.Reply) (out []byte, size int, ns *namespaces.Namespace) {
	if err := CheckKey(key); err != nil {
		*r = wire.ErrorReply(err)
		return dst, 0, c.Names.None
	}
	if ns = b.Read(q.Namespace); ns == nil {
		*r = c.nameless(q, key, fetched)
		return dst, 0, c.Names.None
	}
	k := ns.Key(key)
	// This comes before the ownership is checked and the value is read: a value attested
	// as of a moment must have been current at that moment.
	var asOf kv.Version
	if q.Has(wire.Attest) {
		asOf = c.HLC.Next(now.Wall)
	}
	holding := c.Node.OwnershipEpoch(k.Hash.Partition())
	if holding == 0 {
		out, size = c.copyInto(dst, q, k, limit, now, r)
		return out, size, ns
	}
	dst, info, ok := c.Store.Get(dst, k, limit, now.Boot)
	failpoint.At(failpoint.ValueRead)
	if failpoint.Out(failpoint.AsOfFirst) && asOf != 0 {
		asOf = c.HLC.Next(now.Wall)
	}
	switch {
	case !ok && q.Has(wire.StaleOK) && q.Op != wire.OpLease && c.stale(ns, k, now, r):
		return dst, 0, ns
	case !ok:
		*r = wire.Reply{Status: wire.Miss}
		if fetched != holding && (ns.Waits(q) || c.Handoff.Incoming[k.Hash.Partition()].Load() != nil) {
			*r = Moved()
		}
		return dst, 0, ns
	case info.Absent:
		*r = wire.Reply{Status: wire.Miss, Why: wire.Absent, Version: uint64(info.Version), TTLMS: info.Deadline.TTLms(now.Boot)}
		c.attestAs(r, asOf)
		return dst, 0, ns
	case info.Deadline != 0 && info.Deadline.Remaining(now.Boot) < time.Duration(ns.Early.Load()) && !q.Has(wire.NoLoad):
		c.refreshEarly(ns, k, info.Deadline, now)
	}
	*r = wire.Reply{Flags: info.Flags, Version: uint64(info.Version), TTLMS: info.Deadline.TTLms(now.Boot)}
	c.attestAs(r, asOf)
	if info.Size <= limit {
		r.Source = wire.SourceL2
	}
	return dst, info.Size, ns
}

// attestAs attests an answer of this host as of a moment; zero: it does not.
func (c *Engine) attestAs(r *wire.Reply, asOf kv.Version) {
	if asOf != 0 {
		r.Attested, r.AsOf, r.Owner, r.Epoch = true, uint64(asOf), c.Self, uint64(c.Node.Self().Epoch)
	}
}

// stale answers a read with a stale value if the namespace's policy is not to wait for a
// new one, and starts the load of the new one.
func (c *Engine) stale(ns *namespaces.Namespace, k kv.Key, now kv.Moment, r *wire.Reply) bool {
	old, ok := c.staleReply(ns, k, now)
	if ok {
		*r = old
		c.refresh(ns, k, true)
	}
	return ok
}

// staleReply returns the answer with a stale value, if there is one that may be given
// before anything newer is asked for.
func (c *Engine) staleReply(ns *namespaces.Namespace, k kv.Key, now kv.Moment) (r wire.Reply, ok bool) {
	value, old, ok := c.Store.GetStale(nil, k, now.Boot)
	if !ok || !ns.Policy.Stale(oldOf(&old)) {
		return r, false
	}
	return oldReply(value, &old, now), true
}

// nameless answers a read in a namespace without a slot here: this host has no entry of
// it.
func (c *Engine) nameless(q *wire.Request, key []byte, fetched uint32) wire.Reply {
	if !kv.ValidNamespace(string(q.Namespace)) {
		return wire.ErrorReply(namespaces.BadName(q.Namespace))
	}
	if q.Op == wire.OpLease && fetched == 0 {
		return Moved() // a token needs a slot
	}
	if !c.Node.Alone() {
		p := c.Hash(q.Namespace, key).Partition()
		holding := c.Node.OwnershipEpoch(p)
		if holding == 0 || fetched != holding && c.Handoff.Incoming[p].Load() != nil {
			return Moved()
		}
	}
	return wire.Reply{Status: wire.Miss}
}

var modes = [...]segment.Mode{
	wire.ModeSet: segment.Set, wire.ModeAdd: segment.Add, wire.ModeReplace: segment.Replace, wire.ModeCAS: segment.CompareAndSwap,
}

// Set answers SET.
func (c *Engine) Set(ns *namespaces.Namespace, q *wire.Request, now kv.Moment) wire.Reply {
	v, res := c.Store.Put(ns.Key(q.Key), segment.Write{
		Value:    q.Value,
		Flags:    q.Flags,
		Deadline: ns.Deadline(q.TTLMS, now),
		Mode:     modes[q.Mode],
		Compare:  kv.Version(q.Compare),
		Until:    untilOf(q),
	}, now)
	if res == segment.Stored {
		c.endBarrier(ns, q.Key, v)
	}
	return c.written(ns, q, v, res)
}

// written turns the store's result of a write into the reply.
func (c *Engine) written(ns *namespaces.Namespace, q *wire.Request, v kv.Version, res segment.Result) wire.Reply {
	switch res {
	case segment.Stored:
		return wire.Reply{Version: uint64(v)}
	case segment.Exists:
		return wire.Reply{Status: wire.Exists, Version: uint64(v)}
	case segment.Absent:
		return wire.Reply{Status: wire.Miss}
	case segment.NotNumber:
		return wire.Reply{Status: wire.NotStored, Message: []byte("the value is no decimal 64-bit number: SET one first, or DELETE the key and give an initial value")}
	case segment.Overflow:
		return wire.Reply{Status: wire.NotStored, Message: []byte("the sum does not fit into 64 bits")}
	case segment.Overdue:
		return c.tooLate(q)
	case segment.TooLarge:
		if size, most := len(q.Value), c.Config.MaxValue; size > most {
			return wire.ErrorReply(wire.Errorf(wire.TooLarge, "the value has %d bytes, max_value is %d: split it, or raise max_value", size, most))
		}
		return wire.ErrorReply(wire.Errorf(wire.TooLarge, "the entry does not fit into namespace %s's quota of %s: raise the quota",
			ns.Name, humanize.IBytes(uint64(c.Store.NamespaceStats(ns.ID).Quota))))
	}
	return wire.ErrorReply(wire.Errorf(wire.Busy, "no memory could be freed, since all of it is being read: try again"))
}

func (c *Engine) touch(ns *namespaces.Namespace, q *wire.Request, now kv.Moment) wire.Reply {
	v, event, res := c.Store.Touch(ns.Key(q.Key), ns.Deadline(q.TTLMS, now), untilOf(q), now)
	r := c.written(ns, q, v, res)
	r.Event = uint64(event)
	return r
}

func (c *Engine) incr(ns *namespaces.Namespace, q *wire.Request, now kv.Moment) wire.Reply {
	sum, v, res := c.Store.Incr(ns.Key(q.Key), segment.Increment{
		Delta: q.Delta, Create: q.Create, Initial: q.Initial, Deadline: ns.Deadline(q.TTLMS, now), Until: untilOf(q),
	}, now)
	if res == segment.Stored {
		c.endBarrier(ns, q.Key, v)
	}
	r := c.written(ns, q, v, res)
	r.Number = sum
	return r
}

// deleteAll deletes the keys of a request; their number is bounded.
func (c *Engine) deleteAll(q *wire.Request, b *namespaces.Pins, now kv.Moment) wire.Reply {
	r := wire.Reply{Items: make([]wire.Reply, len(q.Keys))}
	for i, key := range q.Keys {
		r.Items[i] = c.DeleteKey(q, key, b, now)
	}
	return r
}

// DeleteKey deletes one key of a request, or with option Soft makes its value stale. A
// namespace without a slot has no such key, and gets no slot.
func (c *Engine) DeleteKey(q *wire.Request, key []byte, b *namespaces.Pins, now kv.Moment) wire.Reply {
	if err := CheckKey(key); err != nil {
		return wire.ErrorReply(err)
	}
	name := q.Namespace
	ns := b.Read(name)
	if ns == nil && !kv.ValidNamespace(string(name)) {
		return wire.ErrorReply(namespaces.BadName(name))
	}
	hash := c.Hash(name, key)
	partition := hash.Partition()
	holding := c.Node.OwnershipEpoch(partition)
	if holding == 0 {
		return Moved()
	}
	if ns == nil {
		// Other hosts may have copies, and an entry on its way here must not come in, or
		// must not stay if it has just come.
		var v kv.Version
		if !failpoint.Out(failpoint.NoSlot) {
			v = c.Store.Invalidate(hash, now)
		}
		if !c.stillOwner(partition, holding) {
			return ownershipEnded()
		}
		return wire.Reply{Status: wire.Miss, Version: uint64(v)}
	}
	k := ns.Key(key)
	if q.Has(wire.Settle) {
		ns.WriteThrough.Overtake(k.Hash) // before the deletion
	}
	hold := ns.BarrierOf(q)
	if hold > 0 {
		c.raiseBarrier(k.Hash, hold, now)
	}
	var v kv.Version
	var had bool
	if q.Has(wire.Soft) {
		v, had = c.Store.Soften(k, now)
	} else {
		v, had = c.Store.Delete(k, now)
	}
	if hold > 0 {
		c.Barriers.Keys.Deleted(k.Hash, v)
	}
	if !c.stillOwner(partition, holding) {
		return ownershipEnded()
	}
	r := wire.Reply{Version: uint64(v)}
	if !had {
		r.Status = wire.Miss
	}
	return r
}
