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
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Table are the names in use and their slots. Reads of the table take no
// lock; it is replaced as a whole.
type Table struct {
	store  *segment.Store
	seed   uint64 // of the cluster
	max    int
	others Settings // settings of names that are not configured

	Table atomic.Pointer[map[string]*Namespace]
	None  *Namespace // counts what is asked of names that have no slot

	access *access.Rules
	Leases *loader.Leases
	Detach func(kv.NamespaceID) // ends that calls under way are joined

	ledger     *invalidation.Ledger
	Loads      []*loader.Loads                // of the namespaces that have an origin
	KeyFilters [kv.MaxNamespaces]*KeyFilter   // filters, by slot; nil where there is none
	bounds     [kv.MaxNamespaces]atomic.Int64 // of staleness, by slot
	most       time.Duration                  // the cluster's
	Least      time.Duration                  // the smallest that is configured
	AnyReplicaLag    bool                           // whether any has a hold

	Flushes *places.Member // of other hosts, and of this process

	Mu      sync.Mutex         // guards changes of the table, and what follows
	flushed map[string]flushed // by name, with a slot or without; "" is all
	Free    []kv.NamespaceID
	refused time.Time // when the last new name found no slot
}

// Namespace is one name's slot.
type Namespace struct {
	Name       string
	ID         kv.NamespaceID
	Seed       uint64
	Line       uint16         // of the rules on who may use it
	TTL        time.Duration  // of writes that bring none; zero is no expiry
	ReplicaLag       time.Duration  // how long after a deletion loads are not kept, at most
	configured bool           // has its slot for good
	member     *places.Member // who has brought the name; nil is this process

	Policy       loader.Policy
	jitter       float64       // the share by which TTLs of what is loaded vary
	LeaseTime    time.Duration // that an app may take to load
	Origin       *Origin       // nil: the apps load
	Loads        *loader.Loads // from the origin
	Early        atomic.Int64  // ns before its end from which a hit may refresh a value
	Took         Recent        // time of loads
	LoadTime     prometheus.Histogram
	WithoutOwner        atomic.Int64  // loads without a holder
	KeyFilter    *KeyFilter    // nil: any key may exist
	WriteThrough *WriteThrough // nil: writes are the cache's own
	Warming      *Warming      // nil: nothing is loaded at the start

	Counts [wire.OpCount][Outcomes]atomic.Int64

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

// Outcome is how a request ended, for the counts.
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

// SeedSetting is the cluster-wide setting that compares hosts' seeds, by their
// digests. Its name is what a refusal tells.
const SeedSetting = "the digest of the seed in cluster_key_file (after turning a key on or off, restart all hosts)"

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
		if slot.Loads, err = loader.NewLoads(loader.LoadsConfig{}); err != nil {
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

// Writing says whether writes through are under way, or not settled.
func (n *Table) Writing() bool {
	for _, ns := range n.All() {
		if ns.WriteThrough != nil && ns.WriteThrough.Busy() {
			return true
		}
	}
	return false
}

// EndWrites ends the origins' part of the writes through. What must be said of them
// then still is.
func (n *Table) EndWrites() {
	for _, ns := range n.All() {
		if ns.WriteThrough != nil {
			ns.WriteThrough.end()
		}
	}
}

// Unsettled counts the writes through whose end the owners of their keys have not
// acknowledged.
func (n *Table) Unsettled() (sum int64) {
	for _, ns := range n.All() {
		if ns.WriteThrough != nil {
			sum += ns.WriteThrough.Unsettled.Load()
		}
	}
	return sum
}

// Close ends the loads under way, and the origins' connections.
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
	n.ledger.ResetNamespace(id) // what another name had flushed under this slot
	n.ledger.RaiseFlush(id, floor)
	return ns
}

// MaxFlushed bounds the names whose flushes are remembered one by one.
const MaxFlushed = 1024

// Claim takes a place to remember the flush of a name for a connection of this host,
// before any host is told of it. Each host knows of all that are remembered, so the
// share that a user of one host may have is one of the cluster's places.
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

// Unclaim gives a place back whose flush no host has noted.
func (n *Table) Unclaim(name string) {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if f, known := n.flushed[name]; known && f.version == 0 {
		n.unflush(name)
	}
}

// unflush forgets a flush. The lock is held.
func (n *Table) unflush(name string) {
	if f := n.flushed[name]; f.by != nil {
		f.by.Release(places.Flushes)
	}
	delete(n.flushed, name)
}

// Crowded says why the flush of a name cannot be remembered, if so. To forget
// another's would bring back what it has dropped, and to flush all in its place
// would drop what nobody has asked for.
func (n *Table) Crowded(name string) *wire.Error {
	n.Mu.Lock()
	defer n.Mu.Unlock()
	if _, known := n.flushed[name]; known || name == "" || len(n.flushed) < MaxFlushed {
		return nil
	}
	return wire.Errorf(wire.BadRequest, "namespace %q would be one too many: %d names have been flushed one by one, and each is remembered; flush all", name, MaxFlushed)
}

// Flush remembers a flush of a name, or of all, and returns the names with
// slots that it concerns, and whether it is new. One without may get a slot later,
// with entries from before.
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

// Named lists the name if it has a slot, and with "" all that have one.
func (n *Table) Named(name string) []string {
	if name == "" {
		return slices.Collect(maps.Keys(n.All()))
	}
	if n.All()[name] == nil {
		return nil
	}
	return []string{name}
}

// Floors returns the flushes that are remembered.
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

// All returns the names in use.
func (n *Table) All() map[string]*Namespace { return *n.Table.Load() }

// Bound is how far behind a copy in a slot may be.
func (n *Table) Bound(id kv.NamespaceID) time.Duration {
	return time.Duration(n.bounds[id].Load())
}

// InSlot returns the namespace that has a slot, nil where it is free.
func (n *Table) InSlot(id kv.NamespaceID) *Namespace {
	for _, ns := range n.All() {
		if ns.ID == id {
			return ns
		}
	}
	return nil
}

// Lookup returns a name's slot for a read: nil where it has none, so that
// there is nothing to be found.
func (n *Table) Lookup(name []byte) *Namespace { return n.All()[string(name)] }

// Obtain returns a name's slot for a write, and gives it one if need be.
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
		n.Table.Store(&table) // without those that were retired
		return nil, err
	}
	ns := n.take(string(name), n.others, false)
	ns.member = m
	table[ns.Name] = ns
	n.Table.Store(&table)
	return ns, nil
}

