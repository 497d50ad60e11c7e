package sidecar

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// namespaces are the names in use and their slots. Reads of the table take no
// lock; it is replaced as a whole.
type namespaces struct {
	store  *segment.Store
	seed   uint64 // of the cluster
	max    int
	others spec // settings of names that are not configured

	table atomic.Pointer[map[string]*namespace]
	none  *namespace // counts what is asked of names that have no slot

	access *access.Rules
	leases *loader.Leases
	detach func(kv.NamespaceID) // ends that calls under way are joined

	ledger *invalidation.Ledger
	loads  []*loader.Loads                // of the namespaces that have an origin
	known  [kv.MaxNamespaces]*known       // filters, by slot; nil where there is none
	bounds [kv.MaxNamespaces]atomic.Int64 // of staleness, by slot
	most   time.Duration                  // the cluster's
	least  time.Duration                  // the smallest that is configured
	holds  bool                           // whether any has a hold

	flushes *places.Member // of other hosts, and of this process

	mu      sync.Mutex         // guards changes of the table, and what follows
	flushed map[string]flushed // by name, with a slot or without; "" is all
	free    []kv.NamespaceID
	refused time.Time // when the last new name found no slot
}

// namespace is one name's slot.
type namespace struct {
	name       string
	id         kv.NamespaceID
	seed       uint64
	line       uint16         // of the rules on who may use it
	ttl        time.Duration  // of writes that bring none; zero is no expiry
	hold       time.Duration  // how long after a deletion loads are not kept, at most
	configured bool           // has its slot for good
	member     *places.Member // who has brought the name; nil is this process

	policy    loader.Policy
	jitter    float64       // the share by which TTLs of what is loaded vary
	leaseTime time.Duration // that an app may take to load
	origin    *origin       // nil: the apps load
	loads     *loader.Loads // from the origin
	early     atomic.Int64  // ns before its end from which a hit may refresh a value
	took      recent        // time of loads
	loadTime  prometheus.Histogram
	aside     atomic.Int64 // loads without a holder
	known     *known       // nil: any key may exist
	through   *through     // nil: writes are the cache's own
	warming   *warming     // nil: nothing is loaded at the start

	counts [wire.OpCount][outcomes]atomic.Int64

	// A namespace that is not configured loses its slot when it is empty and
	// another name needs one. Requests hold use while they touch the store, so
	// that none goes on under a slot that has become somebody else's.
	use     sync.RWMutex
	retired bool
}

// flushed is a flush that is remembered.
type flushed struct {
	version kv.Version     // zero: it has not been noted
	by      *places.Member // has the place; nil for all namespaces
}

// outcome is how a request ended, for the counts.
type outcome uint8

const (
	hitL1 outcome = iota
	hitL2
	hitPeer
	hitOrigin
	done
	miss
	stale
	refused // a condition was not met
	failed
	outcomes
)

// seedSetting is the cluster-wide setting that compares hosts' seeds, by their
// digests. Its name is what a refusal tells.
const seedSetting = "the digest of the seed in cluster_key_file (after turning a key on or off, restart all hosts)"

func newNamespaces(cfg tableConfig, a *access.Rules, store *segment.Store, ledger *invalidation.Ledger, caughtUp func(context.Context) error) (*namespaces, error) {
	n := &namespaces{seed: cfg.Seed, access: a, store: store, ledger: ledger, most: cfg.Bound, flushed: map[string]flushed{}, max: cfg.Max, others: cfg.Others, none: &namespace{configured: true}}
	for id := cfg.Max - 1; id >= 0; id-- {
		n.free = append(n.free, kv.NamespaceID(id))
	}
	table := map[string]*namespace{}
	n.table.Store(&table)
	n.least = n.most
	for name, ns := range cfg.Configured {
		n.least = min(n.least, cmp.Or(ns.Bound, n.most))
		n.holds = n.holds || ns.Hold > 0
		slot := n.take(name, ns, true)
		table[name] = slot
		var err error
		if slot.origin, err = openOrigin(name, ns, cfg.MaxValue, cfg.Log); err != nil {
			n.close()
			return nil, err
		}
		if slot.origin == nil {
			continue
		}
		if slot.loads, err = loader.NewLoads(loader.LoadsConfig{}); err != nil {
			return nil, err
		}
		slot.loadTime = newLoadTime(name)
		n.loads = append(n.loads, slot.loads)
		if slot.origin.writer != nil {
			slot.through = newThrough(slot.origin.writer, &ns.Guard)
		}
		if ns.Warm != nil {
			slot.warming = newWarming(ns.Warm, slot.origin.warm)
		}
		if ns.Known != nil {
			if slot.known, err = newKnown(&cfg, ns.Known.Filter, slot, caughtUp); err != nil {
				return nil, err
			}
			n.known[slot.id] = slot.known
		}
	}
	return n, nil
}

// writing says whether writes through are under way, or not settled.
func (n *namespaces) writing() bool {
	for _, ns := range n.all() {
		if ns.through != nil && ns.through.busy() {
			return true
		}
	}
	return false
}

