package measure

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// Of each load one request is in flight on each of so many connections.
var costConns, steadyConns = []int{1, 4, 16, 64}, []int{8, 32}

// What runs beside the servers and the load, as the page says it.
const (
	nothing  = ""
	spinners = ", beside processes that spin" // one for each processor that never waits
	builds   = ", beside builds"              // of a Go program, again and again
)

// Cost measures the processor time that a request costs a server if it is alone on its connection,
// on a machine that is idle otherwise, and on busy ones.
func (b *Bench) Cost(ctx context.Context, p record.Parameters) {
	o := b.options(p, "")
	o.Memcached = true
	servers := b.startFilled(ctx, p, o, record.Sidecar, record.Memcached)
	sidecar, tuned, bare := servers[0], servers[1], b.start(ctx, record.Bare, o)
	o.Usual, o.Label = true, "-usual"
	usual := b.startFilled(ctx, p, o, record.Memcached)[0]
	sides := []entrant{
		ownEntrant(record.OwnProtocol, sidecar),
		{record.EndpointText, sidecar, sidecar.DialMemcached, text(p)},
		{record.Memcached, usual, usual.DialMemcached, text(p)},
		{record.MemcachedTuned, tuned, tuned.DialMemcached, text(p)},
		{record.Bare, bare, bare.Dial, text(p)},
	}
	for _, beside := range []string{nothing, spinners, builds} {
		end := b.beside(ctx, beside)
		err := catch(func() {
			b.costs(ctx, sides, p, beside)
			b.steady(ctx, sides, p, beside)
		})
		if err := cmp.Or(err, end()); err != nil {
			fail("cost%s: %w", beside, err)
		}
	}
}

// costs measures the processor time of requests.
func (b *Bench) costs(ctx context.Context, sides []entrant, p record.Parameters, beside string) {
	for round := range p.Rounds {
		for _, op := range []string{"GET", "SET"} {
			for _, conns := range costConns {
				within(fmt.Sprintf("%s at %d × 1", op, conns), func() { b.cost(ctx, sides, p, shape{op: op, conns: conns, pipeline: 1}, round, beside) })
			}
		}
	}
}

func (b *Bench) cost(ctx context.Context, sides []entrant, p record.Parameters, sh shape, round int, beside string) {
	c := &contest{}
	defer c.close()
	c.enterAll(sides, &p, sh, round)
	for i, e := range sides {
		c.sides[i].server = e.server
	}
	c.play(ctx, &p, round)
	for _, s := range c.sides {
		b.put(fmt.Sprintf("%s, %d × 1%s", sh.op, sh.conns, beside), s.name,
			figure{"CPU µs", s.cpu.Seconds() * 1e6 / float64(s.sum.Requests)}, figure{"requests/s", s.sum.PerSecond()})
	}
}

// steady measures latencies at a steady rate.
func (b *Bench) steady(ctx context.Context, sides []entrant, p record.Parameters, beside string) {
	took := time.Duration(p.SteadyMS) * time.Millisecond
	for _, conns := range steadyConns {
		for round := range p.Rounds {
			for _, e := range rotated(sides, round) {
				var h *hdrhistogram.Histogram
				var cpu time.Duration
				within(fmt.Sprintf("%d connections at %d requests/s: %s", conns, p.Rate, e.name), func() {
					h, cpu = b.steadyTurn(ctx, e, conns, float64(p.Rate), took, uniform(uint64(round), p.Keys))
				})
				n := float64(h.TotalCount())
				b.put(fmt.Sprintf("GET, %d connections, %s/s%s", conns, record.Commas(p.Rate), beside), e.name,
					figure{"CPU µs", cpu.Seconds() * 1e6 / n}, figure{"requests/s", n / took.Seconds()},
					figure{"p50 µs", float64(h.ValueAtQuantile(50)) / 1000}, figure{"p99 µs", float64(h.ValueAtQuantile(99)) / 1000})
			}
		}
	}
}

// steadyTurn measures one side once.
func (b *Bench) steadyTurn(
	ctx context.Context, e entrant, conns int, rate float64, d time.Duration, key func(conn, n int) uint64,
) (h *hdrhistogram.Histogram, cpu time.Duration) {
	defer b.scope()()
	l := b.openLoop(e.dial, e.by["GET"], conns)
	before := must(e.server.CPU())
	h = must(l.run(ctx, rate, d, key))
	return h, must(e.server.CPU()) - before
}

// beside makes the machine busy until end is called, which returns an error if it has not been.
func (b *Bench) beside(ctx context.Context, what string) (end func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	end = func() error { cancel(); return g.Wait() }
	again := func(name string, args ...string) { // ends with ctx
		g.Go(func() error {
			for ctx.Err() == nil {
				if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil && ctx.Err() == nil {
					return fmt.Errorf("%s %s: %w\n%s", name, args[0], err, out)
				}
			}
			return nil
		})
	}
	switch what {
	case spinners:
		for range runtime.NumCPU() {
			again("sh", "-c", "while :; do :; done")
		}
	case builds:
		again("go", "build", "-a", "-o", os.DevNull, "github.com/cachesidecar/cachesidecar/benchmarks/cmd/echo")
	}
	return end
}
