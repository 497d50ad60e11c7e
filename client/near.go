package client

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// NearCache configures a cache inside this process, in front of the sidecar's.
// The zero value is none.
type NearCache struct {
	// Bytes bounds what the values take, in bytes, overhead included; what the
	// cache needs beside them is 2.3 MiB. Zero is no near cache; at least 1 MiB.
	// Values above 64 KiB, or a hundredth of it, are not kept.
	Bytes int64
	// Bound is how much further behind than a read through the sidecar one from
	// here may be: at most the sidecar's smallest max_staleness and Bound
	// together. Default 1 s; at least 100 ms, at most a minute.
	Bound time.Duration
}

// Bounds of NearCache.
const (
	minNearBytes = 1 << 20
	maxNearValue = 64 << 10
	minNearBound = 100 * time.Millisecond
	maxNearBound = time.Minute
)

// near keeps values that the sidecar has answered with, and follows it to know
// when they are outdated.
//
// A value is served while all of this holds, looked at after it was found: it
// was asked for since the stream that is followed began; a WATCH request that
// was sent within the bound has been answered, and all up to the head that the
// answer named has been applied; nothing that was applied has outdated the value;
// its TTL is not over.
type near struct {
	cfg    NearCache
	clock  kv.Clock
	hlc    *kv.HLC // above all that was heard of
	values *keptValues
	ledger *invalidation.Ledger
	floors [kv.Partitions]atomic.Int64 // on the boot clock: what was asked for before is outdated
	stream atomic.Pointer[stream]      // that is followed; nil while none is

	mu     sync.Mutex
	spaces map[string]*space
	seed   uint64 // of the cluster

	hits, misses, refused, events, resets atomic.Int64
}

// stream is one that the sidecar tells without a gap. What was kept under another
// one is not served.
type stream struct {
	through kv.Process   // the sidecar
	lease   atomic.Int64 // boot clock up to which all is applied; zero is not yet
	behind  atomic.Int64 // what the sidecar itself may be behind
	log     invalidation.Follower
}

// space is a namespace.
type space struct {
	id   kv.NamespaceID
	name string
	seed atomic.Uint64 // good once there is a stream
}

func newNear(cfg NearCache, clock kv.Clock) (*near, error) {
	cfg.Bound = cmp.Or(cfg.Bound, time.Second)
	if cfg.Bytes < minNearBytes || cfg.Bound < minNearBound || cfg.Bound > maxNearBound {
		return nil, fmt.Errorf("%w: a near cache of %d bytes with a bound of %v: give at least %d bytes, and %v to %v", ErrBadRequest, cfg.Bytes, cfg.Bound, minNearBytes, minNearBound, maxNearBound)
	}
	// As many slots as the sidecar's: what shares one here shares it there.
	ledger, err := invalidation.NewLedger(invalidation.DefaultSlots)
	if err != nil {
		return nil, err
	}
	return &near{cfg: cfg, clock: clock, hlc: kv.NewHLC(0), values: newKeptValues(cfg.Bytes), ledger: ledger, spaces: map[string]*space{}}, nil
}

// space returns a namespace's, or nil if there are too many: nothing of it is
// kept then.
func (n *near) space(name string) *space {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.spaces[name]
	if s == nil && len(n.spaces) < kv.MaxNamespaces {
		s = &space{id: kv.NamespaceID(len(n.spaces)), name: name}
		s.seed.Store(kv.NamespaceSeed(n.seed, name))
		n.spaces[name] = s
	}
	return s
}

// run follows the sidecar until ctx ends.
func (n *near) run(ctx context.Context, f *feed) {
	defer f.slot.Close()
	defer n.end()
	for tries := 0; ctx.Err() == nil; tries++ {
		sent := n.clock.Read().Boot
		w, err := f.next(ctx)
		if err != nil {
			n.end()
			rest(ctx, tries)
			continue
		}
		tries = 0
		n.apply(sent, &w, f.welcome)
	}
}

