package namespaces

import "context"

// within is what a load loads, in the context of its origin.
type within struct{ namespace, key string }

type withinKey struct{}

func (ns *Namespace) within(ctx context.Context, key []byte) context.Context {
	return context.WithValue(ctx, withinKey{}, within{ns.Name, string(key)})
}

// Within reports whether a context is that of an origin which loads this key: one that asks for
// it, in the process that embeds the sidecar, would wait for itself.
func Within(ctx context.Context, namespace, key []byte) bool {
	w, ok := ctx.Value(withinKey{}).(within)
	return ok && w.namespace == string(namespace) && w.key == string(key)
}
