package measure

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

const (
	killHosts = 3
	// killTime is how long the keys of a killed host may stay unavailable before the
	// measurement fails.
	killTime = 30 * time.Second
	// probeEvery is the pause before a refused write is tried again.
	probeEvery = 10 * time.Millisecond
)

// kills kills one of three hosts after another, while their keys are read through the
// other two.
func (b *Bench) kills(ctx context.Context, p record.ClusterParameters) (rows []record.ClusterRow, err error) {
	c, err := b.startCluster(ctx, p, killHosts, "-kill")
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	for round := range p.Kills {
		victim := c.Hosts()[round%killHosts]
		through := []*peers.Host{c.Hosts()[(round+1)%killHosts], c.Hosts()[(round+2)%killHosts]}
		n := 2 * killHosts * p.Probe
		owners, err := c.Owners(ctx, through[0], n)
		if err != nil {
			return nil, err
		}
		keys := owners[victim.Node()]
		if len(keys) < p.Probe {
			return nil, fmt.Errorf("%s owns %d of %d keys, want %d: give others", victim.Node(), len(keys), n, p.Probe)
		}
		if _, err := fill(ctx, through[0].Server, n); err != nil {
			return nil, err
		}
		row := record.ClusterRow{Part: record.Kill, Round: round + 1}
		if row.Kill, err = killed(ctx, p, victim, through, keys); err != nil {
			return nil, fmt.Errorf("%s was killed: %w", victim.Node(), err)
		}
		rows = append(rows, row)
		k := row.Kill
		b.logf("kill %d: %d reads through the others, %d hits, %d errors, the slowest %.0f ms; first write after %.2f s, read after %.2f s, all %d keys after %.2f s",
			row.Round, k.Reads, k.Hits, k.Errors, k.SlowestMS, k.WriteMS/1000, k.HitMS/1000, p.Probe, k.AllMS/1000)
		if err := victim.Start(ctx); err != nil {
			return nil, err
		}
		if err := c.Agreed(ctx); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// killed kills a host while its keys are read through the others, and writes some of the
// keys until that succeeds. Each key is written through one host and read through the
// next.
func killed(ctx context.Context, p record.ClusterParameters, victim *peers.Host, through []*peers.Host, keys []uint64) (*record.KillRow, error) {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	r := newReaders(p.KeySize, keys, p.Reads)
	r.pick = func(n uint64) *peers.Host { return through[n%uint64(len(through))] }
	done := r.start(reading)
	select { // let them read for a while before the kill
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	row := &record.KillRow{}
	r.reset()
	begun := time.Now()
	victim.Kill()
	err := probe(ctx, p, through, keys[:p.Probe], begun, row)
	stop()
	<-done
	if err != nil {
		return nil, err
	}
	var sum record.Window
	for _, w := range r.windows() {
		sum.Reads, sum.Hits, sum.Errors = sum.Reads+w.Reads, sum.Hits+w.Hits, sum.Errors+w.Errors
	}
	row.Reads, row.Hits, row.Errors, row.Why = sum.Reads, sum.Hits, sum.Errors, r.why
	row.SlowestMS = float64(r.slowest) / float64(time.Millisecond)
	return row, nil
}

// probe writes each key until that succeeds, and then reads it until that hits.
func probe(ctx context.Context, p record.ClusterParameters, through []*peers.Host, keys []uint64, begun time.Time, row *record.KillRow) error {
	const atOnce = 10
	value := make([]byte, p.ValueSize)
	var mu sync.Mutex // guards row
	ms := func() float64 { return float64(time.Since(begun)) / float64(time.Millisecond) }
	earlier := func(to *float64) {
		if *to == 0 {
			*to = ms()
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, killTime, fmt.Errorf("its keys cannot be written and read again within %v", killTime))
	defer cancel()
	var wg sync.WaitGroup
	for w := range atOnce {
		wg.Go(func() {
			for i := w; i < len(keys) && ctx.Err() == nil; i += atOnce {
				key := string(load.Key(nil, keys[i], p.KeySize))
				writer, reader := through[i%len(through)].App(), through[(i+1)%len(through)].App()
				again(ctx, func() bool {
					_, err := writer.Set(context.Background(), key, value, cachesidecar.SetOptions{})
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						row.Refused++
						return false
					}
					earlier(&row.WriteMS)
					return true
				})
				again(ctx, func() bool {
					_, err := reader.Get(context.Background(), key, cachesidecar.GetOptions{})
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						earlier(&row.HitMS)
						row.AllMS = ms()
					}
					return err == nil
				})
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// again calls try until it is done or the context ends.
func again(ctx context.Context, try func() (done bool)) {
	for ctx.Err() == nil && !try() {
		time.Sleep(probeEvery)
	}
}
