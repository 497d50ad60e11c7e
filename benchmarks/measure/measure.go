// Package measure runs the measurements. It starts the servers, lets the sides of a
// comparison take turns under the same load, and keeps each round's raw figures.
//
// Inputs are parameters, outputs are rows, both of package record, with the names that the
// page has. The servers are processes of their own. The load runs in this process and shares the machine with them.
// One measurement runs at a time. Whatever a function starts has ended when it returns.
// The package judges nothing; package report does that.
package measure

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Bench is a folder with the built programs, for any number of measurements.
type Bench struct {
	dir      string
	log      io.Writer // progress
	versions map[string]string
	rows     record.Rows
	open     []func() // what closes what is open
}

// Open builds the programs. Progress goes to log, a line at a time.
func Open(ctx context.Context, log io.Writer) (*Bench, error) {
	dir, err := os.MkdirTemp("", "cachesidecar-bench-")
	if err != nil {
		return nil, err
	}
	b := &Bench{dir: dir, log: log, versions: map[string]string{}}
	if err := peers.Build(ctx, dir); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Close removes the folder.
func (b *Bench) Close() { _ = os.RemoveAll(b.dir) }

// Versions returns the versions of the servers started so far.
func (b *Bench) Versions() map[string]string { return maps.Clone(b.versions) }

// Rows returns the figures so far.
func (b *Bench) Rows() record.Rows { return b.rows }

// figure is a figure of a side under a load, in one round.
type figure struct {
	name  string // with its unit
	value float64
}

// put keeps figures of a round.
func (b *Bench) put(shape, side string, figures ...figure) {
	const logged = 8
	line := shape + ", " + side + ":"
	for i, f := range figures {
		if b.rows.Add(shape, side, f.name, f.value); i < logged {
			line += fmt.Sprintf(" %s %.4g;", f.name, f.value)
		}
	}
	b.logf("%s", line)
}

// percentiles returns the recorded percentiles of a distribution of ns, in a unit.
func percentiles(prefix, unit string, h *hdrhistogram.Histogram) (list []figure) {
	in := map[string]time.Duration{"µs": time.Microsecond, "ms": time.Millisecond}[unit]
	for _, p := range record.Percentiles {
		list = append(list, figure{prefix + p.Name + " " + unit, float64(h.ValueAtQuantile(p.P)) / float64(in)})
	}
	return list
}

// options are those of a server.
func (b *Bench) options(p record.Parameters, label string) peers.Options {
	return peers.Options{Dir: b.dir, Bytes: p.Limit, KeySize: p.KeySize, ValueSize: p.ValueSize, Label: label}
}

func (b *Bench) logf(format string, args ...any) { fmt.Fprintf(b.log, format+"\n", args...) }

// start runs a server until the end of the scope.
func (b *Bench) start(ctx context.Context, name string, o peers.Options) *peers.Server {
	o.Dir = b.dir
	s := must(peers.Start(ctx, name, o))
	b.closes(s.Stop)
	if s.Version != "" {
		b.versions[name] = s.Version
	}
	return s
}

// startFilled runs servers of different names, which hold all keys.
func (b *Bench) startFilled(ctx context.Context, p record.Parameters, o peers.Options, names ...string) (servers []*peers.Server) {
	for _, name := range names {
		s := b.start(ctx, name, o)
		fill(ctx, s, p.Keys)
		servers = append(servers, s)
	}
	return servers
}

// startHosts runs a cluster until the end of the scope.
func (b *Bench) startHosts(ctx context.Context, hosts int, bound time.Duration, o peers.Options) *peers.Cluster {
	begun := time.Now()
	c := must(peers.StartCluster(ctx, hosts, bound, o))
	b.closes(c.Stop)
	b.logf("%d hosts are one cache after %.1f s", hosts, time.Since(begun).Seconds())
	return c
}

// startMember runs a node of a library until the end of the scope.
func (b *Bench) startMember(ctx context.Context, name, library string, o peers.MemberOptions) *peers.Member {
	m := must(peers.StartMember(ctx, name, o))
	b.closes(m.Close)
	if m.Version != "" {
		b.versions[library] = m.Version
	}
	return m
}

// startOrigin runs an origin until the end of the scope. It works on so many calls at once; zero: on any number.
func (b *Bench) startOrigin(p record.Parameters, places int, takes time.Duration) *peers.Origin {
	o := must(peers.StartOrigin(places, takes, make([]byte, p.ValueSize)))
	b.closes(o.Down)
	return o
}

// connect opens a connection until the end of the scope, and says what the protocol says first.
func (b *Bench) connect(dial func() (net.Conn, error), p load.Protocol) net.Conn {
	nc := must(dial())
	b.closes(func() { _ = nc.Close() })
	check(p.Greet(nc))
	return nc
}

// addresses finds free addresses.
func addresses(n int) (list []string) {
	for range n {
		list = append(list, must(testenv.FindAddress()))
	}
	return list
}

// fill sets keys 0 to n-1 in parts, so that the prebuilt requests do not take more memory
// than the entries.
func fill(ctx context.Context, s *peers.Server, n int) time.Duration {
	const part, conns, pipeline = 1 << 18, 4, 64
	var took time.Duration
	for first := 0; first < n; first += part {
		last := min(first+part, n) - 1
		batches := (last - first + conns*pipeline) / (conns * pipeline)
		r, err := load.Run(ctx, load.Config{
			Dial: s.Dial, Protocol: s.Set, Conns: conns, Pipeline: pipeline, Batches: batches, Once: true,
			Key: func(conn, i int) uint64 { return uint64(min(first+conn*batches*pipeline+i, last)) },
		})
		if err != nil {
			fail("fill %s: %w", s.Name, err)
		}
		if r.Hits != r.Requests {
			fail("fill %s: %d of %d writes were stored: give it more memory", s.Name, r.Hits, r.Requests)
		}
		took += r.Elapsed
	}
	return took
}

// uniform draws keys 0 to n-1. The same seed, connection and request give the same key
// for every side.
func uniform(seed uint64, n int) func(conn, i int) uint64 {
	return func(conn, i int) uint64 {
		x := seed<<48 ^ uint64(conn)<<32 ^ uint64(i) // splitmix64 of it
		x += 0x9e3779b97f4a7c15
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return (x ^ x>>31) % uint64(n)
	}
}

// rotated returns a list that begins with another element in each round: no side always goes first.
func rotated[T any](list []T, round int) []T {
	at := round % len(list)
	return slices.Concat(list[at:], list[:at])
}

// batches returns how many batches a connection has for a cycle of requests.
func batches(cycle, conns, pipeline int) int { return max(16, cycle/(conns*pipeline)) }

// contest is the sides of one comparison in one round.
type contest struct {
	sides  []contestant
	opened []*load.Load
}

// contestant is a side with what its turns have come to.
type contestant struct {
	name string
	side
	sum    load.Result
	server *peers.Server // whose processor time counts; nil: nobody's
	cpu    time.Duration
}

// side is a load that can run for some time.
type side interface {
	Run(ctx context.Context, warmUp, d time.Duration) (load.Result, error)
}

// close ends the loads that enter opened.
func (c *contest) close() {
	for _, l := range c.opened {
		l.Close()
	}
}

// enter adds a side with a load of its own.
func (c *contest) enter(name string, cfg load.Config) {
	l, err := load.Open(cfg)
	if err != nil {
		fail("%s: %w", name, err)
	}
	c.opened = append(c.opened, l)
	c.add(name, l)
}

// add adds a side whose load the caller opens and closes.
func (c *contest) add(name string, s side) {
	c.sides = append(c.sides, contestant{name: name, side: s})
}

// moreTurns are for a side without any answer in its own turns.
const moreTurns = 100

// turn lets a side run once.
func (c *contestant) turn(ctx context.Context, p *record.Parameters) {
	var before, after time.Duration
	if c.server != nil {
		before = must(c.server.CPU())
	}
	r, err := c.Run(ctx, time.Duration(p.WarmUpMS)*time.Millisecond, time.Duration(p.TurnMS)*time.Millisecond)
	if err != nil {
		fail("%s: %w", c.name, err)
	}
	if c.server != nil {
		after = must(c.server.CPU())
		c.cpu += after - before
	}
	if c.sum.Latency == nil {
		c.sum = r
		return
	}
	c.sum.Requests += r.Requests
	c.sum.Hits += r.Hits
	c.sum.Elapsed += r.Elapsed
	c.sum.Latency.Merge(r.Latency)
}

// play lets the sides take turns, each time beginning with another side, so that a
// disturbance of the machine affects all of them alike. It returns the sides' results.
func (c *contest) play(ctx context.Context, p *record.Parameters, round int) map[string]load.Result {
	for turn := range p.Turns {
		for i := range c.sides {
			c.sides[(round+turn+i)%len(c.sides)].turn(ctx, p)
		}
	}
	results := map[string]load.Result{}
	for i := range c.sides {
		s := &c.sides[i]
		for more := 0; s.sum.Requests == 0 && more < moreTurns; more++ { // a short turn may pass while the machine stands still
			s.turn(ctx, p)
		}
		switch {
		case s.sum.Requests == 0:
			fail("%s answered nothing in %d turns of %d ms: make the turns longer", s.name, p.Turns+moreTurns, p.TurnMS)
		case s.sum.Hits != s.sum.Requests:
			fail("%s: %d of %d requests were hits, want all: the comparison is of hits alone", s.name, s.sum.Hits, s.sum.Requests)
		}
		results[s.name] = s.sum
	}
	return results
}

// play has a contest played, and keeps its rates and latencies.
func (b *Bench) play(ctx context.Context, c *contest, p *record.Parameters, round int, shape string) (results map[string]load.Result) {
	within(shape, func() { results = c.play(ctx, p, round) })
	for _, s := range c.sides {
		b.put(shape, s.name, append([]figure{{"requests/s", s.sum.PerSecond()}}, percentiles("", "µs", s.sum.Latency)...)...)
	}
	return results
}
