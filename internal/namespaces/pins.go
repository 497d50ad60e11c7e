package namespaces

import (
	"slices"

	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Pins is the namespaces that one caller uses while it serves a batch. A pinned namespace
// does not lose its slot. Pins must not be used concurrently.
type Pins struct {
	Table  *Table
	By     *quota.Account         // on whose behalf names get slots
	pinned []*Namespace           // read-locked, and not released
	Last   *Namespace             // looked up last
	from   *map[string]*Namespace // the table that Last is from
	Reads  inspect.Sampler
}

// Read pins and returns the namespace of a name, or nil if the name has no slot and thus
// no entries.
func (b *Pins) Read(name []byte) *Namespace {
	if b.isLast(name) {
		return b.Last
	}
	from := b.Table.names.Load()
	ns := (*from)[string(name)]
	if ns == nil || !b.enter(ns, from) {
		return nil // without a slot, or retired just now
	}
	return ns
}

// Write pins and returns the namespace of a name, and gives it a slot if it has none.
func (b *Pins) Write(name []byte) (*Namespace, *wire.Error) {
	if b.isLast(name) {
		return b.Last, nil
	}
	for {
		from := b.Table.names.Load() // if Obtain makes another table, the next call looks there
		ns, err := b.Table.Obtain(name, b.By)
		if err != nil {
			return nil, err
		}
		if b.enter(ns, from) {
			return ns, nil
		}
	}
}

// isLast reports whether Last has a name, and its present settings.
func (b *Pins) isLast(name []byte) bool {
	return b.Last != nil && b.Last.Name == string(name) && b.from == b.Table.names.Load()
}

// enter pins a namespace. It returns false if the namespace has lost its slot.
func (b *Pins) enter(ns *Namespace, from *map[string]*Namespace) bool {
	if !ns.configured && !slices.Contains(b.pinned, ns) {
		ns.use.RLock()
		if ns.retired {
			ns.use.RUnlock()
			return false
		}
		b.pinned = append(b.pinned, ns)
	}
	b.Last, b.from = ns, from
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
