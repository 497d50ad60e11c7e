package namespaces

import (
	"cmp"
	"context"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/keyfilter"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Table is the names in use and their slots. Lookups take no lock: the map is replaced as
// a whole.
type Table struct {
	Parts
	seed   uint64 // of the cluster
	max    int
	clock  kv.Clock
	others Settings // of names that are not configured
	cfg    Config   // of the start

	names atomic.Pointer[map[string]*Namespace]
	None  *Namespace // counts requests for names without a slot

	loads   atomic.Pointer[[]*flight.Loads]                    // of the namespaces that have, or had, an origin
	filters [kv.MaxNamespaces]atomic.Pointer[keyfilter.Filter] // by slot; nil: no filter
	bounds  [kv.MaxNamespaces]atomic.Int64                     // of staleness, by slot
	most    time.Duration                                      // the cluster's bound of staleness
	agreed  map[string]time.Duration                           // bounds at the start, on which all hosts agree
	least   atomic.Int64                                       // the smallest bound
	lags    [kv.MaxNamespaces]atomic.Int64                     // replica_lag, by slot
	mostLag atomic.Int64                                       // the longest of them

	Audits  *Audits
	closing sync.WaitGroup // origins that a reload has taken out, or has not taken in

	mu       sync.Mutex // guards changes of the table, and the fields below
	flushes  flushes
	late     map[string]int // of its feeds, by name: how many are late
	free     []kv.NamespaceID
	promised int       // free slots that a Plan will take
	started  bool      // the settings of the start are in effect
	refused  time.Time // when the last new name found no slot
}

// Default is the namespace of requests that name none.
const Default = "default"

// SeedSetting is the name of the cluster-wide setting that compares the digests of the
// hosts' seeds. The name is what a refusal tells.
const SeedSetting = "the digest of the seed in cluster_key_file (after turning a key on or off, restart all hosts)"

// Parts is what a table stands on.
type Parts struct {
	Store    *segment.Store
	Ledger   *invalidation.Ledger
	Leases   *flight.Leases
	Shared   *shm.Writer                 // nil: apps share no memory
	Memory   loader.Memory               // of origins' answers; nil: no bound
	Flushes  *quota.Account              // of flushes from other hosts, and of this process
	Detach   func(kv.NamespaceID)        // stops reads from joining calls of a slot that are under way
	CaughtUp func(context.Context) error // returns once this host has heard of all earlier changes

	Owns         func(partition uint16) bool
	OwnsAssigned func(context.Context) bool // returns once this host owns what it is assigned; false: ctx has ended
	// Read answers a read of a key like another host's.
	Read func(ctx context.Context, ns *Namespace, key []byte, deadline time.Duration) wire.Reply
	// Cached returns what a read through this host would find for a key, or ErrNotCached.
	Cached func(key kv.Key, room *loader.Reservation) (value []byte, absent bool, v kv.Version, err error)
}

// Loads returns the tables of loads of all namespaces that have, or had, an origin. The
// slice must not be changed.
func (n *Table) Loads() []*flight.Loads { return *n.loads.Load() }

// KeyFilter returns the key filter of a slot, or nil.
func (n *Table) KeyFilter(id kv.NamespaceID) *keyfilter.Filter { return n.filters[id].Load() }

// KeyFilters returns all key filters.
func (n *Table) KeyFilters() iter.Seq[*keyfilter.Filter] {
	return func(yield func(*keyfilter.Filter) bool) {
		for id := range n.filters {
			if k := n.filters[id].Load(); k != nil && !yield(k) {
				return
			}
		}
	}
}

// Runners returns all origins and key filters.
func (n *Table) Runners() (list []Runner) {
	for _, ns := range n.All() {
		if ns.Origin != nil {
			list = append(list, ns.Origin)
		}
	}
	for k := range n.KeyFilters() {
		list = append(list, k)
	}
	return list
}

// Configured reports whether the configuration names a namespace.
func (n *Table) Configured(name []byte) bool {
	ns := (*n.names.Load())[string(name)]
	return ns != nil && ns.configured
}

// Least returns the smallest bound of staleness that is configured.
func (n *Table) Least() time.Duration { return time.Duration(n.least.Load()) }

// ReplicaLag returns the replica_lag of the namespace in a slot.
func (n *Table) ReplicaLag(id kv.NamespaceID) time.Duration { return time.Duration(n.lags[id].Load()) }

// MostReplicaLag returns the longest replica_lag; zero: no namespace has one.
func (n *Table) MostReplicaLag() time.Duration { return time.Duration(n.mostLag.Load()) }

// Hash returns the hash of a key, whether its namespace has a slot or not.
func (n *Table) Hash(namespace, key []byte) kv.Hash {
	return kv.HashKey(kv.NamespaceSeed(n.seed, string(namespace)), key)
}

// Close ends the loads and write-throughs under way, and closes the origins.
func (n *Table) Close() {
	for _, l := range n.Loads() {
		l.Close()
	}
	for _, ns := range n.All() {
		if ns.through != nil {
			ns.through.close()
		}
		if ns.Origin != nil {
			ns.Origin.Release()
		}
	}
	n.closing.Wait()
}

// takeSlot gives a name a free slot, or the one that has its entries.
func (n *Table) takeSlot(name string) *slot {
	id, kept := n.cfg.Kept[name]
	if !kept {
		others := slices.Collect(maps.Values(n.cfg.Kept))
		for i := len(n.free) - 1; ; i-- {
			if id = n.free[i]; !slices.Contains(others, id) {
				break
			}
		}
	}
	n.free = slices.DeleteFunc(n.free, func(free kv.NamespaceID) bool { return free == id })
	at := &slot{Name: name, ID: id, Seed: kv.NamespaceSeed(n.seed, name)}
	if !kept {
		n.Store.SetNamespace(id, at.Seed, 0, segment.Limits{})
	}
	floor := n.flushes.floor(name)
	n.Store.Flush(id, floor)
	n.Ledger.ResetNamespace(id) // flushes of another name under this slot
	n.Ledger.RaiseFlush(id, floor)
	if n.Ledger.Close(id, false); n.late[name] > 0 {
		n.holdBack(id)
	}
	return at
}

// settle gives a slot settings. The caller puts the Namespace into the table.
func (n *Table) settle(at *slot, cfg Settings, configured bool) *Namespace {
	keys, _ := loader.NewKeys(cfg.KeyPattern, cfg.MaxKey) // Plan.open has checked them
	ns := &Namespace{
		slot: at, configured: configured, settings: cfg, TTL: cfg.TTL, ReplicaLag: cfg.ReplicaLag, Keys: keys,
		Policy: cfg.Policy, jitter: cfg.Jitter, LeaseTime: cfg.LeaseTime,
	}
	n.Store.SetLimits(at.ID, cfg.Quota, segment.Limits{
		Stale: cfg.StaleLimit, Grace: max(ns.Policy.StaleWhileRevalidate, ns.Policy.StaleIfError),
	})
	n.bounds[at.ID].Store(int64(n.boundOf(at.Name, cfg.Bound)))
	n.show(at, cfg.NotShared)
	return ns
}

// show tells the shared memory what a slot has.
func (n *Table) show(at *slot, hidden bool) {
	switch {
	case n.Shared == nil:
	case hidden:
		n.Shared.SetNamespace(at.ID, shm.Space{})
	default:
		n.Shared.SetNamespace(at.ID, shm.Space{Name: at.Name, Seed: at.Seed, Bound: n.Bound(at.ID)})
	}
}

// boundOf returns the staleness bound of a name's copies. All hosts must agree on a bound
// before it may grow, which a restart ensures. A smaller one holds at once.
func (n *Table) boundOf(name string, configured time.Duration) time.Duration {
	return min(cmp.Or(n.agreed[name], n.most), cmp.Or(configured, n.most))
}

// All returns the names in use. The map must not be changed.
func (n *Table) All() map[string]*Namespace { return *n.names.Load() }

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
func (n *Table) Obtain(name []byte, by *quota.Account) (*Namespace, *wire.Error) {
	if ns := n.Lookup(name); ns != nil {
		return ns, nil
	}
	if !kv.ValidNamespace(string(name)) {
		return nil, BadName(name)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if ns := n.Lookup(name); ns != nil {
		return ns, nil
	}
	full := wire.Errorf(wire.BadRequest, "namespace %q would be one too many: %d are in use, "+
		"which is max_namespaces; use fewer names, or raise it", name, n.max)
	if len(n.free) <= n.promised && time.Since(n.refused) < SearchEvery {
		return nil, full
	}
	table := maps.Clone(n.All())
	if len(n.free) <= n.promised && !n.retireOne(table, func(*Namespace) bool { return true }) {
		n.refused = time.Now()
		return nil, full
	}
	if err := n.share(table, by); err != nil {
		n.names.Store(&table) // without the retired names
		return nil, err
	}
	ns := n.settle(n.takeSlot(string(name)), n.others, false)
	ns.by = by
	ns.now.Store(ns)
	table[ns.Name] = ns
	n.names.Store(&table)
	return ns, nil
}

// share takes a place for a name. If there is none, it frees the place of an empty name
// of the same tenant.
func (n *Table) share(table map[string]*Namespace, by *quota.Account) *wire.Error {
	err := by.Acquire(quota.Namespaces)
	if err == nil || time.Since(by.SlotSearchFailedAt) < SearchEvery {
		return err
	}
	own := func(ns *Namespace) bool { return ns.by == by }
	tenants := func(ns *Namespace) bool { return ns.by != nil && ns.by.Tenant() == by.Tenant() }
	if n.retireOne(table, own) || n.retireOne(table, tenants) {
		if err = by.Acquire(quota.Namespaces); err == nil {
			return nil
		}
	}
	by.SlotSearchFailedAt = time.Now()
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
		if ns.configured || ns.promised || !may(ns) || !n.unused(ns) || !ns.use.TryLock() {
			continue
		}
		unused := n.unused(ns)
		if ns.retired = unused; unused {
			n.Detach(ns.ID)
			n.Store.CountAnew(ns.ID) // the next name of the slot begins at zero
		}
		ns.use.Unlock()
		if unused {
			n.forgetLoads(ns)
			delete(table, name)
			ns.by.Release(quota.Namespaces)
			n.show(ns.slot, true)
			n.free = append(n.free, ns.ID)
			return true
		}
	}
	return false
}

// removedKeeps is how long a name keeps its slot after it was configured. A batch that
// began before has not pinned the name. It has long ended by then; if the process stood
// still within it, a write may be counted to the wrong name. No read can find that entry,
// since each name has a hash of its own.
const removedKeeps = time.Minute

// unused reports whether a slot has no entries, and no work under way that may bring some.
func (n *Table) unused(ns *Namespace) bool {
	if ns.removed != 0 && n.clock.Read().Boot < ns.removed+removedKeeps {
		return false
	}
	if ns.Loads != nil && ns.Loads.Stats().UnderWay > 0 || ns.through != nil && ns.through.Busy() {
		return false
	}
	st := n.Store.NamespaceStats(ns.ID)
	return st.Entries == 0 && st.Hidden == 0 && !n.Leases.InUse(ns.ID)
}

// forgetLoads closes what a retired namespace has loaded and written with.
func (n *Table) forgetLoads(ns *Namespace) {
	if ns.through != nil {
		ns.through.close()
	}
	if ns.Loads == nil {
		return
	}
	left := slices.DeleteFunc(slices.Clone(n.Loads()), func(l *flight.Loads) bool { return l == ns.Loads })
	n.loads.Store(&left)
	ns.Loads.Close() // none is under way
}

// Runner is an origin, or a key filter. Its Run ends with its context, and once a reload has put
// another in its place.
type Runner interface{ Run(context.Context) }

// holdBack closes a slot before it holds back what is stored: what is admitted until then is stored by
// then.
func (n *Table) holdBack(id kv.NamespaceID) {
	if failpoint.Out(failpoint.HoldBack) {
		return
	}
	n.Ledger.Close(id, true)
	n.Store.HoldBack(id, n.clock.Read())
}

// Writing reports whether write-throughs are under way, or not settled.
func (n *Table) Writing() bool {
	for _, ns := range n.All() {
		if ns.through != nil && ns.through.Busy() {
			return true
		}
	}
	return false
}

// EndWrites cancels the origin calls of write-throughs. Their settling goes on.
func (n *Table) EndWrites() {
	for _, ns := range n.All() {
		if ns.through != nil {
			ns.through.end()
		}
	}
}

// Unsettled counts the unsettled writes of all namespaces.
func (n *Table) Unsettled() (sum int64) {
	for _, ns := range n.All() {
		if ns.through != nil {
			sum += ns.through.Unsettled()
		}
	}
	return sum
}