// endWrites ends the origins' part of the writes through. What must be said of them
// then still is.
func (n *namespaces) endWrites() {
	for _, ns := range n.all() {
		if ns.through != nil {
			ns.through.end()
		}
	}
}

// unsettled counts the writes through whose end the owners of their keys have not
// acknowledged.
func (n *namespaces) unsettled() (sum int64) {
	for _, ns := range n.all() {
		if ns.through != nil {
			sum += ns.through.unsettled.Load()
		}
	}
	return sum
}

// close ends the loads under way, and the origins' connections.
func (n *namespaces) close() {
	for _, l := range n.loads {
		l.Close()
	}
	for _, ns := range n.all() {
		if ns.through != nil {
			ns.through.close()
		}
		if ns.origin != nil {
			_ = ns.origin.close() // nothing is lost
		}
	}
}

// take gives a name a free slot.
func (n *namespaces) take(name string, cfg spec, configured bool) *namespace {
	id := n.free[len(n.free)-1]
	n.free = n.free[:len(n.free)-1]
	ns := &namespace{
		name: name, id: id, seed: kv.NamespaceSeed(n.seed, name), line: uint16(n.access.Line([]byte(name))), configured: configured,
		ttl: cfg.TTL, hold: cfg.Hold, policy: cfg.Policy, jitter: cfg.Jitter, leaseTime: cfg.LeaseTime,
	}
	n.store.SetNamespace(id, ns.seed, cfg.Quota, segment.Limits{
		Stale: cfg.StaleLimit, Grace: max(ns.policy.StaleWhileRevalidate, ns.policy.StaleIfError),
	})
	n.bounds[id].Store(int64(cmp.Or(cfg.Bound, n.most)))
	floor := max(n.flushed[name].version, n.flushed[""].version)
	n.store.Flush(id, floor)
	n.ledger.ResetNamespace(id) // what another name had flushed under this slot
	n.ledger.RaiseFlush(id, floor)
	return ns
}

// maxFlushed bounds the names whose flushes are remembered one by one.
const maxFlushed = 1024

// claim takes a place to remember the flush of a name for a connection of this host,
// before any host is told of it. Each host knows of all that are remembered, so the
// share that a user of one host may have is one of the cluster's places.
func (n *namespaces) claim(name string, m *places.Member) *wire.Error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.flushed[name]; known || name == "" || m == nil {
		return nil
	}
	if err := m.Acquire(places.Flushes); err != nil {
		return err
	}
	n.flushed[name] = flushed{by: m}
	return nil
}

// unclaim gives a place back whose flush no host has noted.
func (n *namespaces) unclaim(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f, known := n.flushed[name]; known && f.version == 0 {
		n.unflush(name)
	}
}

// unflush forgets a flush. The lock is held.
func (n *namespaces) unflush(name string) {
	if f := n.flushed[name]; f.by != nil {
		f.by.Release(places.Flushes)
	}
	delete(n.flushed, name)
}

// crowded says why the flush of a name cannot be remembered, if so. To forget
// another's would bring back what it has dropped, and to flush all in its place
// would drop what nobody has asked for.
func (n *namespaces) crowded(name string) *wire.Error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, known := n.flushed[name]; known || name == "" || len(n.flushed) < maxFlushed {
		return nil
	}
	return wire.Errorf(wire.BadRequest, "namespace %q would be one too many: %d names have been flushed one by one, and each is remembered; flush all", name, maxFlushed)
}

// flush remembers a flush of a name, or of all, and returns the names with
// slots that it concerns, and whether it is new. One without may get a slot later,
// with entries from before.
func (n *namespaces) flush(name string, floor kv.Version) (list []string, isNew bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f, known := n.flushed[name]
	if max(f.version, n.flushed[""].version) >= floor {
		return nil, false
	}
	if name == "" {
		for other, f := range n.flushed {
			if f.version <= floor {
				n.unflush(other)
			}
		}
	} else if !known {
		f.by = n.flushes
		f.by.Force(places.Flushes, 1)
	}
	f.version = floor
	n.flushed[name] = f
	list = n.named(name)
	for _, name := range list {
		n.ledger.RaiseFlush(n.all()[name].id, floor)
	}
	return list, true
}

// named lists the name if it has a slot, and with "" all that have one.
func (n *namespaces) named(name string) []string {
	if name == "" {
		return slices.Collect(maps.Keys(n.all()))
	}
	if n.all()[name] == nil {
		return nil
	}
	return []string{name}
}

// floors returns the flushes that are remembered.
func (n *namespaces) floors() map[string]kv.Version {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make(map[string]kv.Version, len(n.flushed))
	for name, f := range n.flushed {
		if f.version != 0 {
			list[name] = f.version
		}
	}
	return list
}

// all returns the names in use.
func (n *namespaces) all() map[string]*namespace { return *n.table.Load() }

// bound is how far behind a copy in a slot may be.
func (n *namespaces) bound(id kv.NamespaceID) time.Duration {
	return time.Duration(n.bounds[id].Load())
}

// inSlot returns the namespace that has a slot, nil where it is free.
func (n *namespaces) inSlot(id kv.NamespaceID) *namespace {
	for _, ns := range n.all() {
		if ns.id == id {
			return ns
		}
	}
	return nil
}

