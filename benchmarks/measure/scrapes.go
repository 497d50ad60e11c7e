package measure

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
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
func (b *Bench) scrapes(ctx context.Context, p record.OverloadParameters, kind string, _ []int) (rows []record.OverloadRow, err error) {
	for round := range p.ScrapeRounds {
		more, err := b.scrapesRound(ctx, p, kind, round)
		if err != nil {
			return nil, err
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (b *Bench) scrapesRound(ctx context.Context, p record.OverloadParameters, kind string, round int) (rows []record.OverloadRow, err error) {
	address, err := peers.FreeAddress()
	if err != nil {
		return nil, err
	}
	sides := map[string]*peers.Server{}
	names := []string{record.HTTPOff, record.Scraped}
	for i := range names {
		name := names[(round+i)%len(names)]
		o := peers.Options{Bytes: p.Limit, KeySize: p.KeySize, ValueSize: p.ValueSize, Label: "-" + name}
		if name == record.Scraped {
			o.HTTP = address
		}
		s, err := b.start(ctx, record.Sidecar, o)
		if err != nil {
			return nil, err
		}
		defer s.Stop()
		if _, err := fill(ctx, s, p.Keys); err != nil {
			return nil, err
		}
		sides[name] = s
	}
	for _, depth := range []int{1, 64} {
		row := record.OverloadRow{Kind: kind, Round: round + 1, Depth: depth}
		if row.Sides, err = scrapesOnce(ctx, sides[record.Scraped], sides[record.HTTPOff], address, p, round, depth); err != nil {
			return nil, err
		}
		b.logf("  round %d: 16 × %d, scraped / without HTTP: %.3f", row.Round, depth,
			row.Sides[record.Scraped].PerSecond()/row.Sides[record.HTTPOff].PerSecond())
		rows = append(rows, row)
	}
	return rows, nil
}

func scrapesOnce(ctx context.Context, on, off *peers.Server, address string, p record.OverloadParameters, round, depth int) (map[string]record.Side, error) {
	const conns = 16
	c := &contest{}
	defer c.close()
	for _, s := range []struct {
		name   string
		server *peers.Server
	}{{record.Scraped, on}, {record.HTTPOff, off}} {
		err := c.enter(s.name, load.Config{
			Dial: s.server.Dial, Protocol: s.server.Get, Conns: conns, Pipeline: depth,
			Batches: batches(p.Cycle, conns, depth), Key: uniform(uint64(round), p.Keys),
		})
		if err != nil {
			return nil, err
		}
	}
	c.loads[0] = &scraped{side: c.loads[0], url: "http://" + address + "/metrics", next: 100 * time.Millisecond}
	return c.play(ctx, record.Turns{Turns: p.Turns, TurnMS: p.TurnMS, WarmUpMS: 10}, round)
}
