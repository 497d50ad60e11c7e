package measure

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/benchmarks/hits"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/benchmarks/trace"
)

// replayed is a replay of a trace against a policy at a size.
type replayed struct {
	hits.Policy
	hits.Size
	hits int64
}

// Hits replays the traces of a folder. It is not timed, so replays run on all cores at
// once if the policy allows it. Random policies are replayed once per round at the sizes
// of the tables, everything else once.
func Hits(ctx context.Context, p record.Parameters, log io.Writer) (rows record.Rows, err error) {
	files, err := trace.Files(p.Traces)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		var requests []trace.Request
		for q, err := range trace.Read(file) {
			if err != nil {
				return nil, err
			}
			requests = append(requests, q)
		}
		name, footprint := trace.Name(file), hits.FootprintOf(requests)
		plan := planHits(name, footprint, p)
		if len(plan) == 0 {
			fmt.Fprintf(log, "%s: %d requests for %d keys: too few to cache, left out\n", name, len(requests), footprint.Keys)
			continue
		}
		fmt.Fprintf(log, "%s: %d requests for %d keys: %d replays\n", name, len(requests), footprint.Keys, len(plan))
		if err := replay(ctx, requests, plan); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rows.Add(name, "", "requests", float64(len(requests)))
		rows.Add(name, "", "keys", float64(footprint.Keys))
		for _, r := range plan {
			figure := "hits, %"
			if r.Sweep {
				figure += " (of the plot)"
			}
			rows.Add(fmt.Sprintf("%s, %s %s", name, record.Commas(r.N), r.Unit), r.Name, figure, 100*float64(r.hits)/float64(len(requests)))
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no trace in %s has enough keys to cache", p.Traces)
	}
	return rows, nil
}

// planHits returns the replays of a trace.
func planHits(name string, f hits.Footprint, p record.Parameters) (plan []replayed) {
	for _, size := range hits.Sizes(name, f, p.Points) {
		for _, policy := range hits.Policies {
			rounds := 1
			if policy.Random && !size.Sweep {
				rounds = p.Rounds
			}
			for range rounds {
				plan = append(plan, replayed{Policy: policy, Size: size})
			}
		}
	}
	return plan
}

func replay(ctx context.Context, requests []trace.Request, plan []replayed) error {
	for _, alone := range []bool{false, true} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(runtime.NumCPU())
		if alone {
			g.SetLimit(1)
		}
		for i := range plan {
			r := &plan[i]
			if r.Alone != alone {
				continue
			}
			g.Go(func() (err error) {
				r.hits, err = hits.Replay(ctx, r.Policy, requests, r.N, r.Unit == hits.Bytes)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}
