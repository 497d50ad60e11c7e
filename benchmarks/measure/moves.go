package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// quiet is how long reads go on before and after the event.
const quiet = 2 * time.Second

// moves restarts all hosts one after the other, and then lets one more join. Meanwhile a
// set of keys is read for which all hosts have room.
func (b *Bench) moves(ctx context.Context, p record.Parameters) {
	defer b.scope()()
	c := b.startCluster(ctx, p, p.Hosts, "-move")
	fill(ctx, c.Hosts()[0].Server, p.Fixed)
	b.watch(ctx, p, c, fmt.Sprintf("%d hosts restart, one after the other", p.Hosts), func(event func(*peers.Host, string)) {
		for _, h := range c.Hosts() {
			event(h, "asked to end, s")
			h.Stop()
			event(h, "ended, s")
			arrive(ctx, c, h, event)
		}
	})
	more := must(c.Place())
	b.watch(ctx, p, c, fmt.Sprintf("a host joins %d others", p.Hosts), func(event func(*peers.Host, string)) { arrive(ctx, c, more, event) })
}

// isIn is the event that all hosts see a host as a member, and no handoff to it is under way.
const isIn = "in, s"

// arrive starts a host, and waits until all hosts see it as a member.
func arrive(ctx context.Context, c *peers.Cluster, h *peers.Host, event func(*peers.Host, string)) {
	event(h, "started, s")
	check(h.Start(ctx))
	event(h, "serves, s")
	check(c.Agreed(ctx))
	event(h, isIn)
}

// moment is the time at which something happened to a host, since the reads began.
type moment struct {
	at   time.Duration
	host string
	what string
}

// watch reads while happens runs, and keeps the figures of whole seconds. Reads go through the hosts
// that serve: an app returns to its sidecar as soon as the sidecar answers.
func (b *Bench) watch(ctx context.Context, p record.Parameters, c *peers.Cluster, shape string, happens func(event func(*peers.Host, string))) {
	keys := make([]uint64, p.Fixed)
	for i := range keys {
		keys[i] = uint64(i)
	}
	r := newReaders(p.KeySize, keys, p.Reads)
	hosts := c.Hosts()
	r.pick = func(n uint64) *peers.Host {
		for i := range hosts {
			if h := hosts[(n+uint64(i))%uint64(len(hosts))]; h.App() != nil {
				return h
			}
		}
		return nil
	}
	var events []moment
	reading, stop := context.WithCancel(ctx)
	defer stop()
	done := r.start(reading)
	time.Sleep(quiet)
	err := catch(func() {
		happens(func(h *peers.Host, what string) { events = append(events, moment{time.Since(r.begun), h.Node(), what}) })
	})
	time.Sleep(quiet)
	stop()
	<-done
	if err != nil {
		fail("%s: %w", shape, err)
	}
	windows := r.windows()
	windows = windows[:min(int(time.Since(r.begun)/time.Second), len(windows))]
	if len(windows) == 0 {
		fail("nothing was read")
	}
	b.putMoves(shape, windows, events)
	check(ctx.Err())
}

// putMoves keeps the figures of all reads, of each second, and of each host that came.
func (b *Bench) putMoves(shape string, windows []window, events []moment) {
	var sum window
	for _, w := range windows {
		sum.add(w)
		b.put(shape, record.BySecond, figure{"reads", float64(w.reads)}, figure{"hits", float64(w.hits)}, figure{"errors", float64(w.errors)}, figure{"degraded", float64(w.degraded)})
	}
	lowest := func(from, to time.Duration) float64 {
		least := 1.0
		for i, w := range windows {
			if begin := time.Duration(i) * time.Second; begin+time.Second > from && begin < to {
				least = min(least, w.ratio())
			}
		}
		return 100 * least
	}
	b.put(shape, "", figure{"hits in the lowest second, %", lowest(0, time.Hour)}, figure{"hits in all seconds, %", 100 * sum.ratio()},
		figure{"misses of entries that are gone", float64(sum.reads - sum.hits - sum.errors - sum.degraded)},
		figure{"misses since no owner could be reached in time", float64(sum.degraded)}, figure{"errors of reads", float64(sum.errors)})
	begun := map[string]time.Duration{}
	for _, e := range events {
		if _, ok := begun[e.host]; !ok {
			begun[e.host] = e.at
		}
		b.put(shape, e.host, figure{e.what, e.at.Seconds()})
		if e.what == isIn {
			b.put(shape, e.host, figure{"hits until then, lowest second, %", lowest(begun[e.host], e.at)})
		}
	}
}
