package client

import (
	"cmp"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// near keeps values that the sidecar has returned, and follows the sidecar to learn which
// of them are outdated.
//
// It serves a value only if all of this holds, checked after the value was found:
//
//   - the value was requested after the followed stream began;
//   - a WATCH request that was sent within the bound has been answered, and all events up
//     to the head that the answer named have been applied;
//   - no applied event has outdated the value;
//   - the value's TTL is not over.
type near struct {
	cfg    NearCache
	clock  kv.Clock
	hlc    *kv.HLC // above all versions that this client has heard of
	values *keptValues
	ledger *invalidation.Ledger
	floors [kv.Partitions]atomic.Int64 // boot clock; older requests' values are outdated
	stream atomic.Pointer[stream]      // the one that is followed; nil: none

	mu     sync.Mutex
	spaces map[string]*space
	seed   uint64 // the cluster's hash seed

	hits                            *hits
	misses, refused, events, resets atomic.Int64
}

// space is a namespace.
type space struct {
	id    kv.NamespaceID
	name  string
	seed  atomic.Uint64 // valid once there is a stream
	tally *tally
}

func newNear(cfg NearCache, clock kv.Clock, hits *hits) (*near, error) {
	cfg.Bound = cmp.Or(cfg.Bound, time.Second)
	if cfg.Bytes < minNearBytes || cfg.Bound < minNearBound || cfg.Bound > maxNearBound {
		return nil, fmt.Errorf("%w: a near cache of %d bytes with a bound of %v: give at least %d bytes, and %v to %v",
			cachesidecar.ErrBadRequest, cfg.Bytes, cfg.Bound, minNearBytes, minNearBound, maxNearBound)
	}
	// As many slots as the sidecar's ledger: keys that share a slot here share it there.
	ledger := invalidation.NewLedger(invalidation.DefaultSlots)
	return &near{
		cfg: cfg, clock: clock, hlc: kv.NewHLC(0),
		values: newKeptValues(cfg.Bytes), ledger: ledger, spaces: map[string]*space{}, hits: hits,
	}, nil
}

// space returns the space of a namespace, or nil if there are too many. Without a space
// no value of the namespace is kept.
func (n *near) space(name string) *space {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.spaces[name]
	if s == nil && len(n.spaces) < kv.MaxNamespaces {
		s = &space{id: kv.NamespaceID(len(n.spaces)), name: name, tally: n.hits.tallyOf(name)}
		s.seed.Store(kv.NamespaceSeed(n.seed, name))
		n.spaces[name] = s
	}
	return s
}

// apply applies an answer to a WATCH request that was sent at sent, on the boot clock.
func (n *near) apply(sent time.Duration, w *wire.Watched, welcome *wire.Welcome) {
	s := n.stream.Load()
	if w.Reset || s == nil {
		n.resets.Add(1)
		if s = n.beginStream(w, welcome); s == nil {
			return
		}
		s.lease.Store(int64(s.log.Polled(sent, w.Head)))
		n.values.clear()
		n.stream.Store(s)
		return
	}
	if err := invalidation.WatchCodec.Each(&w.Events, n.event); err != nil { // an event of a later version
		n.drop()
	}
	n.events.Add(int64(w.Events.Len()))
	s.log.Polled(sent, w.Head)
	// The lease is extended only after the events that it covers are applied.
	if lease, ok := s.log.Advance(w.After, w.Seq); ok {
		s.behind.Store(int64(w.BehindMS) * int64(time.Millisecond))
		s.lease.Store(int64(lease))
	}
}

// beginStream returns a new stream, or nil if this client cannot compute the hash that the
// sidecar's events use.
func (n *near) beginStream(w *wire.Watched, welcome *wire.Welcome) *stream {
	h := welcome.Hash
	if h.Name != wire.HashName || h.Partitions != kv.Partitions {
		n.endStream()
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seed = h.Seed
	for _, s := range n.spaces {
		s.seed.Store(kv.NamespaceSeed(h.Seed, s.name))
	}
	s := &stream{through: kv.Process{Node: kv.NodeID(welcome.Node), Epoch: kv.Epoch(welcome.Epoch)}}
	s.behind.Store(int64(w.BehindMS) * int64(time.Millisecond))
	s.log.Reset(w.Seq)
	return s
}

// endStream drops all values and the stream.
func (n *near) endStream() {
	n.stream.Store(nil)
	n.values.clear()
}

func (n *near) event(e invalidation.Event) {
	n.hlc.Observe(e.Version)
	switch e.Kind {
	case invalidation.Changed:
		n.ledger.Note(e.Hash, e.Version)
		n.values.outdate(e.Hash, e.Version)
	case invalidation.FloorRaised:
		now := int64(n.clock.Read().Boot)
		for p := range e.Detail.Partitions.All() {
			n.floors[p].Store(now)
		}
	case invalidation.Flushed:
		n.mu.Lock()
		defer n.mu.Unlock()
		for name, s := range n.spaces {
			if e.Detail.Namespace == "" || e.Detail.Namespace == name {
				n.ledger.RaiseFlush(s.id, e.Version)
			}
		}
	}
}

// drop outdates all values that were requested until now.
func (n *near) drop() {
	now := int64(n.clock.Read().Boot)
	for p := range n.floors {
		n.floors[p].Store(now)
	}
}

// borrowed returns the bytes of a string without a copy. They must not be changed or
// kept.
func borrowed(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func (sp *space) key(key string) kv.Key {
	b := borrowed(key)
	return kv.Key{Hash: kv.HashKey(sp.seed.Load(), b), Namespace: sp.id, Bytes: b}
}

// nearView is the near cache of one namespace. Without a near cache, or without a space
// for the namespace, it keeps nothing.
type nearView struct {
	cache *near  // nil: the client has no near cache
	space *space // nil: no value of the namespace is kept
}

// in returns the view of a namespace.
func (v nearView) in(namespace string) nearView {
	if v.cache == nil {
		return v
	}
	return nearView{v.cache, v.cache.space(namespace)}
}
