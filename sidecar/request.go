package sidecar

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// core is what every door shares: sessions on the socket and the embedding
// program ask it in the same words, wire.Request and wire.Reply.
type core struct {
	cfg   Config
	clock kv.Clock
	hlc   *kv.HLC
	store *segment.Store
	names *namespaces
}

// execute serves every request but GET and MGET, whose values go straight into
// the caller's buffer (see value). q.Namespace is set.
func (c *core) execute(q *wire.Request, b *borrowed, now kv.Moment) wire.Reply {
	switch q.Op {
	case wire.OpPing:
		return wire.Reply{}
	case wire.OpSet:
		return c.onKey(q, b, now, c.set)
	case wire.OpTouch:
		return c.onKey(q, b, now, c.touch)
	case wire.OpIncr:
		return c.onKey(q, b, now, c.incr)
	case wire.OpDelete:
		return c.deleteAll(q, b, now)
	case wire.OpFlush:
		return c.flush(q, b, now)
	case wire.OpRing:
		return c.ring(q)
	case wire.OpMembers:
		return bodyReply([]wire.Member{{Node: c.cfg.Node, State: "alive"}})
	}
	return errorReply(wire.Errorf(wire.Unsupported, "%s is not served by this version", q.Op))
}

// features are the ops that are served, as HELLO names them.
var features = []string{"get", "mget", "set", "delete", "touch", "incr", "flush", "stats", "members", "ring", "ping"}

func errorReply(e *wire.Error) wire.Reply {
	return wire.Reply{Status: e.Status, Message: []byte(e.Message)}
}

func bodyReply(v any) wire.Reply {
	b, err := wire.MarshalBody(v)
	if err != nil {
		return errorReply(wire.Errorf(wire.Internal, "%v", err))
	}
	return wire.Reply{Body: b}
}

func checkKey(key []byte) *wire.Error {
	if !kv.ValidKey(key) {
		return wire.Errorf(wire.BadRequest, "the key has %d bytes: a key has 1 to %d", len(key), kv.MaxKeyLen)
	}
	return nil
}

// onKey runs a write of one key inside its namespace.
func (c *core) onKey(q *wire.Request, b *borrowed, now kv.Moment, f func(*namespace, *wire.Request, kv.Moment) wire.Reply) wire.Reply {
	if err := checkKey(q.Key); err != nil {
		return c.count(c.names.none, q.Op, errorReply(err))
	}
	ns, err := b.write(q.Namespace)
	if err != nil {
		return c.count(c.names.none, q.Op, errorReply(err))
	}
	return c.count(ns, q.Op, f(ns, q, now))
}

func (c *core) count(ns *namespace, op wire.Op, r wire.Reply) wire.Reply {
	ns.counts[op][outcomeOf(&r)].Add(1)
	return r
}

func outcomeOf(r *wire.Reply) outcome {
	switch r.Status {
	case wire.OK:
		return done
	case wire.Miss:
		return miss
	case wire.Stale:
		return stale
	case wire.Exists, wire.NotStored:
		return refused
	}
	return failed
}

// value looks a key up in the store and appends its value to dst: what GET and
// MGET do on a hit. A value beyond limit is not appended; r.Source is zero
// then and size tells its length.
func (c *core) value(dst []byte, b *borrowed, name, key []byte, limit int, now kv.Moment, r *wire.Reply) (out []byte, size int, ns *namespace) {
	if err := checkKey(key); err != nil {
		*r = errorReply(err)
		return dst, 0, c.names.none
	}
	if ns = b.read(name); ns == nil {
		*r = wire.Reply{Status: wire.Miss}
		if !kv.ValidNamespace(string(name)) {
			*r = errorReply(badNamespace(name))
		}
		return dst, 0, c.names.none
	}
	dst, info, ok := c.store.Get(dst, ns.key(key), limit, now.Boot)
	if !ok {
		*r = wire.Reply{Status: wire.Miss}
		return dst, 0, ns
	}
	*r = wire.Reply{Flags: info.Flags, Version: uint64(info.Version), TTLMS: remaining(info.Deadline, now)}
	if info.Size <= limit {
		r.Source = wire.SourceL2
	}
	return dst, info.Size, ns
}

// remaining is a TTL as it travels: whole milliseconds, at least one, and zero
// for no expiry.
func remaining(d kv.Deadline, now kv.Moment) int64 {
	if d == 0 {
		return 0
	}
	return max(1, int64(d.Remaining(now.Boot)/time.Millisecond))
}

// deadline is the end of a TTL that a request brings, or its namespace's own.
func (ns *namespace) deadline(ttlMS int64, now kv.Moment) kv.Deadline {
	if ttlMS == wire.TTLDefault {
		return kv.After(now.Boot, ns.ttl)
	}
	return kv.After(now.Boot, time.Duration(ttlMS)*time.Millisecond)
}

