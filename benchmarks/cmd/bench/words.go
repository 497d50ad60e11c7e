package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cachesidecar/cachesidecar/benchmarks/measure"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/benchmarks/report"
)

func socket(ctx context.Context, p *program, args []string) error {
	f, v := socketFlags(p, record.Socket)
	f.count(&v.SweepTurns, "sweep-turns", 5, 1, "each side's in a round, for shapes of the plots alone")
	if err := f.parse(args); err != nil {
		return err
	}
	return measured(ctx, p, f, *v, (*measure.Bench).Socket)
}

func endpoint(ctx context.Context, p *program, args []string) error {
	f, v := socketFlags(p, record.Endpoint)
	if err := f.parse(args); err != nil {
		return err
	}
	return measured(ctx, p, f, *v, (*measure.Bench).Endpoint)
}

func cost(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Cost)
	v := record.CostParameters{Conns: []int{1, 4, 16, 64}, Steady: []int{8, 32}}
	f.data(&v.Data, 1000)
	f.count(&v.Rounds, "rounds", 7, 1, "how often each side is measured")
	f.count(&v.Turns.Turns, "turns", 2, 1, "each side's in a round")
	f.count(&v.TurnMS, "turn", 200, 1, "the length of a turn, in ms")
	f.count(&v.Cycle, "cycle", 1<<14, 1, "how many requests are prebuilt over all connections")
	f.count(&v.Rate, "rate", 10_000, 1, "requests a second of the loads at a steady rate")
	f.count(&v.SteadyMS, "steady", 1000, 10, "how long each side has such a load in a round, in ms")
	if err := f.parse(args); err != nil {
		return err
	}
	return measured(ctx, p, f, v, (*measure.Bench).Cost)
}

// socketFlags are the flags of the load on a socket, whatever the sides.
func socketFlags(p *program, what string) (*flags, *record.SocketParameters) {
	f := newFlags(p, what)
	v := &record.SocketParameters{Percentiles: record.Percentiles}
	f.data(&v.Data, 100_000)
	f.turns(&v.Turns, 10)
	f.count(&v.Cycle, "cycle", 1<<18, 1, "how many requests are prebuilt over all connections")
	return f, v
}

func clients(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Clients)
	v := record.ClientsParameters{Goroutines: []int{1, 16, 64}}
	f.data(&v.Data, 1000)
	f.turns(&v.Turns, 10)
	f.count(&v.ColdGets, "cold", 10_000, 1, "GETs of a client that has just been made")
	if err := f.parse(args); err != nil {
		return err
	}
	if v.Keys > maxClientKeys {
		return fmt.Errorf("clients -entries %d: give at most %d", v.Keys, maxClientKeys)
	}
	return measured(ctx, p, f, v, (*measure.Bench).Clients)
}

// maxClientKeys is the most keys that the clients ask for: they are hot.
const maxClientKeys = 65_536

func languages(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Languages)
	v := record.LanguagesParameters{}
	f.data(&v.Data, 1000)
	f.turns(&v.Turns, 10)
	f.count(&v.Tasks, "tasks", 64, 1, "calls in flight on one event loop")
	f.count(&v.Threads, "threads", 4, 1, "of one process in Python")
	python := f.String("python", "/usr/bin/python3", "the `interpreter`, with the other clients: Debian's")
	node := f.String("node", "node", "the `program` that runs JavaScript")
	if err := f.parse(args); err != nil {
		return err
	}
	if v.Keys > maxClientKeys {
		return fmt.Errorf("languages -entries %d: give at most %d", v.Keys, maxClientKeys)
	}
	return measured(ctx, p, f, v, func(b *measure.Bench, ctx context.Context, v record.LanguagesParameters) ([]record.LanguagesRow, error) {
		return b.Languages(ctx, v, *python, *node)
	})
}

