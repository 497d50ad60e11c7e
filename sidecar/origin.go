package sidecar

import (
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/loader"
)

// origin is where a namespace's misses are loaded from.
type origin struct {
	name  string // the kind, for logs and stats
	keys  *loader.Keys
	guard *loader.Guard
	check func(context.Context) error // asks the server whether what is configured fits; nil: nothing to be asked
	close func() error
}

// openOrigin makes what a namespace configures, or nil where it has no origin.
// It reads the files that are named, and asks no server.
func openOrigin(namespace string, ns Namespace, maxValue int) (*origin, error) {
	o, err := ns.openOrigin(maxValue)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", namespace, err)
	}
	return o, nil
}

func (n Namespace) openOrigin(maxValue int) (*origin, error) {
	if n.Origin == nil && n.Source == nil {
		return nil, nil
	}
	keys, err := n.keys()
	if err != nil {
		return nil, err
	}
	name, opened := "source", opened{source: sized{n.Source, maxValue}, close: func() error { return nil }}
	if n.Origin != nil {
		kind := n.Origin.given()[0]
		name = kind.name
		if opened, err = kind.open(n.Limits, maxValue); err != nil {
			return nil, fmt.Errorf("origin.%s: %w", name, err)
		}
	}
	guard, err := loader.NewGuard(opened.source, n.Limits.guard())
	if err != nil {
		return nil, err
	}
	return &origin{name: name, keys: keys, guard: guard, check: opened.check, close: opened.close}, nil
}

// sized is a Source whose values have a bound.
type sized struct {
	loader.Source
	most int
}

func (s sized) Load(ctx context.Context, key []byte) (loader.Value, error) {
	v, err := s.Source.Load(ctx, key)
	if err == nil && len(v.Bytes) > s.most {
		return loader.Value{}, fmt.Errorf("%w: %d bytes, at most %d are allowed", loader.ErrTooLarge, len(v.Bytes), s.most)
	}
	return v, err
}
