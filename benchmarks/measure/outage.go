package measure

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

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
func (b *Bench) outage(ctx context.Context, p record.LoadsParameters) (rows []record.LoadsRow, err error) {
	origin, err := peers.StartOrigin(time.Duration(p.Takes)*time.Millisecond, make([]byte, p.ValueSize))
	if err != nil {
		return nil, err
	}
	defer origin.Down()
	o := b.loadsOptions(p)
	if o.Config, err = b.config(origin, fmt.Sprintf(outageSettings, time.Duration(p.OutTTL)*time.Millisecond, p.Rate)); err != nil {
		return nil, err
	}
	cluster, err := peers.StartCluster(ctx, p.OutHosts, 0, o)
	if err != nil {
		return nil, err
	}
	defer cluster.Stop()
	r := &outageReads{p: p, cluster: cluster}
	if err := r.loadAll(ctx); err != nil {
		return nil, err
	}
	row := record.LoadsRow{Part: record.Outage, Round: 1, Phases: make([]record.OutagePhase, record.Phases)}
	for phase, seconds := range []int{p.Up, p.Down, p.Back} {
		switch phase {
		case record.PhaseDown:
			origin.Down()
		case record.PhaseBack:
			if err := origin.Up(); err != nil {
				return nil, err
			}
		}
		begun := time.Now()
		f := r.run(ctx, time.Duration(seconds)*time.Second)
		f.Calls, f.Busiest = origin.Since(begun, time.Now())
		row.Phases[phase] = f
		b.logf("phase %d: %d reads: %d current, %d stale, %d misses, %d errors; p99 %.1f ms, longest %.1f; %d calls of the origin, at most %d in a second",
			phase+1, f.Reads, f.Current, f.Stale, f.Misses, f.Errors, f.P99MS, f.MaxMS, f.Calls, f.Busiest)
	}
	return []record.LoadsRow{row}, ctx.Err()
}

// outageReads read keys and accept stale values.
type outageReads struct {
	p       record.LoadsParameters
	cluster *peers.Cluster
}

func (r *outageReads) key(i int) string { return string(load.Key(nil, uint64(i), r.p.KeySize)) }

// loadAll loads each key once.
func (r *outageReads) loadAll(ctx context.Context) error {
	app := r.cluster.Hosts()[0].App().InNamespace(loadedSpace)
	for i := range r.p.OutKeys {
		for end := time.Now().Add(crowdTime); ; {
			_, err := app.Get(ctx, r.key(i), cachesidecar.GetOptions{})
			if err == nil {
				break
			}
			// limits.rate refuses some loads with BUSY.
			if !errors.Is(err, cachesidecar.ErrBusy) || time.Now().After(end) {
				return fmt.Errorf("load %s: %w", r.key(i), err)
			}
		}
	}
	return ctx.Err()
}

// run reads at the rate, through all hosts, for d.
func (r *outageReads) run(ctx context.Context, d time.Duration) (f record.OutagePhase) {
	var mu sync.Mutex
	latency := hdrhistogram.New(1000, int64(time.Minute), 3)
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
					f.Reads++
					switch {
					case err == nil && it.Stale:
						f.Stale++
					case err == nil:
						f.Current++
					case errors.Is(err, cachesidecar.ErrNotFound):
						f.Misses++
					default:
						f.Errors++
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
					f.Late++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	at := func(q float64) float64 { return float64(latency.ValueAtQuantile(q)) / float64(time.Millisecond) }
	f.P50MS, f.P99MS, f.MaxMS = at(50), at(99), at(100)
	return f
}