func memory(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Memory)
	v := record.MemoryParameters{}
	f.data(&v.Data, 5_000_000)
	f.rounds(&v.Rounds)
	if err := f.parse(args); err != nil {
		return err
	}
	v.Limit = ample(v.Data)
	return measured(ctx, p, f, v, (*measure.Bench).Memory)
}

func gc(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.GC)
	v := record.GCParameters{}
	f.data(&v.Data, 10_000_000)
	f.turns(&v.Turns, 20)
	f.count(&v.Few, "few", 10_000, 1000, "the other sidecar's entries")
	f.count(&v.Conns, "conns", 16, 1, "connections")
	f.count(&v.Pipeline, "pipeline", 1, 1, "requests in flight on each")
	f.count(&v.Cycle, "cycle", 1<<20, 1, "how many requests are prebuilt over all connections")
	f.count(&v.Churn, "churn", 5000, 0, "connections that come and go before each round")
	if err := f.parse(args); err != nil {
		return err
	}
	if v.Few > v.Keys {
		return fmt.Errorf("gc -few %d: give at most the %d of -entries", v.Few, v.Keys)
	}
	v.Limit = ample(v.Data)
	return measured(ctx, p, f, v, (*measure.Bench).GC)
}

func idle(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Idle)
	v := record.IdleParameters{}
	f.rounds(&v.Rounds)
	f.count(&v.KeySize, "key-size", 16, 16, "of keys, in bytes")
	f.count(&v.ValueSize, "value-size", 100, 1, "of values, in bytes")
	f.count(&v.Conns, "conns", 10_000, 1, "connections, below 16,384: the sidecar takes no more by default")
	f.count(&v.Pipeline, "pipeline", 64, 1, "requests of the batch that each has sent")
	if err := f.parse(args); err != nil {
		return err
	}
	v.Keys = measure.IdleKeys
	return measured(ctx, p, f, v, (*measure.Bench).Idle)
}

func cluster(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Cluster)
	v := record.ClusterParameters{Limit: clusterLimit}
	f.data(&v.Data, 50_000)
	f.turns(&v.Turns, 5)
	f.count(&v.Cycle, "cycle", 1<<17, 1, "how many requests are prebuilt over all connections")
	f.count(&v.Hot, "hot", 1000, 1, "how many keys there are copies of, and as many of the host's own")
	f.count(&v.Bound, "max-staleness", 2000, 500, "of the sidecars, in ms")
	f.count(&v.Kills, "kills", 5, 1, "how often a host is killed")
	f.count(&v.Probe, "probe", 100, 1, "how many of its keys are written until that succeeds")
	f.count(&v.Hosts, "hosts", 5, 2, "how many hosts are restarted")
	f.count(&v.Fixed, "fixed", 20_000, 1000, "how many keys are read meanwhile")
	f.count(&v.Reads, "reads", 2000, 1, "how many of them a second, about")
	if err := f.parse(args); err != nil {
		return err
	}
	if v.Hot > v.Keys/2 {
		return fmt.Errorf("cluster -hot %d: give at most half of the %d of -entries", v.Hot, v.Keys)
	}
	return measured(ctx, p, f, v, (*measure.Bench).Cluster)
}

// encryption is not on the page, because it compares sidecars with each other.
func encryption(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, "tls")
	v := record.ClusterParameters{Limit: clusterLimit}
	w := record.PropagationParameters{Limit: clusterLimit, Short: 1}
	f.data(&v.Data, 10_000)
	f.turns(&v.Turns, 10)
	f.count(&v.Cycle, "cycle", 1<<15, 1, "how many requests are prebuilt over all connections")
	f.count(&w.Hosts, "hosts", 3, 2, "sidecars that tell each other of writes")
	f.count(&w.Rate, "rate", 1000, 10, "writes a second")
	f.count(&w.Seconds, "seconds", 4, 1, "of each side's turn")
	f.count(&w.EveryMS, "probe-every", 10, 1, "how often a watched key is overwritten, in ms")
	f.count(&w.Bound, "max-staleness", 2000, 500, "of the sidecars, in ms")
	if err := f.parse(args); err != nil {
		return err
	}
	w.Data, w.Rounds = v.Data, v.Rounds
	b, err := measure.Open(ctx, p.log)
	if err != nil {
		return err
	}
	defer b.Close()
	lines, err := b.TLS(ctx, v, w)
	for _, line := range lines {
		fmt.Fprintln(p.out, line)
	}
	return err
}