// lookup returns a name's slot for a read: nil where it has none, so that
// there is nothing to be found.
func (n *namespaces) lookup(name []byte) *namespace { return n.all()[string(name)] }

// obtain returns a name's slot for a write, and gives it one if need be.
func (n *namespaces) obtain(name []byte, m *places.Member) (*namespace, *wire.Error) {
	if ns := n.lookup(name); ns != nil {
		return ns, nil
	}
	if !kv.ValidNamespace(string(name)) {
		return nil, badNamespace(name)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if ns := n.lookup(name); ns != nil {
		return ns, nil
	}
	full := wire.Errorf(wire.BadRequest, "namespace %q would be one too many: %d are in use, which is max_namespaces; use fewer names, or raise it", name, n.max)
	if len(n.free) == 0 && time.Since(n.refused) < searchEvery {
		return nil, full
	}
	table := maps.Clone(n.all())
	if len(n.free) == 0 && !n.retireOne(table, func(*namespace) bool { return true }) {
		n.refused = time.Now()
		return nil, full
	}
	if err := n.share(table, m); err != nil {
		n.table.Store(&table) // without those that were retired
		return nil, err
	}
	ns := n.take(string(name), n.others, false)
	ns.member = m
	table[ns.name] = ns
	n.table.Store(&table)
	return ns, nil
}

// share takes a place for a name, if need be that of one of the owner's that is
// empty.
func (n *namespaces) share(table map[string]*namespace, m *places.Member) *wire.Error {
	err := m.Acquire(places.Names)
	if err == nil || time.Since(m.Searched) < searchEvery {
		return err
	}
	if n.retireOne(table, func(ns *namespace) bool { return ns.member == m }) ||
		n.retireOne(table, func(ns *namespace) bool { return ns.member != nil && ns.member.Owner() == m.Owner() }) {
		if err = m.Acquire(places.Names); err == nil {
			return nil
		}
	}
	m.Searched = time.Now()
	return err
}

// searchEvery is how often a full table is searched for a slot to free: a
// million new names must not keep a core busy.
const searchEvery = 100 * time.Millisecond

func badNamespace(name []byte) *wire.Error {
	return wire.Errorf(wire.BadRequest, "namespace %q: a name is 1 to %d of a-z, 0-9, _, . and -", name, kv.MaxNamespaceLen)
}

// retireOne frees the slot of a namespace that is empty and not configured, and that
// may be one. A flush
// finds by the slot what is under way: tokens hold it, and calls are detached.
func (n *namespaces) retireOne(table map[string]*namespace, may func(*namespace) bool) bool {
	for name, ns := range table {
		if ns.configured || !may(ns) || !n.empty(ns.id) || !ns.use.TryLock() {
			continue
		}
		empty := n.empty(ns.id)
		if ns.retired = empty; empty {
			n.detach(ns.id)
		}
		ns.use.Unlock()
		if empty {
			delete(table, name)
			ns.member.Release(places.Names)
			n.free = append(n.free, ns.id)
			return true
		}
	}
	return false
}

func (n *namespaces) empty(id kv.NamespaceID) bool {
	st := n.store.NamespaceStats(id)
	return st.Entries == 0 && st.Hidden == 0 && !n.leases.InUse(id)
}

// borrowed is the namespaces that one caller uses, for as long as it serves a
// batch: those that could lose their slot cannot meanwhile.
type borrowed struct {
	names  *namespaces
	member *places.Member // who asks
	held   []*namespace   // entered, and not left
	last   *namespace     // looked up last
}

// read returns a name's slot, or nil where it has none, so that there is
// nothing to be found.
func (b *borrowed) read(name []byte) *namespace {
	if b.last != nil && b.last.name == string(name) {
		return b.last
	}
	ns := b.names.lookup(name)
	if ns == nil || !b.enter(ns) {
		return nil // without a slot, or empty until just now
	}
	return ns
}

// write returns a name's slot, and gives it one if need be.
func (b *borrowed) write(name []byte) (*namespace, *wire.Error) {
	if b.last != nil && b.last.name == string(name) {
		return b.last, nil
	}
	for {
		ns, err := b.names.obtain(name, b.member)
		if err != nil {
			return nil, err
		}
		if b.enter(ns) {
			return ns, nil
		}
	}
}

// enter holds a namespace. False says that it has lost its slot.
func (b *borrowed) enter(ns *namespace) bool {
	if !ns.configured && !slices.Contains(b.held, ns) {
		ns.use.RLock()
		if ns.retired {
			ns.use.RUnlock()
			return false
		}
		b.held = append(b.held, ns)
	}
	b.last = ns
	return true
}

// release gives all namespaces back. Between two it must not be long.
func (b *borrowed) release() {
	for _, ns := range b.held {
		ns.use.RUnlock()
	}
	b.held = b.held[:0]
	if b.last != nil && !b.last.configured {
		b.last = nil
	}
}

func (ns *namespace) key(b []byte) kv.Key {
	return kv.Key{Hash: kv.HashKey(ns.seed, b), Namespace: ns.id, Bytes: b}
}