var modes = [...]segment.Mode{
	wire.ModeSet: segment.Set, wire.ModeAdd: segment.Add, wire.ModeReplace: segment.Replace, wire.ModeCAS: segment.CompareAndSwap,
}

func (c *core) set(ns *namespace, q *wire.Request, now kv.Moment) wire.Reply {
	v, res := c.store.Put(ns.key(q.Key), segment.Write{
		Value:    q.Value,
		Flags:    q.Flags,
		Deadline: ns.deadline(q.TTLMS, now),
		Mode:     modes[q.Mode],
		Compare:  kv.Version(q.Compare),
	}, now)
	return c.written(ns, len(q.Value), v, res)
}

// written turns what became of a write into its answer.
func (c *core) written(ns *namespace, size int, v kv.Version, res segment.Result) wire.Reply {
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
	case segment.TooLarge:
		if most := int(c.cfg.MaxValue); size > most {
			return errorReply(wire.Errorf(wire.TooLarge, "the value has %d bytes, max_value is %d: split it, or raise max_value", size, most))
		}
		return errorReply(wire.Errorf(wire.TooLarge, "the entry does not fit into namespace %s's quota of %s: raise the quota",
			ns.name, Size(c.store.NamespaceStats(ns.id).Quota)))
	}
	return errorReply(wire.Errorf(wire.Busy, "no memory could be freed, since all of it is being read: try again"))
}

func (c *core) touch(ns *namespace, q *wire.Request, now kv.Moment) wire.Reply {
	v, event, ok := c.store.Touch(ns.key(q.Key), ns.deadline(q.TTLMS, now), now)
	if !ok {
		return wire.Reply{Status: wire.Miss}
	}
	return wire.Reply{Version: uint64(v), Event: uint64(event)}
}

func (c *core) incr(ns *namespace, q *wire.Request, now kv.Moment) wire.Reply {
	sum, v, res := c.store.Incr(ns.key(q.Key), q.Delta, q.Create, q.Initial, ns.deadline(q.TTLMS, now), now)
	r := c.written(ns, 0, v, res)
	r.Number = sum
	return r
}

// deleteAll deletes the keys of a request, whose number is bounded.
func (c *core) deleteAll(q *wire.Request, b *borrowed, now kv.Moment) wire.Reply {
	if q.Has(wire.Soft) || q.HoldMS > 0 {
		return errorReply(wire.Errorf(wire.Unsupported, "soft and hold_ms are not served by this version"))
	}
	r := wire.Reply{Items: make([]wire.Reply, len(q.Keys))}
	for i, key := range q.Keys {
		r.Items[i] = c.deleteKey(q.Namespace, key, b, now)
	}
	return r
}

// deleteKey deletes one key. A name without a slot has none, and gets none.
func (c *core) deleteKey(name, key []byte, b *borrowed, now kv.Moment) wire.Reply {
	if err := checkKey(key); err != nil {
		return c.count(c.names.none, wire.OpDelete, errorReply(err))
	}
	ns := b.read(name)
	if ns == nil {
		if !kv.ValidNamespace(string(name)) {
			return c.count(c.names.none, wire.OpDelete, errorReply(badNamespace(name)))
		}
		return c.count(c.names.none, wire.OpDelete, wire.Reply{Status: wire.Miss, Version: uint64(c.hlc.Next(now.Wall))})
	}
	v, had := c.store.Delete(ns.key(key), now)
	r := wire.Reply{Version: uint64(v)}
	if !had {
		r.Status = wire.Miss
	}
	return c.count(ns, wire.OpDelete, r)
}

func (c *core) flush(q *wire.Request, b *borrowed, now kv.Moment) wire.Reply {
	floor := c.hlc.Next(now.Wall)
	if q.Has(wire.All) {
		c.store.FlushAll(floor)
		return wire.Reply{Version: uint64(floor)}
	}
	if !kv.ValidNamespace(string(q.Namespace)) {
		return errorReply(badNamespace(q.Namespace))
	}
	if ns := b.read(q.Namespace); ns != nil {
		c.store.Flush(ns.id, floor)
	}
	return wire.Reply{Version: uint64(floor)}
}

// ring says whose a key is: with one host, its own.
func (c *core) ring(q *wire.Request) wire.Reply {
	if err := checkKey(q.Key); err != nil {
		return errorReply(err)
	}
	if !kv.ValidNamespace(string(q.Namespace)) {
		return errorReply(badNamespace(q.Namespace))
	}
	hash := kv.HashKey(kv.NamespaceSeed(clusterSeed, string(q.Namespace)), q.Key)
	return bodyReply(wire.Place{Partition: int(hash.Partition()), Owner: c.cfg.Node, Holder: c.cfg.Node})
}