func propagation(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Propagation)
	v := record.PropagationParameters{Limit: clusterLimit}
	f.data(&v.Data, 10_000)
	f.count(&v.Rounds, "rounds", 5, 0, "how often each side is measured")
	f.count(&v.Hosts, "hosts", 5, 2, "sidecars, and clients of redis")
	f.count(&v.Rate, "rate", 10_000, 10, "writes a second; also a tenth, and ten times as many")
	f.count(&v.Seconds, "seconds", 10, 1, "of each side's turn at that rate")
	f.count(&v.Short, "short-seconds", 2, 1, "of the turns at the other rates")
	f.count(&v.EveryMS, "probe-every", 10, 1, "how often a watched key is overwritten, in ms")
	f.count(&v.Bound, "max-staleness", 2000, 500, "of the sidecars, in ms")
	f.count(&v.Hangs, "hangs", 5, 0, "how often a link is made to hang")
	f.count(&v.HangFor, "hang-seconds", 15, 1, "for how long it is read meanwhile")
	more := f.Bool("more", false, "add to the rounds that are there, instead of replacing them")
	if err := f.parse(args); err != nil {
		return err
	}
	if v.Rounds+v.Hangs == 0 {
		return errors.New("propagation -rounds 0 -hangs 0: give at least one of either")
	}
	var kept []record.PropagationRow
	if *more {
		var err error
		if kept, err = record.Kept(filepath.Join(f.dir, report.RoundsDir)); err != nil {
			return err
		}
	}
	return measured(ctx, p, f, v, func(b *measure.Bench, ctx context.Context, v record.PropagationParameters) ([]record.PropagationRow, error) {
		rows, err := b.Propagation(ctx, v)
		return record.After(kept, rows), err
	})
}

func changes(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Changes)
	v := record.ChangesParameters{Limit: clusterLimit}
	f.count(&v.Rounds, "rounds", 6, 1, "how often each side is measured")
	f.count(&v.Hosts, "hosts", 5, 1, "sidecars")
	f.count(&v.Commits, "commits", 300, 1, "how many rows are changed, one after the other")
	f.count(&v.Rows, "rows", 30_000, 1, "how many rows wait in the log")
	f.count(&v.Seconds, "seconds", 5, 1, "of each side's pgbench")
	f.count(&v.Clients, "clients", 4, 1, "of pgbench")
	if err := f.parse(args); err != nil {
		return err
	}
	return measured(ctx, p, f, v, (*measure.Bench).Changes)
}

func sizes(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Sizes)
	v := record.SizesParameters{}
	f.StringVar(&v.Nodes, "nodes", "3,5,10,20,50", "`numbers` of nodes, between commas")
	f.StringVar(&v.Rates, "rates", "0,1000,10000", "`writes` a second in all, between commas")
	f.count(&v.WindowMS, "window", 1000, 1, "how long each is counted, in ms of virtual time")
	if err := f.parse(args); err != nil {
		return err
	}
	return measured(ctx, p, f, v, (*measure.Bench).Sizes)
}

