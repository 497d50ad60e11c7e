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
func (b *Bench) Loads(ctx context.Context, p record.Parameters) {
	parts := map[string]func(context.Context, record.Parameters){record.Crowd: b.crowds, record.Served: b.served, record.Outage: b.outage}
	for _, part := range strings.Split(p.Parts, ",") {
		from := len(b.rows)
		within(part, func() { parts[part](ctx, p) })
		for i := range b.rows[from:] {
			b.rows[from+i].Part = part
		}
	}
}

// A namespace that has an origin, and one for which the apps load.
const (
	loadedSpace = "loaded"
	appsSpace   = "apps"
)

// config writes a sidecar's configuration file, with an origin for the namespace and
// further settings.
func (b *Bench) config(o *peers.Origin, more string) string {
	path := filepath.Join(b.dir, "config.yaml")
	text := fmt.Sprintf("namespaces:\n  %s:\n    origin: {http: {url: %q}}\n%s", loadedSpace, o.URL(), more)
	check(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// served compares hits in a namespace with an origin and the default refresh_early with
// hits in a namespace without an origin.
func (b *Bench) served(ctx context.Context, p record.Parameters) {
	defer b.scope()()
	origin := b.startOrigin(p, 0, time.Millisecond)
	o := b.options(p, "")
	const noEarly = "no-early"
	o.Config = b.config(origin, fmt.Sprintf("  %s:\n    refresh_early: 0\n    origin: {http: {url: %q}}\n", noEarly, origin.URL()))
	s := b.start(ctx, record.Sidecar, o)
	var sides []entrant
	for _, side := range []struct{ name, space string }{
		{record.Without, "plain"}, {record.WithOrigin, loadedSpace}, {record.NoEarly, noEarly}, {record.AgainWithout, "plain-again"},
	} {
		in := *s
		in.Get = load.Sidecar{Namespace: side.space, KeySize: p.KeySize}
		in.Set = load.Sidecar{Namespace: side.space, KeySize: p.KeySize, Value: make([]byte, p.ValueSize)}
		fill(ctx, &in, p.Keys)
		sides = append(sides, ownEntrant(side.name, &in))
	}
	// Early refresh depends on the duration of a load, so there must have been one.
	if t := must(b.openLine(s, loadedSpace, p).ask(ctx, crowdTime, "another key", 1, nil)); t.answered != 1 {
		fail("a load brings %+v", t)
	}
	list := []shape{{op: "GET", conns: 1, pipeline: 1}, {op: "GET", conns: 16, pipeline: 1}, {op: "GET", conns: 16, pipeline: 64}}
	b.playAll(ctx, sides, p, list)
	if _, calls := origin.Since(time.Time{}, time.Now()); calls > 1 {
		fail("%d calls of the origin: not all reads were hits", calls)
	}
}
