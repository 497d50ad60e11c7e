package namespaces

import (
	"context"
	"sync/atomic"
)

// within is what a load loads, in the context of its origin.
type within struct {
	namespace, key string
	over           atomic.Bool
}

type withinKey struct{}

// within returns the context of a load, and what to call when the load has ended: a goroutine
// that it has left running does not load any more.
func (ns *Namespace) within(ctx context.Context, key []byte) (load context.Context, ended func()) {
	w := &within{namespace: ns.Name, key: string(key)}
	return context.WithValue(ctx, withinKey{}, w), func() { w.over.Store(true) }
}

// Within reports whether a context is that of an origin which loads this key: one that asks for
// it, in the process that embeds the sidecar, would wait for itself.
func Within(ctx context.Context, namespace, key []byte) bool {
	w, ok := ctx.Value(withinKey{}).(*within)
	return ok && !w.over.Load() && w.namespace == string(namespace) && w.key == string(key)
}