// share takes a place for a name, if need be that of one of the owner's that is
// empty.
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

// SearchEvery is how often a full table is searched for a slot to free: a
// million new names must not keep a core busy.
const SearchEvery = 100 * time.Millisecond

func BadName(name []byte) *wire.Error {
	return wire.Errorf(wire.BadRequest, "namespace %q: a name is 1 to %d of a-z, 0-9, _, . and -", name, kv.MaxNamespaceLen)
}

// retireOne frees the slot of a namespace that is empty and not configured, and that
// may be one. A flush
// finds by the slot what is under way: tokens hold it, and calls are detached.
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

// Pins is the namespaces that one caller uses, for as long as it serves a
// batch: those that could lose their slot cannot meanwhile.
type Pins struct {
	Table  *Table
	Member *places.Member // who asks
	pinned   []*Namespace   // entered, and not left
	Last   *Namespace     // looked up last
}

// Read returns a name's slot, or nil where it has none, so that there is
// nothing to be found.
func (b *Pins) Read(name []byte) *Namespace {
	if b.Last != nil && b.Last.Name == string(name) {
		return b.Last
	}
	ns := b.Table.Lookup(name)
	if ns == nil || !b.enter(ns) {
		return nil // without a slot, or empty until just now
	}
	return ns
}

// Write returns a name's slot, and gives it one if need be.
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

// enter holds a namespace. False says that it has lost its slot.
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

// Release gives all namespaces back. Between two it must not be long.
func (b *Pins) Release() {
	for _, ns := range b.pinned {
		ns.use.RUnlock()
	}
	b.pinned = b.pinned[:0]
	if b.Last != nil && !b.Last.configured {
		b.Last = nil
	}
}

func (ns *Namespace) Key(b []byte) kv.Key {
	return kv.Key{Hash: kv.HashKey(ns.Seed, b), Namespace: ns.ID, Bytes: b}
}
