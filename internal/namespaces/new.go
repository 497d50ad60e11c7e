package namespaces

import (
	"maps"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/quota"
)

// New makes the table and the configured namespaces, and opens their origins. It asks no
// server.
func New(cfg Config, p Parts) (*Table, error) {
	n := &Table{
		seed: cfg.Seed, most: cfg.Bound, max: cfg.Max, clock: cfg.Clock, others: cfg.Others, cfg: cfg, Parts: p,
		flushes: flushes{}, None: &Namespace{slot: &slot{}, configured: true},
		agreed: map[string]time.Duration{}, late: map[string]int{},
	}
	n.Audits = &Audits{make(chan choice, AuditCalls), &n.Parts, cfg.Clock, cfg.Log, n.Bound}
	for id := cfg.Max - 1; id >= 0; id-- {
		n.free = append(n.free, kv.NamespaceID(id))
	}
	for name, ns := range cfg.Configured {
		if ns.Bound != 0 {
			n.agreed[name] = ns.Bound
		}
	}
	n.names.Store(&map[string]*Namespace{})
	n.loads.Store(&[]*flight.Loads{})
	plan, err := n.open(cfg)
	if err != nil {
		n.closing.Wait()
		return nil, err
	}
	plan.Apply()
	n.settleKept()
	return n, nil
}

// settleKept gives the names whose entries were taken over, and that are not configured, their slots.
func (n *Table) settleKept() {
	n.mu.Lock()
	defer n.mu.Unlock()
	table := maps.Clone(n.All())
	for name := range n.cfg.Kept {
		if table[name] == nil {
			ns := n.settle(n.takeSlot(name), n.others, false)
			ns.now.Store(ns)
			if n.Flushes.Acquire(quota.Namespaces) == nil {
				ns.by = n.Flushes
			}
			table[name] = ns
		}
	}
	n.cfg.Kept = nil
	n.names.Store(&table)
}