func loads(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Loads)
	v := record.LoadsParameters{Limit: clusterLimit}
	f.data(&v.Data, 10_000)
	f.rounds(&v.Rounds)
	f.count(&v.Turns.Turns, "turns", 30, 1, "each side's in a round of hits")
	f.count(&v.TurnMS, "turn", 25, 1, "the length of a turn, in ms")
	f.count(&v.WarmUpMS, "warm-up", 10, 0, "load before each turn, in ms")
	f.count(&v.Cycle, "cycle", 1<<16, 1, "how many requests for hits are prebuilt over all connections")
	f.count(&v.Hosts, "hosts", 5, 1, "sidecars, and nodes of groupcache, that a crowd asks")
	f.count(&v.Conns, "conns", 20, 1, "connections of each host's apps")
	f.count(&v.Depth, "depth", 100, 1, "requests in flight on each, at most 500")
	f.count(&v.Cold, "cold", 20, 1, "how many keys, one after the other, a crowd asks for")
	f.count(&v.Takes, "origin", 50, 1, "how long the origin takes, in ms")
	f.count(&v.Hastes, "hastes", 5, 1, "how often a caller with little time waits for the load of another caller")
	f.count(&v.Haste, "haste", 10, 1, "that time, in ms")
	f.count(&v.OutHosts, "outage-hosts", 3, 1, "sidecars whose origin goes away")
	f.count(&v.OutKeys, "outage-keys", 500, 1, "how many keys are read meanwhile")
	f.count(&v.OutTTL, "outage-ttl", 10_000, 1, "their time to live, in ms")
	f.count(&v.Rate, "rate", 50, 1, "limits.rate of each of those sidecars")
	f.count(&v.Reads, "reads", 2000, 1, "of those keys, a second")
	f.count(&v.Up, "up", 5, 1, "seconds before the outage")
	f.count(&v.Down, "down", 60, 1, "seconds of the outage")
	f.count(&v.Back, "back", 15, 1, "seconds after it")
	list := f.String("parts", "crowd,served,outage", "which `parts` to measure, with commas; the rounds of the others stay")
	if err := f.parse(args); err != nil {
		return err
	}
	parts, err := measure.PartsOf(*list)
	if err != nil {
		return err
	}
	if v.Depth > 500 || v.Haste >= v.Takes {
		return fmt.Errorf("loads -depth %d -haste %d -origin %d: give a depth of at most 500, and less haste than the origin takes", v.Depth, v.Haste, v.Takes)
	}
	kept, versions, err := record.KeptLoads(filepath.Join(f.dir, report.RoundsDir), parts)
	if err != nil {
		return err
	}
	return measured(ctx, p, f, v, func(b *measure.Bench, ctx context.Context, v record.LoadsParameters) ([]record.LoadsRow, error) {
		b.Keep(versions)
		rows, err := b.Loads(ctx, v, parts)
		return append(kept, rows...), err
	})
}

func overload(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Overload)
	v := record.OverloadParameters{Limit: socketLimit, TimeoutMS: map[string]int{
		record.Requests: 100, record.Connections: 250, record.Large: 1000, record.Misses: 1000,
	}}
	f.data(&v.Data, 10_000)
	f.count(&v.Rounds, "rounds", 3, 1, "how often each kind is measured")
	f.count(&v.PhaseMS, "phase", 1000, 10, "how long each rate is measured, in ms")
	f.count(&v.WarmUpMS, "warm-up", 500, 0, "the same rate before that, in ms")
	f.count(&v.StepMS, "step", 300, 10, "how long each step of the search for saturation is measured, in ms")
	f.count(&v.Conns, "conns", 32, 1, "connections that stay open")
	f.count(&v.LargeSize, "large", 1<<20, 1, "of large values, in bytes")
	f.count(&v.OriginPlaces, "origin-places", 16, 1, "calls that the origin works on at once")
	f.count(&v.OriginMS, "origin", 10, 1, "how long it works on each, in ms")
	f.count(&v.ScrapeRounds, "scrape-rounds", 7, 1, "how often hits while metrics are asked for are measured, each time with new processes")
	f.count(&v.Turns, "turns", 8, 1, "each side's in a round of metrics")
	f.count(&v.TurnMS, "turn", 200, 10, "the length of such a turn, in ms; metrics are asked for once in each second of turns")
	f.count(&v.Cycle, "cycle", 1<<17, 1, "how many requests for metrics are prebuilt over all connections")
	list := f.String("kinds", strings.Join(record.OverloadKinds, ","), "`kinds` of load, with commas")
	if err := f.parse(args); err != nil {
		return err
	}
	kinds := strings.Split(*list, ",")
	for _, k := range kinds {
		if !slices.Contains(record.OverloadKinds, k) {
			return fmt.Errorf("overload -kinds: there is no kind %q: give some of %s", k, strings.Join(record.OverloadKinds, ", "))
		}
	}
	return measured(ctx, p, f, v, func(b *measure.Bench, ctx context.Context, v record.OverloadParameters) ([]record.OverloadRow, error) {
		return b.Overload(ctx, v, kinds)
	})
}