// apply takes an answer to a request that was sent at a moment.
func (n *near) apply(sent time.Duration, w *wire.Watched, welcome *wire.Welcome) {
	s := n.stream.Load()
	if w.Reset || s == nil {
		n.resets.Add(1)
		if s = n.begin(w, welcome); s == nil {
			return
		}
		s.lease.Store(int64(s.log.Polled(sent, w.Head)))
		n.values.clear()
		n.stream.Store(s)
		return
	}
	if err := w.Events.Each(n.event); err != nil { // of a later version
		n.drop()
	}
	n.events.Add(int64(w.Events.Len()))
	s.log.Polled(sent, w.Head)
	if lease, ok := s.log.Advance(w.After, w.Seq); ok { // after all that it is a lease on
		s.behind.Store(int64(w.BehindMS) * int64(time.Millisecond))
		s.lease.Store(int64(lease))
	}
}

// begin makes a stream, if the hash of the sidecar's events can be computed.
func (n *near) begin(w *wire.Watched, welcome *wire.Welcome) *stream {
	h := welcome.Hash
	if h.Name != wire.HashName || h.Partitions != kv.Partitions {
		n.end()
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

// end drops everything: nothing is followed any more.
func (n *near) end() {
	n.stream.Store(nil)
	n.values.clear()
}

func (n *near) event(kind uint8, hash, version uint64, d *wire.EventDetail) {
	n.hlc.Observe(kv.Version(version))
	switch kind {
	case wire.EventChanged:
		n.ledger.Note(kv.Hash(hash), kv.Version(version))
		n.values.outdate(kv.Hash(hash), kv.Version(version))
	case wire.EventRaised:
		now := int64(n.clock.Read().Boot)
		for p := range kv.PartitionsOf(d.Partitions).All() {
			n.floors[p].Store(now)
		}
	case wire.EventFlushed:
		n.mu.Lock()
		defer n.mu.Unlock()
		for name, s := range n.spaces {
			if d.Namespace == "" || d.Namespace == name {
				n.ledger.RaiseFlush(s.id, kv.Version(version))
			}
		}
	}
}

// drop outdates everything that was asked for until now.
func (n *near) drop() {
	now := int64(n.clock.Read().Boot)
	for p := range n.floors {
		n.floors[p].Store(now)
	}
}

// borrowed are a string's bytes, which nobody may change or keep.
func borrowed(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func (s *space) key(key string) kv.Key {
	b := borrowed(key)
	return kv.Key{Hash: kv.HashKey(s.seed.Load(), b), Namespace: s.id, Bytes: b}
}

// get returns a value that may be served.
func (n *near) get(in *space, key string) (Item, bool) {
	s := n.stream.Load()
	if s == nil || key == "" {
		return Item{}, false
	}
	k := in.key(key)
	got := n.values.get(k)
	if got == nil {
		n.misses.Add(1)
		return Item{}, false
	}
	lease := time.Duration(s.lease.Load()) // before what it is a lease on
	now := n.clock.Read().Boot
	if got.stream != s || lease == 0 || now-lease >= n.cfg.Bound || int64(got.since) <= n.floors[k.Hash.Partition()].Load() ||
		got.deadline.Passed(now) || !n.ledger.Admit(k.Namespace, k.Hash, got.version, got.asOf) {
		n.refused.Add(1)
		return Item{}, false
	}
	n.hits.Add(1)
	value := make([]byte, len(got.value))
	copy(value, got.value)
	return Item{
		Value: value, Flags: got.flags, Version: uint64(got.version), TTL: got.deadline.Remaining(now),
		Source: "near", Age: now - lease + time.Duration(s.behind.Load()),
	}, true
}

// asked is when a read was sent, and while which stream was followed.
type asked struct {
	at     time.Duration
	stream *stream // nil: its answer is not kept
}

// ask notes that a read is about to be sent, and returns its options.
func (n *near) ask(o GetOptions) (a asked, bits wire.Options) {
	bits = o.bits()
	if n == nil {
		return a, bits
	}
	if a.stream = n.stream.Load(); a.stream != nil {
		a.at = n.clock.Read().Boot
		bits |= wire.Attest
	}
	return a, bits
}

// keep keeps the answer to a read, if it will be known when its value is
// outdated: it came from the process that is followed, and somebody vouches for
// it.
func (n *near) keep(in *space, key string, a asked, from *answer, r *wire.Reply) {
	if a.stream == nil || a.stream != n.stream.Load() || r.Status != wire.OK || !r.Attested {
		return
	}
	if w := from.from.welcomeOf(from.conn); w == nil || kv.Epoch(w.Epoch) != a.stream.through.Epoch {
		return
	}
	n.hlc.Observe(kv.Version(r.AsOf))
	h := in.key(key).Hash
	if int64(len(r.Value)) <= min(maxNearValue, n.cfg.Bytes/100) && n.ledger.Admit(in.id, h, kv.Version(r.Version), kv.Version(r.AsOf)) {
		n.values.put(&kept{
			hash: h, space: in.id, key: strings.Clone(key), value: bytes.Clone(r.Value), flags: r.Flags, version: kv.Version(r.Version),
			deadline: deadlineOf(a.at, r.TTLMS), asOf: kv.Version(r.AsOf), since: a.at, stream: a.stream,
		})
	}
}

// deadlineOf is the end of what was left of a TTL, in milliseconds, when it was
// asked for. It rounds down.
func deadlineOf(asked time.Duration, ttlMS int64) kv.Deadline {
	if ttlMS == 0 {
		return 0
	}
	return kv.After(asked, time.Duration(ttlMS)*time.Millisecond) - 1
}

// wrote notes that a key has changed at a version; zero is one that is not
// known.
func (n *near) wrote(in *space, key string, version uint64) {
	if n.stream.Load() == nil {
		return // nothing is kept, and what is asked for from now on is newer
	}
	if version == 0 {
		version = uint64(n.hlc.Next(n.clock.Read().Wall))
	}
	n.hlc.Observe(kv.Version(version))
	h := in.key(key).Hash
	n.ledger.Note(h, kv.Version(version))
	n.values.outdate(h, kv.Version(version))
}

// NearStats is a near cache's account.
type NearStats struct {
	Following      bool // the sidecar: else nothing is served
	Hits, Misses   int64
	Refused        int64 // found, and outdated, or not known to be good any more
	Entries, Bytes int64
	Limit          int64 // bytes
	Events, Resets int64 // of the sidecar's stream
}

// NearStats returns the near cache's account; zeros without one.
func (c *Client) NearStats() NearStats {
	n := c.near
	if n == nil {
		return NearStats{}
	}
	entries, bytes := n.values.size()
	return NearStats{
		Following: n.stream.Load() != nil, Hits: n.hits.Load(), Misses: n.misses.Load(), Refused: n.refused.Load(),
		Entries: entries, Bytes: bytes, Limit: n.cfg.Bytes, Events: n.events.Load(), Resets: n.resets.Load(),
	}
}

// changes says whether a write that failed may have been executed all the same, or
// has met another value, or none, than what may be kept.
func changes(err error) bool {
	for _, e := range []error{ErrUnavailable, ErrBusy, ErrBadRequest, ErrTooLarge, ErrUnauthorized, ErrUnsupported, ErrClosed} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

// nearly returns the near cache, if the client's namespace has a place in it.
func (c *Client) nearly() *near {
	if c.space == nil {
		return nil
	}
	return c.near
}

// wrote notes what has become of a write, before the caller hears of it.
func (c *Client) wrote(key string, version uint64, err error) {
	switch {
	case c.space == nil:
	case err == nil, errors.Is(err, ErrExists): // then it is the version that is there
		c.near.wrote(c.space, key, version)
	case changes(err):
		c.near.wrote(c.space, key, 0)
	}
}
