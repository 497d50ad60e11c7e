package namespaces

import (
	"maps"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// MaxFlushed bounds the names whose flushes are remembered one by one.
const MaxFlushed = 1024

// flushes remembers the flushes of names, with or without a slot. Table.mu guards it.
type flushes map[string]flushed // by name; "" is all namespaces

// Flush is a flush that is remembered.
type Flush struct {
	Version kv.Version    // zero: claimed, but not noted yet
	At      time.Duration // boot clock: a host had noted it by then
}

// flushed is a flush and its place.
type flushed struct {
	Flush
	by *quota.Account // has the place; nil for all namespaces
}

// floor returns the version of the latest flush that concerns a name.
func (f flushes) floor(name string) kv.Version {
	return max(f[name].Version, f[""].Version)
}

// remember notes a flush. other is the account that takes the place if no connection has
// claimed one. It returns false if the flush is not new.
func (f flushes) remember(name string, floor kv.Version, at time.Duration, other *quota.Account) bool {
	if f.floor(name) >= floor {
		return false
	}
	flush, known := f[name]
	if name == "" {
		for one, past := range f {
			if past.Version <= floor {
				f.forget(one)
			}
		}
	} else if !known {
		flush.by = other
		other.AcquireAnyway(quota.Flushes, 1)
	}
	flush.Flush = Flush{Version: floor, At: at}
	f[name] = flush
	return true
}

// forget drops a flush, and gives its place back.
func (f flushes) forget(name string) {
	if by := f[name].by; by != nil {
		by.Release(quota.Flushes)
	}
	delete(f, name)
}

// has reports whether a flush of a name needs no further place.
func (f flushes) has(name string) bool {
	_, known := f[name]
	return known || name == ""
}

// ReserveFlush takes a place to remember the flush of a name, for a connection of this host. It
// comes before any host is told of the flush. Every host remembers all flushes, so a
// user's share on one host is a share of the places of the whole cluster.
func (n *Table) ReserveFlush(name string, by *quota.Account) *wire.Error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.flushes.has(name) || by == nil {
		return nil
	}
	if err := by.Acquire(quota.Flushes); err != nil {
		return err
	}
	n.flushes[name] = flushed{by: by}
	return nil
}

// ReleaseFlush gives back the place of a flush that no host has noted.
func (n *Table) ReleaseFlush(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f, known := n.flushes[name]; known && f.Version == 0 {
		n.flushes.forget(name)
	}
}

// CheckFlush returns an error if there is no place to remember the flush of a name. To
// forget another flush would bring back what it has dropped. To flush all namespaces
// instead would drop what no client has asked to drop.
func (n *Table) CheckFlush(name string) *wire.Error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.flushes.has(name) || len(n.flushes) < MaxFlushed {
		return nil
	}
	return wire.Errorf(wire.BadRequest, "namespace %q would be one too many: %d names have been flushed one by one, "+
		"and each is remembered; flush all", name, MaxFlushed)
}

// Flush remembers a flush of a name, or of all names, which a host had noted at a time of the
// boot clock. It returns the names with slots that the flush concerns, and whether the flush
// is new. A name without a slot may get one later, with entries from before.
func (n *Table) Flush(name string, floor kv.Version, at time.Duration) (list []string, isNew bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.flushes.remember(name, floor, at, n.Flushes) {
		return nil, false
	}
	list = n.WithSlot(name)
	for _, name := range list {
		n.Ledger.RaiseFlush(n.All()[name].ID, floor)
	}
	return list, true
}

// WithSlot lists the name if it has a slot; "" lists all names that have one.
func (n *Table) WithSlot(name string) []string {
	if name == "" {
		return slices.Collect(maps.Keys(n.All()))
	}
	if n.All()[name] == nil {
		return nil
	}
	return []string{name}
}

// Floors returns the flushes that are remembered, by name.
func (n *Table) Floors() map[string]Flush {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := make(map[string]Flush, len(n.flushes))
	for name, f := range n.flushes {
		if f.Version != 0 {
			list[name] = f.Flush
		}
	}
	return list
}
