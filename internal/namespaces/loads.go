package namespaces

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/origin"
	"github.com/cachesidecar/cachesidecar/loader"
)

// A reload may put another origin in the place of a namespace's own. Loads and writes
// that are at the old one then go on there, and the last of them closes it.

// Load asks the origin that the name has now, within its limits: a load that began just
// before a reload brings what the new origin has. If the name has none any more, it asks
// the one that the caller has found.
func (ns *Namespace) Load(ctx context.Context, key []byte) (loader.Value, error) {
	o, err := ns.enterOrigin()
	if err != nil {
		return loader.Value{}, err
	}
	defer o.Release()
	if o != ns.Origin { // its key_pattern may be another one than that which has let the key pass
		if err := o.Keys.Check(key); err != nil {
			return loader.Value{}, err
		}
	}
	w := &within{namespace: ns.Name, key: string(key)}
	defer w.over.Store(true) // a goroutine that the load has left running does not load any more
	return o.Load(context.WithValue(ctx, withinKey{}, w), key)
}

func (ns *Namespace) enterOrigin() (*origin.Origin, error) {
	for {
		now := ns.Now()
		switch {
		case now.Origin != nil && now.Origin.Hold():
			return now.Origin, nil
		case now.Origin == nil && ns.Origin.Hold():
			return ns.Origin, nil
		case now.Origin == nil:
			return nil, fmt.Errorf("%w: it has been taken out of the configuration", loader.ErrBusy)
		case now == ns.Now():
			return nil, flight.ErrClosed
		}
	}
}

// KeyForms returns regular expressions: a key that is loaded or filled in a namespace matches all of them.
func (n *Table) KeyForms(ctx context.Context, name string) (forms []string, err error) {
	ns := n.All()[name]
	switch {
	case ns == nil:
		return nil, nil
	case ns.Origin != nil && ns.Origin.Hold():
		defer ns.Origin.Release()
		return ns.Origin.KeyForms(ctx)
	case ns.Keys.Pattern() != "":
		forms = append(forms, ns.Keys.Pattern())
	}
	return forms, nil
}

// within is what a load loads, in the context of its origin.
type within struct {
	namespace, key string
	over           atomic.Bool
}

type withinKey struct{}

// Within reports whether a context is that of an origin which loads this key: one that asks for
// it, in the process that embeds the sidecar, would wait for itself.
func Within(ctx context.Context, namespace, key []byte) bool {
	w, ok := ctx.Value(withinKey{}).(*within)
	return ok && !w.over.Load() && w.namespace == string(namespace) && w.key == string(key)
}

// Writing reports whether a key is being written through. A load of the key must then not be kept,
// since it may have read the value from before.
func (ns *Namespace) Writing(h kv.Hash) bool { return ns.Now().through.writes(h) }

// SupersedeWrite notes a late write of a key. It is called before the key is deleted for that write.
func (ns *Namespace) SupersedeWrite(h kv.Hash) { ns.Now().through.supersede(h) }