// socketLimit is the memory of a host alone: the sidecar's default.
const socketLimit = 256 << 20

// clusterLimit is the memory of each host: ample for all keys.
const clusterLimit = 64 << 20

func hitRatios(ctx context.Context, p *program, args []string) error {
	f := newFlags(p, record.Hits)
	v := record.HitsParameters{}
	traces := f.String("traces", "", "the `folder` of traces to replay")
	f.count(&v.Rounds, "rounds", 5, 1, "replays of the policies that draw lots, at the sizes of the tables")
	f.count(&v.Points, "points", 8, 0, "sizes of each plot, beside those of the tables")
	if err := f.parse(args); err != nil {
		return err
	}
	if *traces == "" {
		return errors.New("hits: no folder of traces: give -traces DIR; README.md says where to get them")
	}
	head := f.head()
	rows, err := measure.Hits(ctx, *traces, v, p.log)
	if err != nil {
		return err
	}
	return save(p, f, head, v, rows)
}

// ample is enough memory, in bytes, for any of the servers to store all entries. They
// need 40 to 80 bytes per entry besides key and value.
func ample(d record.Data) int64 {
	return max(64<<20, int64(d.Keys)*int64(d.KeySize+d.ValueSize+140))
}

// measured runs a measurement and saves its rows.
func measured[P, R any](ctx context.Context, p *program, f *flags, v P, run func(*measure.Bench, context.Context, P) ([]R, error)) error {
	head := f.head() // first: head records the load average before the run
	b, err := measure.Open(ctx, p.log)
	if err != nil {
		return err
	}
	defer b.Close()
	rows, err := run(b, ctx, v)
	if err != nil {
		return err
	}
	for name, version := range b.Versions() {
		head.Versions[name] = version
	}
	return save(p, f, head, v, rows)
}

// save writes a measurement's rows to a file, and prints its section of the page.
func save[P, R any](p *program, f *flags, head record.Head, parameters P, rows []R) error {
	dir := filepath.Join(f.dir, report.RoundsDir)
	if err := record.Write(dir, record.File[P, R]{Head: head, Parameters: parameters, Rows: rows}); err != nil {
		return err
	}
	text, err := report.Section(f.dir, f.what)
	if err != nil {
		return err
	}
	fmt.Fprintln(p.out, text)
	fmt.Fprintf(p.log, "kept in %s; \"go run ./cmd/bench report\" writes %s from it\n", filepath.Join(dir, f.what+".json"), report.Page)
	return nil
}

func writeReport(_ context.Context, p *program, args []string) error {
	f := newFlags(p, "report")
	if err := f.parse(args); err != nil {
		return err
	}
	files, err := report.Derive(f.dir)
	if err != nil {
		return err
	}
	// Plots of former measurements are removed.
	if err := os.RemoveAll(filepath.Join(f.dir, report.PlotsDir)); err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(f.dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	fmt.Fprintf(p.log, "wrote %s and %d plots\n", filepath.Join(f.dir, report.Page), len(files)-1)
	return nil
}
