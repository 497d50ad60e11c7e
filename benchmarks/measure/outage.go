package measure

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// outageSettings are the namespace's settings besides its origin. Stale values last
// longer than any measured outage.
const outageSettings = `    default_ttl: %s
    stale_limit: 1h
    stale_if_error: 1h
    limits: {rate: %d}
`

// readsAtOnce bounds the concurrent reads of a host.
const readsAtOnce = 64

// outage loads keys with a short time to live, takes the origin away, and brings it back.
func (b *Bench) outage(ctx context.Context, p record.Parameters) {
	defer b.scope()()
	origin := b.startOrigin(p, 0, time.Duration(p.OriginMS)*time.Millisecond)
	o := b.options(p, "")
	o.Config = b.config(origin, fmt.Sprintf(outageSettings, time.Duration(p.OutTTL)*time.Millisecond, p.Rate))
	r := &outageReads{p: p, cluster: b.startHosts(ctx, p.OutHosts, 0, o)}
	r.loadAll(ctx)
	for _, phase := range []struct {
		name    string
		begin   func() error
		seconds int
	}{
		{record.OriginUp, func() error { return nil }, p.Up},
		{record.OriginDown, func() error { origin.Down(); return nil }, p.Down},
		{record.OriginBack, origin.Up, p.Back},
	} {
		check(phase.begin())
		begun := time.Now()
		list := r.run(ctx, time.Duration(phase.seconds)*time.Second)
		calls, busiest := origin.Since(begun, time.Now())
		b.put(fmt.Sprintf("the origin is away for %d s", p.Down), phase.name, append(list, figure{"calls of the origin", float64(calls)},
			figure{"busiest second", float64(busiest)}, figure{"busiest second / rate", float64(busiest) / float64(p.Rate*p.OutHosts)})...)
	}
	check(ctx.Err())
}

// outageReads read keys and accept stale values.
type outageReads struct {
	p       record.Parameters
	cluster *peers.Cluster
}

func (r *outageReads) key(i int) string { return string(load.Key(nil, uint64(i), r.p.KeySize)) }

// loadAll loads each key once.
func (r *outageReads) loadAll(ctx context.Context) {
	app := r.cluster.Hosts()[0].App().InNamespace(loadedSpace)
	for i := range r.p.OutKeys {
		for end := time.Now().Add(crowdTime); ; {
			_, err := app.Get(ctx, r.key(i), cachesidecar.GetOptions{})
			if err == nil {
				break
			}
			// limits.rate refuses some loads with BUSY.
			if !errors.Is(err, cachesidecar.ErrBusy) || time.Now().After(end) {
				fail("load %s: %w", r.key(i), err)
			}
		}
	}
	check(ctx.Err())
}

// run reads at the rate, through all hosts, for d.
func (r *outageReads) run(ctx context.Context, d time.Duration) []figure {
	var mu sync.Mutex // guards what follows
	var reads, current, stale, misses, errs, late float64
	latency := newDelays()
	hosts := r.cluster.Hosts()
	ctx, cancel := context.WithTimeout(ctx, d+crowdTime) // hanging reads become errors
	defer cancel()
	every := time.Second * time.Duration(len(hosts)) / time.Duration(r.p.Reads)
	var wg sync.WaitGroup
	draw := uniform(uint64(d), r.p.OutKeys)
	for h, host := range hosts {
		app := host.App().InNamespace(loadedSpace)
		due := make(chan int, readsAtOnce)
		for range readsAtOnce {
			wg.Go(func() { // ends with due
				for n := range due {
					begun := time.Now()
					it, err := app.Get(ctx, r.key(int(draw(h, n))), cachesidecar.GetOptions{StaleOK: true})
					took := time.Since(begun)
					mu.Lock()
					_ = latency.RecordValue(int64(took)) // fails only above one minute
					reads++
					switch {
					case err == nil && it.Stale:
						stale++
					case err == nil:
						current++
					case errors.Is(err, cachesidecar.ErrNotFound):
						misses++
					default:
						errs++
					}
					mu.Unlock()
				}
			})
		}
		wg.Go(func() { // ends after d
			defer close(due)
			begun := time.Now()
			for n := 0; ; n++ {
				next := time.Duration(n) * every
				if next >= d || ctx.Err() != nil {
					return
				}
				time.Sleep(next - time.Since(begun))
				select {
				case due <- n:
				default:
					mu.Lock()
					late++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	at := func(q float64) float64 { return float64(latency.ValueAtQuantile(q)) / float64(time.Millisecond) }
	return []figure{{"reads", reads}, {"current", current}, {"stale", stale}, {"misses", misses}, {"errors", errs}, {"not made", late},
		{"p50, ms", at(50)}, {"p99, ms", at(99)}, {"longest, ms", at(100)}, {"reads without a value", misses + errs}}
}
