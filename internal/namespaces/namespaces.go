package namespaces

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
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Table is the names in use and their slots. Lookups take no lock: the map is replaced as
// a whole.
type Table struct {
	store  *segment.Store
	seed   uint64 // of the cluster
	max    int
	others Settings // of names that are not configured

	Table atomic.Pointer[map[string]*Namespace]
	None  *Namespace // counts requests for names without a slot

	access *access.Rules
	Leases *flight.Leases
	Detach func(kv.NamespaceID) // stops reads from joining calls of a slot that are under way

	ledger        *invalidation.Ledger
	Loads         []*flight.Loads                // of the namespaces that have an origin
	KeyFilters    [kv.MaxNamespaces]*KeyFilter   // by slot; nil: no filter
	bounds        [kv.MaxNamespaces]atomic.Int64 // of staleness, by slot
	most          time.Duration                  // the cluster's bound of staleness
	Least         time.Duration                  // the smallest bound that is configured
	AnyReplicaLag bool                           // whether any namespace has a replica_lag

	Flushes *places.Member // flushes from other hosts, and of this process

	Mu      sync.Mutex         // guards changes of the table, and the fields below
	flushed map[string]flushed // by name, with or without a slot; "" is all namespaces
	Free    []kv.NamespaceID
	refused time.Time // when the last new name found no slot
}

// Namespace is a name with a slot.
type Namespace struct {
	Name       string
	ID         kv.NamespaceID
	Seed       uint64
	Line       uint16         // in the access rules
	TTL        time.Duration  // of writes that bring none; zero is no expiry
	ReplicaLag time.Duration  // length of a load barrier, at most; zero: none
	configured bool           // keeps its slot for good
	member     *places.Member // the connection that has brought the name; nil is this process

	Policy       loader.Policy
	jitter       float64       // the share by which TTLs of loaded values vary
	LeaseTime    time.Duration // that an app may take to load
	Origin       *Origin       // nil: the apps load
	Loads        *flight.Loads // from the origin
	Early        atomic.Int64  // ns before its end from which a hit may refresh a value
	Took         Recent        // the time of loads
	LoadTime     prometheus.Histogram
	WithoutOwner atomic.Int64  // loads without an owner
	KeyFilter    *KeyFilter    // nil: any key may exist
	WriteThrough *WriteThrough // nil: the origin is not written to
	Warming      *Warming      // nil: no keys are loaded at the start

	Counts [wire.OpCount][Outcomes]atomic.Int64

	// A namespace that is not configured loses its slot when it is empty and another name
	// needs one. A request has use read-locked while it touches the store, so that it
	// does not go on under a slot that another name has taken.
	use     sync.RWMutex
	retired bool
}

// flushed is a flush that is remembered.
type flushed struct {
	version kv.Version     // zero: claimed, but not noted yet
	by      *places.Member // has the place; nil for all namespaces
}

// Outcome is how a request ended, for the counters.
type Outcome uint8

const (
	HitL1 Outcome = iota
	HitL2
	HitPeer
	HitOrigin
	Done
	Miss
	Stale
	Refused // a condition was not met
	Failed
	Outcomes
)

// Default is the namespace of requests that name none.
const Default = "default"

// SeedSetting is the name of the cluster-wide setting that compares the digests of the
// hosts' seeds. The name is what a refusal tells.
const SeedSetting = "the digest of the seed in cluster_key_file (after turning a key on or off, restart all hosts)"

