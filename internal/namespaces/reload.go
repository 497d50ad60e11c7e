package namespaces

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/keyfilter"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/origin"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/loader"
)

// A reload gives names other settings while requests, loads and writes of them are under
// way. No lock keeps these apart. The promise of docs/CONSISTENCY.md holds all the same,
// because whatever it rests on belongs to the slot and outlives the settings:
//
//	loads          All Namespaces of a slot share one table of loads. So a change of a key
//	               detaches every load of it, whatever settings the load began with. No
//	               read joins a load that began before the change, and no such load is kept.
//	the origin     A load asks the origin that the name has when it asks. The loads that
//	               are under way at the reload are detached after the new settings are in
//	               the table: their readers get what the old origin has, and it is not
//	               kept. A later read loads from the new one.
//	write-through  All Namespaces of a slot share the turns of keys: a write to the old
//	               origin and one to the new one do not overlap, and no load is kept
//	               meanwhile.
//	replica_lag    Whether a load is kept is asked with the settings of that moment. If a
//	               replica_lag changes, all partitions get a barrier, since what was noted of
//	               changes before was noted for another one, or not at all (Engine.Reload).
//	key filter     A new filter is in the table before its first query begins. A change
//	               that was noted in the old one only was announced before, so its origin
//	               has it already, and the query finds it. A write-through notes its change
//	               again when the origin has done it, before it is acknowledged.
//	max_staleness  The bound is asked at every hit. A smaller one holds from the reload on.
//	               A larger one must be agreed on by all hosts: it waits for a restart.
//
// A name that is not configured any more keeps its slot for a while (removedKeeps),
// because requests do not pin configured names.

// Plan is other settings for a table. They are checked, their origins are open, and the
// names have slots. Nothing is in effect before Apply. Either Apply or Drop must be
// called.
type Plan struct {
	table   *Table
	cfg     Config
	origins map[string]*origin.Origin    // of the names whose origin must be opened anew
	filters map[string]*keyfilter.Filter // of these
	loads   map[string]*flight.Loads
	slots   int // that were promised to new names
}

