package measure

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Loads measures the cost of many concurrent misses of one key, the cost of a hit in a
// namespace that loads its misses, and the results of reads while the origin is away.
func (b *Bench) Loads(ctx context.Context, p record.LoadsParameters, parts []string) (rows []record.LoadsRow, err error) {
	for _, part := range []struct {
		run  func(context.Context, record.LoadsParameters) ([]record.LoadsRow, error)
		does []string
	}{{b.crowds, []string{record.Crowd, record.Hasty}}, {b.served, []string{record.Served}}, {b.outage, []string{record.Outage}}} {
		if !slices.ContainsFunc(part.does, func(name string) bool { return slices.Contains(parts, name) }) {
			continue
		}
		more, err := part.run(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", part.does[0], err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// PartsOf parses a list of parts.
func PartsOf(list string) (parts []string, err error) {
	for _, name := range strings.Split(list, ",") {
		switch name {
		case record.Crowd:
			parts = append(parts, record.Crowd, record.Hasty)
		case record.Served, record.Outage:
			parts = append(parts, name)
		default:
			return nil, fmt.Errorf("loads -parts: there is no part %q: give some of %s, %s and %s, with commas", name, record.Crowd, record.Served, record.Outage)
		}
	}
	return parts, nil
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

func (b *Bench) loadsOptions(p record.LoadsParameters) peers.Options {
	return peers.Options{Dir: b.dir, Bytes: p.Limit, KeySize: p.KeySize, ValueSize: p.ValueSize}
}

// served compares hits in a namespace with an origin and the default refresh_early with
// hits in a namespace without an origin.
func (b *Bench) served(ctx context.Context, p record.LoadsParameters) (rows []record.LoadsRow, err error) {
	value := make([]byte, p.ValueSize)
	origin, err := peers.StartOrigin(time.Millisecond, value)
	if err != nil {
		return nil, err
	}
	defer origin.Down()
	o := b.loadsOptions(p)
	off := fmt.Sprintf("  %s:\n    refresh_early: 0\n    origin: {http: {url: %q}}\n", record.NoEarly, origin.URL())
	if o.Config, err = b.config(origin, off); err != nil {
		return nil, err
	}
	s, err := b.start(ctx, record.Sidecar, o)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	for _, space := range servedSpaces {
		in := *s
		in.Set = load.Sidecar{Namespace: space, KeySize: p.KeySize, Value: value}
		if _, err := fill(ctx, &in, p.Keys); err != nil {
			return nil, err
		}
	}
	// Early refresh depends on the duration of a load, so there must have been one.
	one, err := dialApp(s, loadedSpace)
	if err != nil {
		return nil, err
	}
	defer one.close()
	if t, err := one.ask(ctx, "another key", 1, nil); err != nil || t.answered != 1 {
		return nil, fmt.Errorf("a load brings %+v: %w", t, err)
	}
	for round := range p.Rounds {
		for _, shape := range [][2]int{{1, 1}, {16, 1}, {16, 64}} {
			row, err := b.servedRow(ctx, s, p, shape[0], shape[1], round)
			if err != nil {
				return nil, err
			}
			rows = append(rows, row)
		}
	}
	if _, calls := origin.Since(time.Time{}, time.Now()); calls > 1 {
		return nil, fmt.Errorf("%d calls of the origin: not all reads were hits", calls)
	}
	return rows, nil
}

// servedSpaces are the namespaces of the sides.
var servedSpaces = map[string]string{
	record.Plain: record.Plain, record.WithOrigin: loadedSpace, record.NoEarly: record.NoEarly, record.Again: record.Again,
}

// servedRow measures one round of one load.
func (b *Bench) servedRow(ctx context.Context, s *peers.Server, p record.LoadsParameters, conns, depth, round int) (row record.LoadsRow, err error) {
	c := &contest{}
	defer c.close()
	for _, name := range []string{record.Plain, record.WithOrigin, record.NoEarly, record.Again} {
		err := c.enter(name, load.Config{
			Dial: s.Dial, Protocol: load.Sidecar{Namespace: servedSpaces[name], KeySize: p.KeySize}, Conns: conns, Pipeline: depth,
			Batches: batches(p.Cycle, conns, depth), Key: uniform(uint64(round), p.Keys),
		})
		if err != nil {
			return row, err
		}
	}
	row = record.LoadsRow{Part: record.Served, Round: round + 1, Conns: conns, Pipeline: depth}
	if row.Sides, err = c.play(ctx, p.Turns, round); err != nil {
		return row, err
	}
	of := func(name string) float64 { return row.Sides[name].PerSecond() / row.Sides[record.Plain].PerSecond() }
	b.logf("round %d: hits at %d × %d: with an origin %.3f, without refresh_early %.3f, another without %.3f",
		row.Round, conns, depth, of(record.WithOrigin), of(record.NoEarly), of(record.Again))
	return row, nil
}