// New makes the table and the configured namespaces, and opens their origins. It asks no
// server. caughtUp is Engine.CaughtUp.
func New(cfg Config, a *access.Rules, store *segment.Store, ledger *invalidation.Ledger, caughtUp func(context.Context) error) (*Table, error) {
	n := &Table{seed: cfg.Seed, access: a, store: store, ledger: ledger, most: cfg.Bound, flushed: map[string]flushed{}, max: cfg.Max, others: cfg.Others, None: &Namespace{configured: true}}
	for id := cfg.Max - 1; id >= 0; id-- {
		n.Free = append(n.Free, kv.NamespaceID(id))
	}
	table := map[string]*Namespace{}
	n.Table.Store(&table)
	n.Least = n.most
	for name, ns := range cfg.Configured {
		n.Least = min(n.Least, cmp.Or(ns.Bound, n.most))
		n.AnyReplicaLag = n.AnyReplicaLag || ns.ReplicaLag > 0
		slot := n.take(name, ns, true)
		table[name] = slot
		var err error
		if slot.Origin, err = OpenOrigin(name, ns, cfg.MaxValue, cfg.Log); err != nil {
			n.Close()
			return nil, err
		}
		if slot.Origin == nil {
			continue
		}
		if slot.Loads, err = flight.NewLoads(flight.LoadsConfig{}); err != nil {
			return nil, err
		}
		slot.LoadTime = newLoadTime(name)
		n.Loads = append(n.Loads, slot.Loads)
		if slot.Origin.writer != nil {
			slot.WriteThrough = newThrough(slot.Origin.writer, &ns.Guard)
		}
		if ns.Warm != nil {
			slot.Warming = newWarming(ns.Warm, slot.Origin.warm)
		}
		if ns.Known != nil {
			if slot.KeyFilter, err = newKnown(&cfg, ns.Known.Filter, slot, caughtUp); err != nil {
				return nil, err
			}
			n.KeyFilters[slot.ID] = slot.KeyFilter
		}
	}
	return n, nil
}

// Writing reports whether write-throughs are under way, or not settled.
func (n *Table) Writing() bool {
	for _, ns := range n.All() {
		if ns.WriteThrough != nil && ns.WriteThrough.Busy() {
			return true
		}
	}
	return false
}

// EndWrites cancels the origin calls of write-throughs. Their settling goes on.
func (n *Table) EndWrites() {
	for _, ns := range n.All() {
		if ns.WriteThrough != nil {
			ns.WriteThrough.end()
		}
	}
}

// Unsettled counts the write-throughs whose end the owners of their keys have not
// acknowledged.
func (n *Table) Unsettled() (sum int64) {
	for _, ns := range n.All() {
		if ns.WriteThrough != nil {
			sum += ns.WriteThrough.Unsettled.Load()
		}
	}
	return sum
}

// Close ends the loads and write-throughs under way, and closes the origins.
func (n *Table) Close() {
	for _, l := range n.Loads {
		l.Close()
	}
	for _, ns := range n.All() {
		if ns.WriteThrough != nil {
			ns.WriteThrough.close()
		}
		if ns.Origin != nil {
			_ = ns.Origin.Close() // nothing is lost
		}
	}
}

// take gives a name a free slot.
func (n *Table) take(name string, cfg Settings, configured bool) *Namespace {
	id := n.Free[len(n.Free)-1]
	n.Free = n.Free[:len(n.Free)-1]
	ns := &Namespace{
		Name: name, ID: id, Seed: kv.NamespaceSeed(n.seed, name), Line: uint16(n.access.Line([]byte(name))), configured: configured,
		TTL: cfg.TTL, ReplicaLag: cfg.ReplicaLag, Policy: cfg.Policy, jitter: cfg.Jitter, LeaseTime: cfg.LeaseTime,
	}
	n.store.SetNamespace(id, ns.Seed, cfg.Quota, segment.Limits{
		Stale: cfg.StaleLimit, Grace: max(ns.Policy.StaleWhileRevalidate, ns.Policy.StaleIfError),
	})
	n.bounds[id].Store(int64(cmp.Or(cfg.Bound, n.most)))
	floor := max(n.flushed[name].version, n.flushed[""].version)
	n.store.Flush(id, floor)
	n.ledger.ResetNamespace(id) // flushes of another name under this slot
	n.ledger.RaiseFlush(id, floor)
	return ns
}

// MaxFlushed bounds the names whose flushes are remembered one by one.
const MaxFlushed = 1024

// Claim takes a place to remember the flush of a name, for a connection of this host. It
// comes before any host is told of the flush. Every host remembers all flushes, so a
// user's share on one host is a share of the places of the whole cluster.
func (n *Table) Claim(name string, m *places.Member) *wire.Error {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if _, known := n.flushed[name]; known || name == "" || m == nil {
		return nil
	}
	if err := m.Acquire(places.Flushes); err != nil {
		return err
	}
	n.flushed[name] = flushed{by: m}
	return nil
}

