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

// Hits replays the traces of a folder. It is not timed, so replays run on all cores at
// once if the policy allows it. Random policies are replayed once per round at the sizes
// of the tables, everything else once.
func Hits(ctx context.Context, dir string, p record.HitsParameters, log io.Writer) (rows []record.HitsRow, err error) {
	files, err := trace.Files(dir)
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
		plan := planHits(name, int64(len(requests)), footprint, p)
		if len(plan) == 0 {
			fmt.Fprintf(log, "%s: %d requests for %d keys: too few to cache, left out\n", name, len(requests), footprint.Keys)
			continue
		}
		fmt.Fprintf(log, "%s: %d requests for %d keys: %d replays\n", name, len(requests), footprint.Keys, len(plan))
		if err := replay(ctx, requests, plan); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		rows = append(rows, plan...)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("no trace in %s has enough keys to cache", dir)
	}
	return rows, nil
}

// planHits returns the rows to measure, without their hits.
func planHits(name string, requests int64, f hits.Footprint, p record.HitsParameters) (plan []record.HitsRow) {
	for _, size := range hits.Sizes(name, f, p.Points) {
		for _, policy := range hits.Policies {
			rounds := 1
			if policy.Random && !size.Sweep {
				rounds = p.Rounds
			}
			for round := range rounds {
				plan = append(plan, record.HitsRow{
					Round: round + 1, Trace: name, Requests: requests, Unique: f.Keys,
					Unit: size.Unit, Size: size.N, Sweep: size.Sweep, Policy: policy.Name,
				})
			}
		}
	}
	return plan
}

func replay(ctx context.Context, requests []trace.Request, plan []record.HitsRow) error {
	policies := map[string]hits.Policy{}
	for _, p := range hits.Policies {
		policies[p.Name] = p
	}
	for _, alone := range []bool{false, true} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(runtime.NumCPU())
		if alone {
			g.SetLimit(1)
		}
		for i := range plan {
			row := &plan[i]
			if policies[row.Policy].Alone != alone {
				continue
			}
			g.Go(func() (err error) {
				row.Hits, err = hits.Replay(ctx, policies[row.Policy], requests, row.Size, row.Unit == record.Bytes)
				return err
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}
