package namespaces

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Origin is where the missing values of a namespace are loaded from.
type Origin struct {
	Name     string // the kind, for logs and stats
	Keys     *loader.Keys
	Guard    *loader.Guard
	existing loader.Lister // all keys of the origin; nil: no key filter
	warm     loader.Lister // keys to be loaded at the start; nil: none
	writer   loader.Writer // nil: no write-through
	// Check asks the server whether the settings fit it. nil: there is nothing to ask.
	Check func(context.Context) error
	Close func() error
}

// OpenOrigin opens the origin of a namespace, or returns nil if it has none. It reads the
// files that the settings name, and asks no server.
func OpenOrigin(namespace string, ns Settings, maxValue int, log *slog.Logger) (*Origin, error) {
	o, err := ns.open(namespace, maxValue, log)
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", namespace, err)
	}
	return o, nil
}

func (n *Settings) open(namespace string, maxValue int, log *slog.Logger) (*Origin, error) {
	if n.Origin == nil {
		return nil, nil
	}
	keys, err := loader.NewKeys(n.KeyPattern, n.MaxKey)
	if err != nil {
		return nil, err
	}
	name := n.Origin.Kind()
	opened, err := n.Origin.Open(loader.OriginOptions{
		Timeout: n.Guard.Timeout, MaxValue: maxValue, WriteThrough: n.WriteThrough,
	})
	if err != nil {
		return nil, fmt.Errorf("origin.%s: %w", name, err)
	}
	o := &Origin{Name: name, Keys: keys, Close: opened.Close}
	if o.Close == nil {
		o.Close = func() error { return nil }
	}
	if err := n.uses(opened, o, reports{namespace, name, log, opened.Secrets}); err != nil {
		_ = o.Close() // nothing is lost
		return nil, err
	}
	return o, nil
}

// uses makes the parts that ask an opened origin.
func (n *Settings) uses(opened *loader.Origin, o *Origin, r reports) (err error) {
	o.checks(r.hide, opened.Source)
	if o.Guard, err = loader.NewGuard(r.source(opened.Source), n.Guard); err != nil {
		return err
	}
	lister := func(l loader.List) (loader.Lister, error) {
		if l.Lister != nil {
			_, err := l.Only("")
			return l.Lister, err
		}
		if opened.List == nil {
			return nil, errors.New("this kind of origin cannot list its keys: leave it out")
		}
		list, err := opened.List(l)
		if err != nil {
			return nil, err
		}
		o.checks(r.hide, list)
		return hidingLister{list, r.hide}, nil
	}
	if n.KeyFilter != nil {
		if o.existing, err = lister(n.KeyFilter.List); err != nil {
			return fmt.Errorf("existing_keys: %w", err)
		}
	}
	if n.Warm != nil {
		if o.warm, err = lister(n.Warm.List); err != nil {
			return fmt.Errorf("warm_on_start: %w", err)
		}
	}
	if n.WriteThrough && opened.Writer == nil {
		return errors.New("write_through: this kind of origin takes no writes: leave it out")
	}
	if opened.Writer != nil {
		o.checks(r.hide, opened.Writer)
		o.writer = reportingWriter{opened.Writer, r}
	}
	return nil
}

// checks makes o.Check ask a part of the origin too, if the part can be asked.
func (o *Origin) checks(hide Secrets, part any) {
	c, ok := part.(interface{ Check(context.Context) error })
	if !ok {
		return
	}
	before := o.Check
	o.Check = func(ctx context.Context) error {
		if before != nil {
			if err := before(ctx); err != nil {
				return err
			}
		}
		return hide.hide(c.Check(ctx))
	}
}

// checkTime is how long all origins together may take to check their settings.
const checkTime = 5 * time.Second

// CheckOrigins asks the origins whether the settings fit them: a query with the wrong
// columns would fail at every load. An origin that cannot be asked now does not prevent
// the start: what is cached on other hosts is served without it.
func (n *Table) CheckOrigins(ctx context.Context, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var group errgroup.Group
	for name, ns := range n.All() {
		if ns.Origin == nil || ns.Origin.Check == nil {
			continue
		}
		group.Go(func() error {
			err := ns.Origin.Check(ctx)
			if errors.Is(err, loader.ErrPermanent) {
				return fmt.Errorf("namespace %s: %w", name, err)
			}
			if err != nil {
				log.Warn("an origin cannot be asked whether what is configured fits it",
					"namespace", name, "origin", ns.Origin.Name, "error", err)
			}
			return nil
		})
	}
	return group.Wait()
}