// Unclaim gives back the place of a flush that no host has noted.
func (n *Table) Unclaim(name string) {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if f, known := n.flushed[name]; known && f.version == 0 {
		n.unflush(name)
	}
}

// unflush forgets a flush. The caller holds the lock.
func (n *Table) unflush(name string) {
	if f := n.flushed[name]; f.by != nil {
		f.by.Release(places.Flushes)
	}
	delete(n.flushed, name)
}

// Crowded returns an error if there is no place to remember the flush of a name. To
// forget another flush would bring back what it has dropped. To flush all namespaces
// instead would drop what no client has asked to drop.
func (n *Table) Crowded(name string) *wire.Error {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if _, known := n.flushed[name]; known || name == "" || len(n.flushed) < MaxFlushed {
		return nil
	}
	return wire.Errorf(wire.BadRequest, "namespace %q would be one too many: %d names have been flushed one by one, and each is remembered; flush all", name, MaxFlushed)
}

// Flush remembers a flush of a name, or of all names. It returns the names with slots
// that the flush concerns, and whether the flush is new. A name without a slot may get
// one later, with entries from before.
func (n *Table) Flush(name string, floor kv.Version) (list []string, isNew bool) {
	n.Mu.Lock()
	defer n.Mu.Unlock()
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
		f.by = n.Flushes
		f.by.Force(places.Flushes, 1)
	}
	f.version = floor
	n.flushed[name] = f
	list = n.Named(name)
	for _, name := range list {
		n.ledger.RaiseFlush(n.All()[name].ID, floor)
	}
	return list, true
}

// Named lists the name if it has a slot; "" lists all names that have one.
func (n *Table) Named(name string) []string {
	if name == "" {
		return slices.Collect(maps.Keys(n.All()))
	}
	if n.All()[name] == nil {
		return nil
	}
	return []string{name}
}

// Floors returns the flushes that are remembered, by name.
func (n *Table) Floors() map[string]kv.Version {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	list := make(map[string]kv.Version, len(n.flushed))
	for name, f := range n.flushed {
		if f.version != 0 {
			list[name] = f.version
		}
	}
	return list
}

// All returns the names in use. The map must not be changed.
func (n *Table) All() map[string]*Namespace { return *n.Table.Load() }

// Bound returns the staleness bound of copies in a slot.
func (n *Table) Bound(id kv.NamespaceID) time.Duration {
	return time.Duration(n.bounds[id].Load())
}

// InSlot returns the namespace that has a slot, or nil if the slot is free.
func (n *Table) InSlot(id kv.NamespaceID) *Namespace {
	for _, ns := range n.All() {
		if ns.ID == id {
			return ns
		}
	}
	return nil
}

// Lookup returns the namespace of a name for a read, or nil if the name has no slot and
// thus no entries.
func (n *Table) Lookup(name []byte) *Namespace { return n.All()[string(name)] }

// Obtain returns the namespace of a name for a write, and gives it a slot if it has none.
func (n *Table) Obtain(name []byte, m *places.Member) (*Namespace, *wire.Error) {
	if ns := n.Lookup(name); ns != nil {
		return ns, nil
	}
	if !kv.ValidNamespace(string(name)) {
		return nil, BadName(name)
	}
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if ns := n.Lookup(name); ns != nil {
		return ns, nil
	}
	full := wire.Errorf(wire.BadRequest, "namespace %q would be one too many: %d are in use, which is max_namespaces; use fewer names, or raise it", name, n.max)
	if len(n.Free) == 0 && time.Since(n.refused) < SearchEvery {
		return nil, full
	}
	table := maps.Clone(n.All())
	if len(n.Free) == 0 && !n.retireOne(table, func(*Namespace) bool { return true }) {
		n.refused = time.Now()
		return nil, full
	}
	if err := n.share(table, m); err != nil {
		n.Table.Store(&table) // without the retired names
		return nil, err
	}
	ns := n.take(string(name), n.others, false)
	ns.member = m
	table[ns.Name] = ns
	n.Table.Store(&table)
	return ns, nil
}

