package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cachesidecar/cachesidecar/benchmarks/measure"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// measurement is one of bench's words that measures something.
type measurement struct {
	name, does string
	// usual are the parameters, with their defaults; it has flags for them, and for those that also names.
	usual record.Parameters
	also  []string
	least map[string]int // of flags whose lowest value is another one here
	check func(p *record.Parameters) error
	run   func(b *measure.Bench, ctx context.Context, p record.Parameters)
}

// Memory of the servers: the sidecar's default for a host alone, and for each of several hosts ample for all keys.
const (
	oneHost     = 256 << 20
	severalHost = 64 << 20
)

var measurements = []measurement{
	{
		name: record.Socket, does: "throughput and latency against echo, redis and memcached", run: (*measure.Bench).Socket,
		usual: record.Parameters{Keys: 100_000, KeySize: 16, ValueSize: 100, Rounds: 5, Turns: 10, SweepTurns: 5, TurnMS: 100, WarmUpMS: 10, Cycle: 1 << 18, Limit: oneHost},
	},
	{
		name: record.Endpoint, does: "the endpoint for memcached's protocol, against the sidecar's own socket and memcached", run: (*measure.Bench).Endpoint,
		usual: record.Parameters{Keys: 100_000, KeySize: 16, ValueSize: 100, Rounds: 5, Turns: 10, TurnMS: 100, WarmUpMS: 10, Cycle: 1 << 18, Limit: oneHost},
	},
	{
		name: record.Cost, does: "the processor time of a request that is alone on its connection, on an idle and on busy machines", run: (*measure.Bench).Cost,
		usual: record.Parameters{Keys: 1000, KeySize: 16, ValueSize: 100, Rounds: 7, Turns: 2, TurnMS: 200, Cycle: 1 << 14, Rate: 10_000, SteadyMS: 1000, Limit: oneHost},
	},
	{
		name: record.Clients, does: "Go clients: this one's, gomemcache, go-redis and rueidis", run: (*measure.Bench).Clients, check: hotKeys,
		usual: record.Parameters{Keys: 1000, KeySize: 16, ValueSize: 100, Rounds: 5, Turns: 10, TurnMS: 100, WarmUpMS: 10, ColdGets: 10_000, Limit: oneHost},
	},
	{
		name: record.Languages, does: "clients in Python and Node: this project's, and those of redis and memcached", run: (*measure.Bench).Languages, check: hotKeys,
		usual: record.Parameters{
			Keys: 1000, KeySize: 16, ValueSize: 100, Rounds: 5, Turns: 10, TurnMS: 100, WarmUpMS: 10, Tasks: 64, Threads: 4, Limit: oneHost,
			Python: "/usr/bin/python3", Node: "node",
		},
	},
	{
		name: record.Memory, does: "memory of a filled sidecar and a filled memcached", run: (*measure.Bench).Memory, check: ample,
		usual: record.Parameters{Keys: 5_000_000, KeySize: 16, ValueSize: 100, Rounds: 5},
	},
	{
		name: record.GC, does: "what many entries cost the garbage collector and the slowest reads", run: (*measure.Bench).GC, check: fewKeys,
		usual: record.Parameters{
			Keys: 10_000_000, KeySize: 16, ValueSize: 100, Rounds: 5, Turns: 20, TurnMS: 100, WarmUpMS: 10, Cycle: 1 << 20,
			Few: 10_000, Conns: 16, Pipeline: 1, Churn: 5000,
		},
	},
	{
		name: record.Idle, does: "memory of idle connections", run: (*measure.Bench).Idle,
		usual: record.Parameters{Keys: measure.IdleKeys, KeySize: 16, ValueSize: 100, Rounds: 5, Conns: 10_000, Pipeline: 64, Limit: oneHost},
	},
	{
		name: record.Cluster, does: "several hosts: reads of others' keys, a host that dies, hosts that come and go", run: (*measure.Bench).Cluster,
		least: map[string]int{"hosts": 2}, check: hotHalf,
		usual: record.Parameters{
			Keys: 50_000, KeySize: 16, ValueSize: 100, Rounds: 5, Turns: 5, TurnMS: 100, WarmUpMS: 10, Cycle: 1 << 17, Limit: severalHost,
			Hot: 1000, Bound: 2000, Kills: 5, Probe: 100, Hosts: 5, Fixed: 20_000, Reads: 2000,
		},
	},
	{
		name: record.Propagation, does: "how long an overwritten value lives on in copies, beside redis' client tracking", run: (*measure.Bench).Propagation,
		least: map[string]int{"hosts": 2, "rounds": 0}, also: []string{"more"}, check: someRounds,
		usual: record.Parameters{
			Keys: 10_000, KeySize: 16, ValueSize: 100, Rounds: 5, Limit: severalHost,
			Hosts: 5, Rate: 10_000, Seconds: 10, Short: 2, EveryMS: 10, Bound: 2000, Hangs: 5, HangFor: 15,
		},
	},
	{
		name: record.Changes, does: "how fast a row that changes in PostgreSQL ends its cached values, and what that costs the database", run: (*measure.Bench).Changes,
		usual: record.Parameters{Rounds: 6, Hosts: 5, Commits: 300, Rows: 30_000, Seconds: 5, Clients: 4, Limit: severalHost},
	},
	{
		name: record.TLS, does: "what encryption between hosts costs, beside none", run: (*measure.Bench).TLS, least: map[string]int{"hosts": 2},
		usual: record.Parameters{
			Keys: 10_000, KeySize: 16, ValueSize: 100, Rounds: 5, Turns: 10, TurnMS: 100, WarmUpMS: 10, Cycle: 1 << 15, Limit: severalHost,
			Hosts: 3, Rate: 1000, Seconds: 4, Short: 1, EveryMS: 10, Bound: 2000,
		},
	},
	{
		name: record.Sizes, does: "what sidecars say to each other, by their number, in virtual time", run: (*measure.Bench).Sizes,
		usual: record.Parameters{Nodes: "3,5,10,20,50", Rates: "0,1000,10000", WindowMS: 1000},
	},
	{
		name: record.Loads, does: "a key that many miss at once, hits where misses are loaded, an origin that is away", run: (*measure.Bench).Loads, check: someParts,
		usual: record.Parameters{
			Keys: 10_000, KeySize: 16, ValueSize: 100, Rounds: 5, Turns: 30, TurnMS: 25, WarmUpMS: 10, Cycle: 1 << 16, Limit: severalHost,
			Hosts: 5, Conns: 20, Depth: 100, Cold: 20, OriginMS: 50, Hastes: 5, Haste: 10, Parts: "crowd,served,outage",
			OutHosts: 3, OutKeys: 500, OutTTL: 10_000, Rate: 50, Reads: 2000, Up: 5, Down: 60, Back: 15,
		},
	},
	{
		name: record.Overload, does: "one sidecar at three times the rate that saturates it", run: (*measure.Bench).Overload, check: someKinds,
		usual: record.Parameters{
			Keys: 10_000, KeySize: 16, ValueSize: 100, Rounds: 3, Turns: 8, TurnMS: 200, WarmUpMS: 500, Cycle: 1 << 17, Limit: oneHost,
			PhaseMS: 1000, StepMS: 300, Conns: 32, LargeSize: 1 << 20, OriginPlaces: 16, OriginMS: 10, ScrapeRounds: 7,
			TimeoutMS: map[string]int{"requests": 100, "connections": 250, "large": 1000, "misses": 1000}, Kinds: strings.Join(measure.OverloadKinds, ","),
		},
	},
	{
		name: record.Hits, does: "hit ratios of the traces in a folder", also: []string{"traces"}, check: someTraces,
		usual: record.Parameters{Rounds: 5, Points: 8},
	},
}

