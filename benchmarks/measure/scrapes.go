package measure

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// scraped is a load during which metrics are asked for once in each second of its turns.
type scraped struct {
	side
	url  string
	ran  time.Duration // in all turns
	next time.Duration // of ran: the next time to ask
}

// Run runs the load.
func (s *scraped) Run(ctx context.Context, warmUp, d time.Duration) (r load.Result, err error) {
	var g errgroup.Group
	for ; s.next < s.ran+d; s.next += time.Second {
		at := time.Now().Add(warmUp + s.next - s.ran)
		g.Go(func() error { // ends with the turn, about
			time.Sleep(time.Until(at))
			return s.scrape()
		})
	}
	s.ran += d
	r, err = s.side.Run(ctx, warmUp, d)
	if e := g.Wait(); err == nil {
		err = e
	}
	return r, err
}

// scrape asks for the metrics.
func (s *scraped) scrape() error {
	a, err := http.Get(s.url)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, a.Body)
	_ = a.Body.Close()
	if err != nil || a.StatusCode != http.StatusOK || n == 0 {
		return fmt.Errorf("metrics: status %d, %d bytes, error %v", a.StatusCode, n, err)
	}
	return nil
}

// scrapes compares hits of a sidecar whose metrics are asked for each second with hits of
// one that has no HTTP port, in turns. Each round has new processes: two processes of one
// program differ by some per cent for as long as they live.
func (b *Bench) scrapes(ctx context.Context, p record.Parameters) {
	p.WarmUpMS = 10
	for round := range p.ScrapeRounds {
		b.scrapesRound(ctx, p, round)
	}
}

func (b *Bench) scrapesRound(ctx context.Context, p record.Parameters, round int) {
	defer b.scope()()
	address := must(testenv.FindAddress())
	var sides [2]entrant
	for i := range sides {
		at := (round + i) % len(sides)
		o := b.options(p, fmt.Sprint("-", at))
		name := record.HTTPOff
		if at == 0 {
			name, o.HTTP = record.Scraped, address
		}
		s := b.start(ctx, record.Sidecar, o)
		fill(ctx, s, p.Keys)
		sides[at] = ownEntrant(name, s)
	}
	for _, depth := range []int{1, 64} {
		b.playShape(ctx, sides[:], p, shape{op: "GET", conns: 16, pipeline: depth}, round, func(c *contest) {
			c.sides[0].side = &scraped{side: c.sides[0].side, url: "http://" + address + "/metrics", next: 100 * time.Millisecond}
		})
	}
}