// Prepare opens the origins of other settings, and with StrictOrigins asks them whether the
// settings fit. Origins whose settings and files are the same stay as they are.
func (n *Table) Prepare(ctx context.Context, cfg Config) (*Plan, error) {
	p, err := n.open(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.StrictOrigins {
		if err := askOrigins(ctx, p.origins); err != nil {
			p.Drop()
			return nil, err
		}
	}
	return p, nil
}

// open opens the origins of other settings.
func (n *Table) open(cfg Config) (p *Plan, err error) {
	p = &Plan{table: n, cfg: cfg, origins: map[string]*origin.Origin{}, filters: map[string]*keyfilter.Filter{},
		loads: map[string]*flight.Loads{}}
	defer func() {
		if err != nil {
			p.Drop()
		}
	}()
	for name, ns := range cfg.Configured {
		if _, err := loader.NewKeys(ns.KeyPattern, ns.MaxKey); err != nil {
			return p, fmt.Errorf("namespace %s: %w", name, err)
		}
		if old := n.All()[name]; old != nil && old.keepsOrigin(&ns) {
			continue
		}
		o, err := ns.openOrigin(name, origin.Host{
			Node: cfg.Node, Log: cfg.Log, MaxValue: cfg.MaxValue, Memory: n.Memory, Closing: &n.closing,
		})
		if err != nil {
			return p, err
		}
		if p.origins[name] = o; o == nil {
			continue
		}
		if old := n.All()[name]; old != nil && old.calls != nil {
			o.Guard.Counts = old.calls
		}
		p.loads[name] = flight.NewLoads()
		if ns.KeyFilter == nil {
			continue
		}
		if p.filters[name], err = keyfilter.New(*ns.KeyFilter, o.Existing,
			kv.NamespaceSeed(cfg.Seed, name), cfg.Clock, n.CaughtUp); err != nil {
			return p, fmt.Errorf("namespace %s: %w", name, err)
		}
	}
	return p, p.promise()
}

// OpenOrigin opens the origin of a namespace on nothing else, or returns nil if it has none.
func OpenOrigin(name string, s Settings, cfg *Config) (*origin.Origin, error) {
	return s.openOrigin(name, origin.Host{Node: cfg.Node, Log: cfg.Log, MaxValue: cfg.MaxValue})
}

func (set *Settings) openOrigin(name string, h origin.Host) (*origin.Origin, error) {
	if set.Warm == nil {
		return origin.Open(name, set.Settings, nil, h)
	}
	return origin.Open(name, set.Settings, &set.Warm.List, h)
}

// keepsOrigin reports whether other settings can do with the origin that is open.
func (ns *Namespace) keepsOrigin(s *Settings) bool {
	if ns.Origin == nil || s.Origin == nil {
		return ns.Origin == nil && s.Origin == nil
	}
	return reflect.DeepEqual(ns.settings.Settings, s.Settings) && ns.Origin.KeepsFiles(&s.Settings)
}

// promise ensures that there is a slot for every name of the plan.
func (p *Plan) promise() error {
	n := p.table
	n.mu.Lock()
	defer n.mu.Unlock()
	table := maps.Clone(n.All())
	var fresh []string
	for name := range p.cfg.Configured {
		if ns := table[name]; ns != nil {
			ns.promised = true
		} else {
			fresh = append(fresh, name)
		}
	}
	for len(n.free) < n.promised+len(fresh) {
		if !n.retireOne(table, func(*Namespace) bool { return true }) {
			slices.Sort(fresh)
			return fmt.Errorf("namespaces %q: no slot is free for them: all %d of max_namespaces are in use; "+
				"flush names that no app uses any more, configure fewer, or raise max_namespaces and restart",
				fresh, n.max)
		}
		now := maps.Clone(table)
		n.names.Store(&now)
	}
	p.slots = len(fresh)
	n.promised += p.slots
	return nil
}

// release takes back what promise has promised. n.mu is held.
func (p *Plan) release() {
	p.table.promised -= p.slots
	p.slots = 0
	for _, ns := range p.table.All() {
		ns.promised = false
	}
}

// Drop gives the plan up.
func (p *Plan) Drop() {
	p.table.mu.Lock()
	p.release()
	p.table.mu.Unlock()
	for _, o := range p.origins {
		if o != nil {
			o.Release()
		}
	}
	for _, k := range p.filters {
		if k != nil {
			k.Close()
		}
	}
}

// Reopened returns the names whose origin was opened anew although its settings are the
// same: a file that they name has changed.
func (p *Plan) Reopened() (names []string) {
	for name := range p.origins {
		was, is := p.table.All()[name], p.cfg.Configured[name]
		if was != nil && was.Origin != nil && reflect.DeepEqual(was.settings.Settings, is.Settings) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// OtherReplicaLag reports whether some name gets another replica_lag.
func (p *Plan) OtherReplicaLag() bool {
	for name, is := range p.cfg.Configured {
		was := p.table.All()[name]
		if is.ReplicaLag > 0 && (was == nil || is.ReplicaLag != was.ReplicaLag) {
			return true
		}
	}
	return false
}

// Hide returns a function that replaces the secrets of the old and new origins in a text.
func (p *Plan) Hide() func(text string) string {
	var all origin.Secrets
	for _, ns := range p.table.All() {
		if ns.Origin != nil {
			all = append(all, ns.Origin.Secrets()...)
		}
	}
	for _, o := range p.origins {
		if o != nil {
			all = append(all, o.Secrets()...)
		}
	}
	return all.HideText
}

// Apply puts the settings into effect. It returns what must be run from now on.
func (p *Plan) Apply() (begun []Runner) {
	n := p.table
	for name, cfg := range p.cfg.Configured {
		if old := n.All()[name]; old != nil && cfg.Quota > 0 {
			n.Store.Meter(old.ID) // the lock below must not be held so long
		}
	}
	n.mu.Lock()
	p.release()
	table := maps.Clone(n.All())
	now := n.clock.Read().Boot
	var moved []*Namespace // those whose origin is another one now, as they were
	for name, cfg := range p.cfg.Configured {
		old := table[name]
		ns := p.settle(name, old, cfg)
		if table[name] = ns; old != nil && ns.Origin != old.Origin {
			moved = append(moved, old)
		}
		if k := ns.KeyFilter; k != nil && k != n.filters[ns.ID].Load() {
			begun = append(begun, k)
		}
		if o := p.origins[name]; o != nil {
			begun = append(begun, o)
		}
	}
	for name, old := range table {
		if _, still := p.cfg.Configured[name]; !old.configured || still {
			continue
		}
		ns := n.settle(old.slot, n.others, false)
		ns.shared, ns.removed = old.shared, now
		if table[name] = ns; old.Origin != nil {
			moved = append(moved, old)
		}
	}
	p.publish(table)
	n.mu.Unlock()

	for name := range p.cfg.Configured {
		n.Store.Shrink(table[name].ID, now)
	}
	for _, old := range moved {
		if n.Detach(old.ID); old.Origin != nil {
			old.Origin.Release()
		}
	}
	return begun
}

// settle makes the Namespace of a configured name. old is the present one, or nil.
func (p *Plan) settle(name string, old *Namespace, cfg Settings) (ns *Namespace) {
	n := p.table
	other, opened := p.origins[name]
	if old != nil && old.configured && !opened && reflect.DeepEqual(old.settings, cfg) {
		return old
	}
	if old == nil {
		ns = n.settle(n.takeSlot(name), cfg, true)
	} else {
		ns = n.settle(old.slot, cfg, true)
		ns.shared = old.shared
		ns.warming, ns.Origin, ns.KeyFilter = old.warming, old.Origin, old.KeyFilter
		ns.removed = 0
		ns.by.Release(quota.Namespaces)
		ns.by = nil
	}
	if opened {
		ns.Origin, ns.KeyFilter = other, p.filters[name]
		if ns.KeyFilter != nil && old != nil {
			ns.KeyFilter.ContinueCounts(old.KeyFilter)
		}
	}
	if ns.Origin == nil {
		return ns
	}
	ns.calls = ns.Origin.Guard.Counts
	if ns.Loads == nil {
		ns.Loads = p.loads[name]
		ns.LoadTime = newLoadTime(name)
	}
	if cfg.WriteThrough {
		if ns.through == nil {
			ns.through = newWriteThrough()
		}
		if opened {
			ns.through.aim(ns.Origin)
		}
		ns.WriteThrough = ns.through
	}
	if old == nil && cfg.Warm != nil && !n.started {
		ns.warming = newWarming(n, ns, *cfg.Warm)
	}
	ns.auditChance = auditChance(cfg.Audit)
	ns.audit.aim(cfg.Guard.Rate)
	ns.refreshWindow.Store(0) // the next load computes it anew
	return ns
}

// publish puts a table and what follows from it into effect. n.mu is held.
func (p *Plan) publish(table map[string]*Namespace) {
	n := p.table
	loads, least, mostLag := slices.Clone(n.Loads()), n.most, time.Duration(0)
	var filters [kv.MaxNamespaces]*keyfilter.Filter
	var lags [kv.MaxNamespaces]time.Duration
	for _, ns := range table {
		ns.now.Store(ns)
		filters[ns.ID] = ns.KeyFilter
		if ns.Loads != nil && !slices.Contains(loads, ns.Loads) {
			loads = append(loads, ns.Loads)
		}
		lags[ns.ID] = ns.ReplicaLag
		least, mostLag = min(least, n.Bound(ns.ID)), max(mostLag, ns.ReplicaLag)
	}
	n.least.Store(int64(least))
	for id, lag := range lags {
		n.lags[id].Store(int64(lag))
	}
	n.mostLag.Store(int64(mostLag))
	n.loads.Store(&loads)
	for id, k := range filters {
		if old := n.filters[id].Swap(k); old != nil && old != k {
			old.Close()
		}
	}
	n.names.Store(&table)
	n.started = true
}

// AskOrigins asks each origin once. It returns an error if one refuses, or does not answer.
func (n *Table) AskOrigins(ctx context.Context) error {
	origins := map[string]*origin.Origin{}
	for name, ns := range n.All() {
		origins[name] = ns.Origin
	}
	return askOrigins(ctx, origins)
}

// askOrigins asks the origins of namespaces; nil is none.
func askOrigins(ctx context.Context, origins map[string]*origin.Origin) error {
	ctx, cancel := context.WithTimeout(ctx, origin.CheckTime)
	defer cancel()
	var group errgroup.Group
	for name, o := range origins {
		if o == nil {
			continue
		}
		group.Go(func() error {
			if err := o.AskOnce(ctx); err != nil {
				return fmt.Errorf("namespace %s: %w", name, err)
			}
			return nil
		})
	}
	return group.Wait()
}