// maxClientKeys is the most keys that the clients ask for: they are hot.
const maxClientKeys = 65_536

func hotKeys(p *record.Parameters) error {
	if p.Keys > maxClientKeys {
		return fmt.Errorf("-entries %d: give at most %d", p.Keys, maxClientKeys)
	}
	return nil
}

// ample sets enough memory for any of the servers to store all entries. They
// need 40 to 80 bytes per entry besides key and value.
func ample(p *record.Parameters) error {
	p.Limit = max(64<<20, int64(p.Keys)*int64(p.KeySize+p.ValueSize+140))
	return nil
}

func fewKeys(p *record.Parameters) error {
	if p.Few > p.Keys {
		return fmt.Errorf("-few %d: give at most the %d of -entries", p.Few, p.Keys)
	}
	return ample(p)
}

func hotHalf(p *record.Parameters) error {
	if p.Hot > p.Keys/2 {
		return fmt.Errorf("-hot %d: give at most half of the %d of -entries", p.Hot, p.Keys)
	}
	return nil
}

func someRounds(p *record.Parameters) error {
	if p.Rounds+p.Hangs == 0 {
		return errors.New("-rounds 0 -hangs 0: give at least one of either")
	}
	return nil
}

func someParts(p *record.Parameters) error {
	if err := known("part", p.Parts, []string{record.Crowd, record.Served, record.Outage}); err != nil {
		return err
	}
	if p.Depth > 500 || p.Haste >= p.OriginMS {
		return fmt.Errorf("-depth %d -haste %d -origin %d: give a depth of at most 500, and less haste than the origin takes", p.Depth, p.Haste, p.OriginMS)
	}
	return nil
}

func someKinds(p *record.Parameters) error { return known("kind", p.Kinds, measure.OverloadKinds) }

// known returns an error unless all has each of the names, which commas divide.
func known(what, names string, all []string) error {
	for _, name := range strings.Split(names, ",") {
		if !slices.Contains(all, name) {
			return fmt.Errorf("-%ss: there is no %s %q: give some of %s, with commas", what, what, name, strings.Join(all, ", "))
		}
	}
	return nil
}

func someTraces(p *record.Parameters) error {
	if p.Traces == "" {
		return errors.New("-traces: give -traces DIR, a folder of them; README.md says where to get them")
	}
	return nil
}
