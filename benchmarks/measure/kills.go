package measure

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/kv"
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
func (b *Bench) kills(ctx context.Context, p record.Parameters) {
	defer b.scope()()
	c := b.startCluster(ctx, p, killHosts, "-kill")
	for round := range p.Kills {
		victim := c.Hosts()[round%killHosts]
		through := []*peers.Host{c.Hosts()[(round+1)%killHosts], c.Hosts()[(round+2)%killHosts]}
		n := 2 * killHosts * p.Probe
		owners := must(c.Owners(ctx, through[0], n))
		keys := owners[victim.Node()]
		if len(keys) < p.Probe {
			fail("%s owns %d of %d keys, want %d: give others", victim.Node(), len(keys), n, p.Probe)
		}
		fill(ctx, through[0].Server, n)
		within(victim.Node()+" was killed", func() { b.kill(ctx, p, victim, through, keys) })
		check(victim.Start(ctx))
		check(c.Agreed(ctx))
	}
}

// kill kills a host while its keys are read through the others, and writes some of the
// keys until that succeeds. Each key is written through one host and read through the
// next.
func (b *Bench) kill(ctx context.Context, p record.Parameters, victim *peers.Host, through []*peers.Host, keys []uint64) {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	r := newReaders(p.KeySize, keys, p.Reads)
	r.pick = func(n uint64) *peers.Host { return through[n%uint64(len(through))] }
	done := r.start(reading)
	kv.Sleep(ctx, 500*time.Millisecond) // let them read for a while before the kill
	check(ctx.Err())
	r.reset()
	begun := time.Now()
	victim.Kill()
	after, err := probe(ctx, p, through, keys[:p.Probe], begun)
	stop()
	<-done
	check(err)
	var sum window
	for _, w := range r.windows() {
		sum.add(w)
	}
	b.put("a host of three is killed", "", figure{"reads", float64(sum.reads)}, figure{"hits", float64(sum.hits)}, figure{"errors", float64(sum.errors)},
		figure{"slowest read, ms", float64(r.slowest) / float64(time.Millisecond)}, figure{"writes refused", float64(after.refused)},
		figure{"first write, s", after.write.Seconds()}, figure{"first read, s", after.hit.Seconds()}, figure{"all, s", after.all.Seconds()})
	if r.why != "" {
		b.logf("the first error of a read: %s", r.why)
	}
}

// outcome is what happened to the keys of a killed host. Times count from the kill.
type outcome struct {
	refused int64         // writes, before they succeeded
	write   time.Duration // the first write succeeded
	hit     time.Duration // the first of them was read elsewhere
	all     time.Duration // the last written key was read
}

// probe writes each key until that succeeds, and then reads it until that hits.
func probe(ctx context.Context, p record.Parameters, through []*peers.Host, keys []uint64, begun time.Time) (row outcome, err error) {
	const atOnce = 10
	value := make([]byte, p.ValueSize)
	var mu sync.Mutex // guards row
	first := func(to *time.Duration) {
		if *to == 0 {
			*to = time.Since(begun)
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
						row.refused++
						return false
					}
					first(&row.write)
					return true
				})
				again(ctx, func() bool {
					_, err := reader.Get(context.Background(), key, cachesidecar.GetOptions{})
					mu.Lock()
					defer mu.Unlock()
					if err == nil {
						first(&row.hit)
						row.all = time.Since(begun)
					}
					return err == nil
				})
			}
		})
	}
	wg.Wait()
	return row, context.Cause(ctx)
}

// again calls try until it is done or the context ends.
func again(ctx context.Context, try func() (done bool)) {
	for ctx.Err() == nil && !try() {
		time.Sleep(probeEvery)
	}
}