// share takes a place for a name. If there is none, it frees the place of an empty name
// of the same owner.
func (n *Table) share(table map[string]*Namespace, m *places.Member) *wire.Error {
	err := m.Acquire(places.Names)
	if err == nil || time.Since(m.Searched) < SearchEvery {
		return err
	}
	if n.retireOne(table, func(ns *Namespace) bool { return ns.member == m }) ||
		n.retireOne(table, func(ns *Namespace) bool { return ns.member != nil && ns.member.Owner() == m.Owner() }) {
		if err = m.Acquire(places.Names); err == nil {
			return nil
		}
	}
	m.Searched = time.Now()
	return err
}

// SearchEvery is how often a full table is searched for a slot to free: a million new
// names must not keep a core busy.
const SearchEvery = 100 * time.Millisecond

// BadName returns the error for an invalid name.
func BadName(name []byte) *wire.Error {
	return wire.Errorf(wire.BadRequest, "namespace %q: a name is 1 to %d of a-z, 0-9, _, . and -", name, kv.MaxNamespaceLen)
}

// retireOne frees the slot of a namespace that is empty and not configured, and that may
// accepts. A flush finds work under way by its slot: so a slot with tokens out is not
// empty, and the calls of a freed slot are detached.
func (n *Table) retireOne(table map[string]*Namespace, may func(*Namespace) bool) bool {
	for name, ns := range table {
		if ns.configured || !may(ns) || !n.empty(ns.ID) || !ns.use.TryLock() {
			continue
		}
		empty := n.empty(ns.ID)
		if ns.retired = empty; empty {
			n.Detach(ns.ID)
		}
		ns.use.Unlock()
		if empty {
			delete(table, name)
			ns.member.Release(places.Names)
			n.Free = append(n.Free, ns.ID)
			return true
		}
	}
	return false
}

func (n *Table) empty(id kv.NamespaceID) bool {
	st := n.store.NamespaceStats(id)
	return st.Entries == 0 && st.Hidden == 0 && !n.Leases.InUse(id)
}

// Pins is the namespaces that one caller uses while it serves a batch. A pinned namespace
// does not lose its slot. Pins must not be used concurrently.
type Pins struct {
	Table  *Table
	Member *places.Member // the connection on whose behalf names get slots
	pinned []*Namespace   // read-locked, and not released
	Last   *Namespace     // looked up last
}

// Read pins and returns the namespace of a name, or nil if the name has no slot and thus
// no entries.
func (b *Pins) Read(name []byte) *Namespace {
	if b.Last != nil && b.Last.Name == string(name) {
		return b.Last
	}
	ns := b.Table.Lookup(name)
	if ns == nil || !b.enter(ns) {
		return nil // without a slot, or retired just now
	}
	return ns
}

// Write pins and returns the namespace of a name, and gives it a slot if it has none.
func (b *Pins) Write(name []byte) (*Namespace, *wire.Error) {
	if b.Last != nil && b.Last.Name == string(name) {
		return b.Last, nil
	}
	for {
		ns, err := b.Table.Obtain(name, b.Member)
		if err != nil {
			return nil, err
		}
		if b.enter(ns) {
			return ns, nil
		}
	}
}

// enter pins a namespace. It returns false if the namespace has lost its slot.
func (b *Pins) enter(ns *Namespace) bool {
	if !ns.configured && !slices.Contains(b.pinned, ns) {
		ns.use.RLock()
		if ns.retired {
			ns.use.RUnlock()
			return false
		}
		b.pinned = append(b.pinned, ns)
	}
	b.Last = ns
	return true
}

// Release unpins all namespaces. The time between two releases must be short.
func (b *Pins) Release() {
	for _, ns := range b.pinned {
		ns.use.RUnlock()
	}
	b.pinned = b.pinned[:0]
	if b.Last != nil && !b.Last.configured {
		b.Last = nil
	}
}

// Key returns the key with the given bytes in the namespace. It does not copy them.
func (ns *Namespace) Key(b []byte) kv.Key {
	return kv.Key{Hash: kv.HashKey(ns.Seed, b), Namespace: ns.ID, Bytes: b}
}
