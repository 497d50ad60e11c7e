package namespaces

import "context"

// within is what a load loads, in the context of its origin.
type within struct {
	namespace, key string
	outer          *within // the load that has begun it
}

type withinKey struct{}

func (ns *Namespace) within(ctx context.Context, key []byte) context.Context {
	outer, _ := ctx.Value(withinKey{}).(*within)
	return context.WithValue(ctx, withinKey{}, &within{ns.Name, string(key), outer})
}

// Within reports whether a context is that of an origin which loads this key: one that asks for
// it, in the process that embeds the sidecar, would wait for itself.
func Within(ctx context.Context, namespace, key []byte) bool {
	w, _ := ctx.Value(withinKey{}).(*within)
	for ; w != nil; w = w.outer {
		if w.namespace == string(namespace) && w.key == string(key) {
			return true
		}
	}
	return false
}
