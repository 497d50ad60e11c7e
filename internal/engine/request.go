package engine

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l1"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Engine is what every door shares: sessions on the socket and the embedding
// program ask it in the same words, wire.Request and wire.Reply.
type Engine struct {
	Config Config
	Clock  kv.Clock
	HLC    *kv.HLC
	Self   []byte // cfg.Node
	Store  *segment.Store
	Names  *namespaces.Table
	Barriers  barriers

	Access *access.Rules // of the socket

	Node    *cluster.Node
	Handoff *handoff.Handoff
	Ledger  *invalidation.Ledger
	Leases  *loader.Leases
	Log     *invalidation.Log // this and the next: nil where the node is alone
	L1      *l1.Cache
	Watches watches
	Calls   Calls
	Counts  Counts
	Waiting atomic.Int64 // requests that wait for others
	Shares  *places.Table
	Budget  *rpc.Budget // of memory for what is in flight

	flushing sync.Mutex // held while a flush of the cluster is noted
}

// Config is what concerns the answers to requests.
type Config struct {
	Node           string        // this node's name
	Seed           uint64        // of the hash
	MaxValue       int           // bytes
	RequestTimeout time.Duration // of requests that bring none
	Policy         string        // of partitions
	Log            *slog.Logger
}

// Counts counts what concerns other hosts.
type Counts struct {
	PeerReads, Joined, PeerErrors atomic.Int64
	CopiesRefused, FillsRefused   atomic.Int64 // copies that were not served, or not kept
	Served                        atomic.Int64 // keys, to other sidecars
	Overdue                       atomic.Int64 // writes that came after they were given up
	Strays                        atomic.Int64 // entries and partitions dropped after a split
}

// Execute serves a request from what this host holds, or says that it has moved
// (see route.go). q.Namespace is set. fetched is the holding in which an entry that
// may be on its way here has been asked for; zero is none. GET and MGET of sessions have their values
// put straight into the connection's buffer instead (see value).
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

// Features are the ops that are served, as HELLO names them.
var Features = []string{"get", "mget", "set", "delete", "touch", "incr", "lease", "fill", "flush", "stats", "members", "ring", "watch", "verify", "forget", "ping"}

func CheckKey(key []byte) *wire.Error {
	if !kv.ValidKey(key) {
		return wire.Errorf(wire.BadRequest, "the key has %d bytes: a key has 1 to %d", len(key), kv.MaxKeyLen)
	}
	return nil
}

// onKey runs a write of one key inside its namespace.
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

// needsOld says whether a write depends on what is there.
func needsOld(q *wire.Request) bool {
	return q.Op != wire.OpFill && (q.Op != wire.OpSet || q.Mode != wire.ModeSet)
}

// mayArriveByHandoff says whether a key that is absent may have an entry on its way here.
func (c *Engine) mayArriveByHandoff(key kv.Key, now kv.Moment) bool {
	if c.Handoff.Incoming[key.Hash.Partition()].Load() == nil {
		return false
	}
	_, present := c.Store.Peek(key, now.Boot)
	return !present
}

// stillOwner says whether a holding, found before a write was stored, has lasted
// until after it: only then nobody else can have accepted another one.
func (c *Engine) stillOwner(partition uint16, holding uint32) bool {
	if !c.Node.Alone() {
		c.Node.CheckPause(c.Clock.Read().Boot)
	}
	return c.Node.OwnershipEpoch(partition) == holding || failpoint.Out(failpoint.SecondCheck)
}

// ownershipEnded answers a write during which the holding has ended.
func ownershipEnded() wire.Reply {
	return wire.ErrorReply(wire.Errorf(wire.Timeout, "the key's partition went to another host in this moment; the outcome is unknown"))
}

// OwnsAll says whether this host holds the partitions of all keys.
func (c *Engine) OwnsAll(keys []kv.Hash) bool {
	for _, h := range keys {
		if c.Node.OwnershipEpoch(h.Partition()) == 0 {
			return false
		}
	}
	return true
}

// Value looks a key up in what this host holds and appends its value to dst:
// what GET and MGET do on a hit. A value beyond limit is not appended; r.Source
// is zero then and size tells its length. MOVED is for others to answer, and
// counts for nothing.
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
	// Before the holding is checked and the value read: what is vouched for as
	// of a moment must have been current then.
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

// attestAs says that this host vouches for an answer as of a moment; zero is not.
func (c *Engine) attestAs(r *wire.Reply, asOf kv.Version) {
	if asOf != 0 {
		r.Attested, r.AsOf, r.Owner, r.Epoch = true, uint64(asOf), c.Self, uint64(c.Node.Self().Epoch)
	}
}

// stale answers a read with a stale value where the namespace's policy is that
// nobody waits for a new one, and sees to the new one.
func (c *Engine) stale(ns *namespaces.Namespace, k kv.Key, now kv.Moment, r *wire.Reply) bool {
	old, ok := c.staleReply(ns, k, now)
	if ok {
		*r = old
		c.refresh(ns, k, true)
	}
	return ok
}

// staleReply is the answer with a stale value, if there is one that may be given
// before anything newer is asked for.
func (c *Engine) staleReply(ns *namespaces.Namespace, k kv.Key, now kv.Moment) (r wire.Reply, ok bool) {
	value, old, ok := c.Store.GetStale(nil, k, now.Boot)
	if !ok || !ns.Policy.Stale(oldOf(&old)) {
		return r, false
	}
	return oldReply(value, &old, now), true
}

// nameless answers a read in a namespace that has no slot here: nothing of it
// is on this host.
func (c *Engine) nameless(q *wire.Request, key []byte, fetched uint32) wire.Reply {
	if !kv.ValidNamespace(string(q.Namespace)) {
		return wire.ErrorReply(namespaces.BadName(q.Namespace))
	}
	if q.Op == wire.OpLease && fetched == 0 {
		return Moved() // the token needs a slot
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

// written turns what became of a write into its answer.
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

// deleteAll deletes the keys of a request, whose number is bounded.
func (c *Engine) deleteAll(q *wire.Request, b *namespaces.Pins, now kv.Moment) wire.Reply {
	r := wire.Reply{Items: make([]wire.Reply, len(q.Keys))}
	for i, key := range q.Keys {
		r.Items[i] = c.DeleteKey(q, key, b, now)
	}
	return r
}

// DeleteKey deletes one key of a request, or with soft makes it a stale one. A
// name without a slot has none, and gets none.
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
		// Copies may be about, and nothing on its way may come in, or stay if it
		// has just come.
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
