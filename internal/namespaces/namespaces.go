package namespaces

import (
	"cmp"
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/segment"
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

	Mu      sync.Mutex // guards changes of the table, and the fields below
	flushes flushes
	Free    []kv.NamespaceID
	refused time.Time // when the last new name found no slot
}

// Default is the namespace of requests that name none.
const Default = "default"

// SeedSetting is the name of the cluster-wide setting that compares the digests of the
// hosts' seeds. The name is what a refusal tells.
const SeedSetting = "the digest of the seed in cluster_key_file (after turning a key on or off, restart all hosts)"

// Parts is what a table stands on.
type Parts struct {
	Access   *access.Rules
	Store    *segment.Store
	Ledger   *invalidation.Ledger
	Leases   *flight.Leases
	Flushes  *places.Member              // of flushes from other hosts, and of this process
	Detach   func(kv.NamespaceID)        // stops reads from joining calls of a slot that are under way
	CaughtUp func(context.Context) error // returns once this host has heard of all earlier changes
}

// New makes the table and the configured namespaces, and opens their origins. It asks no
// server.
func New(cfg Config, p Parts) (*Table, error) {
	n := &Table{
		seed: cfg.Seed, most: cfg.Bound, max: cfg.Max, others: cfg.Others, access: p.Access, store: p.Store,
		ledger: p.Ledger, Leases: p.Leases, Detach: p.Detach, Flushes: p.Flushes,
		flushes: flushes{map[string]flushed{}}, None: &Namespace{configured: true},
	}
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
		if err := n.open(slot, &cfg, &ns, p.CaughtUp); err != nil {
			n.Close()
			return nil, err
		}
	}
	return n, nil
}

// open opens the origin of a configured namespace, and makes what needs it.
func (n *Table) open(slot *Namespace, cfg *Config, ns *Settings, caughtUp func(context.Context) error) (err error) {
	if slot.Origin, err = OpenOrigin(slot.Name, *ns, cfg.MaxValue, cfg.Log); err != nil || slot.Origin == nil {
		return err
	}
	if slot.Loads, err = flight.NewLoads(flight.LoadsConfig{}); err != nil {
		return err
	}
	slot.LoadTime = newLoadTime(slot.Name)
	n.Loads = append(n.Loads, slot.Loads)
	if slot.Origin.writer != nil {
		slot.WriteThrough = newWriteThrough(slot.Origin.writer, &ns.Guard)
	}
	if ns.Warm != nil {
		slot.Warming = newWarming(ns.Warm, slot.Origin.warm)
	}
	if ns.KeyFilter != nil {
		slot.KeyFilter, err = newKeyFilter(cfg, ns.KeyFilter.Filter, slot, caughtUp)
		n.KeyFilters[slot.ID] = slot.KeyFilter
	}
	return err
}

// Hash returns the hash of a key, whether its namespace has a slot or not.
func (n *Table) Hash(namespace, key []byte) kv.Hash {
	return kv.HashKey(kv.NamespaceSeed(n.seed, string(namespace)), key)
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
		Name: name, ID: id, Seed: kv.NamespaceSeed(n.seed, name), Line: uint16(n.access.Line([]byte(name))),
		configured: configured, TTL: cfg.TTL, ReplicaLag: cfg.ReplicaLag,
		Policy: cfg.Policy, jitter: cfg.Jitter, LeaseTime: cfg.LeaseTime,
	}
	n.store.SetNamespace(id, ns.Seed, cfg.Quota, segment.Limits{
		Stale: cfg.StaleLimit, Grace: max(ns.Policy.StaleWhileRevalidate, ns.Policy.StaleIfError),
	})
	n.bounds[id].Store(int64(cmp.Or(cfg.Bound, n.most)))
	floor := n.flushes.floor(name)
	n.store.Flush(id, floor)
	n.ledger.ResetNamespace(id) // flushes of another name under this slot
	n.ledger.RaiseFlush(id, floor)
	return ns
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
	full := wire.Errorf(wire.BadRequest, "namespace %q would be one too many: %d are in use, "+
		"which is max_namespaces; use fewer names, or raise it", name, n.max)
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
	own := func(ns *Namespace) bool { return ns.member == m }
	owners := func(ns *Namespace) bool { return ns.member != nil && ns.member.Owner() == m.Owner() }
	if n.retireOne(table, own) || n.retireOne(table, owners) {
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
	return wire.Errorf(wire.BadRequest, "namespace %q: a name is 1 to %d of a-z, 0-9, _, . and -",
		name, kv.MaxNamespaceLen)
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
