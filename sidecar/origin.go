package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/loader"
)

// origin is where a namespace's misses are loaded from.
type origin struct {
	name   string // the kind, for logs and stats
	keys   *loader.Keys
	guard  *loader.Guard
	known  loader.Lister               // all keys that there are; nil: there is no filter
	warm   loader.Lister               // keys to be loaded at the start; nil: none
	writer loader.Writer               // nil: nothing is written through
	check  func(context.Context) error // asks the server whether what is configured fits; nil: nothing to be asked
	close  func() error
}

// openOrigin makes what a namespace configures, or nil where it has no origin.
// It reads the files that are named, and asks no server.
func openOrigin(namespace string, ns Namespace, maxValue int, log *slog.Logger) (*origin, error) {
	o, err := ns.openOrigin(namespace, maxValue, log)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", namespace, err)
	}
	return o, nil
}

func (n Namespace) openOrigin(namespace string, maxValue int, log *slog.Logger) (*origin, error) {
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
	o := &origin{name: name, keys: keys, close: opened.close}
	if err := n.uses(&opened, o, told{namespace, name, log}); err != nil {
		_ = o.close() // nothing is lost
		return nil, err
	}
	o.check = opened.check
	return o, nil
}

// uses makes what asks an opened origin.
func (n Namespace) uses(opened *opened, o *origin, told told) (err error) {
	if o.guard, err = loader.NewGuard(told.source(opened.hide.source(opened.source)), n.Limits.guard()); err != nil {
		return err
	}
	if n.Known != nil {
		if o.known, err = opened.lister(n.Known.List, n.KnownKeys); err != nil {
			return fmt.Errorf("known: %w", err)
		}
	}
	if n.WarmOnStart != nil {
		if o.warm, err = opened.lister(n.WarmOnStart.List, n.WarmKeys); err != nil {
			return fmt.Errorf("warm_on_start: %w", err)
		}
	}
	if o.writer, err = opened.writer(n); err != nil {
		return fmt.Errorf("origin.%s: %w", o.name, err)
	}
	if o.writer != nil {
		o.writer = toldWriter{o.writer, told}
	}
	return nil
}

// checkTime is how long all origins together may take to say that what is
// configured fits.
const checkTime = 5 * time.Second

// checkOrigins asks the origins whether what is configured fits them: a query
// with the wrong columns would fail at every load. One that cannot be asked now
// is no reason not to start: what is cached elsewhere is served without it.
func (n *namespaces) checkOrigins(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var group errgroup.Group
	for name, ns := range n.all() {
		if ns.origin == nil || ns.origin.check == nil {
			continue
		}
		group.Go(func() error {
			err := ns.origin.check(ctx)
			if errors.Is(err, loader.ErrPermanent) {
				return fmt.Errorf("namespace %s: %w", name, err)
			}
			if err != nil {
				log.Warn("an origin cannot be asked whether what is configured fits it", "namespace", name, "origin", ns.origin.name, "error", err)
			}
			return nil
		})
	}
	return group.Wait()
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
