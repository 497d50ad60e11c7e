package measure

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Loads measures the cost of many concurrent misses of one key, the cost of a hit in a
// namespace that loads its misses, and the results of reads while the origin is away.
func (b *Bench) Loads(ctx context.Context, p record.Parameters) error {
	parts := map[string]func(context.Context, record.Parameters) error{record.Crowd: b.crowds, record.Served: b.served, record.Outage: b.outage}
	for _, part := range strings.Split(p.Parts, ",") {
		from := len(b.rows)
		if err := parts[part](ctx, p); err != nil {
			return fmt.Errorf("%s: %w", part, err)
		}
		for i := range b.rows[from:] {
			b.rows[from+i].Part = part
		}
	}
	return nil
}

// A namespace that has an origin, and one for which the apps load.
const (
	loadedSpace = "loaded"
	appsSpace   = "apps"
)

// config writes a sidecar's configuration file, with an origin for the namespace and
// further settings.
func (b *Bench) config(o *peers.Origin, more string) (string, error) {
	path := filepath.Join(b.dir, "config.yaml")
	text := fmt.Sprintf("namespaces:\n  %s:\n    origin: {http: {url: %q}}\n%s", loadedSpace, o.URL(), more)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// served compares hits in a namespace with an origin and the default refresh_early with
// hits in a namespace without an origin.
func (b *Bench) served(ctx context.Context, p record.Parameters) error {
	value := make([]byte, p.ValueSize)
	origin, err := peers.StartOrigin(time.Millisecond, value)
	if err != nil {
		return err
	}
	defer origin.Down()
	o := b.options(p, "")
	const noEarly = "no-early"
	if o.Config, err = b.config(origin, fmt.Sprintf("  %s:\n    refresh_early: 0\n    origin: {http: {url: %q}}\n", noEarly, origin.URL())); err != nil {
		return err
	}
	s, err := b.start(ctx, record.Sidecar, o)
	if err != nil {
		return err
	}
	defer s.Stop()
	var sides []entrant
	for _, side := range []struct{ name, space string }{
		{record.Without, "plain"}, {record.WithOrigin, loadedSpace}, {record.NoEarly, noEarly}, {record.AgainWithout, "plain-again"},
	} {
		in := *s
		in.Get = load.Sidecar{Namespace: side.space, KeySize: p.KeySize}
		in.Set = load.Sidecar{Namespace: side.space, KeySize: p.KeySize, Value: value}
		if _, err := fill(ctx, &in, p.Keys); err != nil {
			return err
		}
		sides = append(sides, ownEntrant(side.name, &in))
	}
	// Early refresh depends on the duration of a load, so there must have been one.
	one, err := openLine(s, loadedSpace, p)
	if err != nil {
		return err
	}
	defer one.close()
	if t, err := one.ask(ctx, crowdTime, "another key", 1, nil); err != nil || t.answered != 1 {
		return fmt.Errorf("a load brings %+v: %w", t, err)
	}
	list := []shape{{op: "GET", conns: 1, pipeline: 1}, {op: "GET", conns: 16, pipeline: 1}, {op: "GET", conns: 16, pipeline: 64}}
	if err := b.playAll(ctx, sides, p, list); err != nil {
		return err
	}
	if _, calls := origin.Since(time.Time{}, time.Now()); calls > 1 {
		return fmt.Errorf("%d calls of the origin: not all reads were hits", calls)
	}
	return nil
}
