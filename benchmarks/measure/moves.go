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
func (b *Bench) moves(ctx context.Context, p record.ClusterParameters) (rows []record.ClusterRow, err error) {
	c, err := b.startCluster(ctx, p, p.Hosts, "-move")
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	if _, err := fill(ctx, c.Hosts()[0].Server, p.Fixed); err != nil {
		return nil, err
	}
	restart, err := b.watched(ctx, p, c, func(event func(*peers.Host, string)) error {
		for _, h := range c.Hosts() {
			event(h, record.Asked)
			h.Stop()
			event(h, record.Ended)
			if err := arrive(ctx, c, h, event); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("a rolling restart: %w", err)
	}
	more, err := c.Place()
	if err != nil {
		return nil, err
	}
	join, err := b.watched(ctx, p, c, func(event func(*peers.Host, string)) error { return arrive(ctx, c, more, event) })
	if err != nil {
		return nil, fmt.Errorf("a join: %w", err)
	}
	rows = []record.ClusterRow{{Part: record.Restart, Round: 1, Moves: restart}, {Part: record.Join, Round: 1, Moves: join}}
	for _, r := range rows {
		lowest, mean := r.Moves.Ratios()
		b.logf("%s: hits %.2f %% in the lowest second, %.2f %% in all %d", r.Part, 100*lowest, 100*mean, len(r.Moves.Windows))
	}
	return rows, nil
}

// arrive starts a host, and waits until all hosts see it as a member.
func arrive(ctx context.Context, c *peers.Cluster, h *peers.Host, event func(*peers.Host, string)) error {
	event(h, record.Started)
	if err := h.Start(ctx); err != nil {
		return err
	}
	event(h, record.Serves)
	if err := c.Agreed(ctx); err != nil {
		return err
	}
	event(h, record.In)
	return nil
}

// watched reads while happens runs, and returns whole windows. Reads go through the hosts
// that serve: an app returns to its sidecar as soon as the sidecar answers.
func (b *Bench) watched(ctx context.Context, p record.ClusterParameters, c *peers.Cluster, happens func(event func(*peers.Host, string)) error) (*record.Moves, error) {
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
	m := &record.Moves{}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	done := r.start(reading)
	time.Sleep(quiet)
	err := happens(func(h *peers.Host, what string) {
		m.Events = append(m.Events, record.Event{MS: time.Since(r.begun).Milliseconds(), Host: h.Node(), What: what})
	})
	time.Sleep(quiet)
	stop()
	<-done
	if err != nil {
		return nil, err
	}
	whole := int(time.Since(r.begun) / time.Second)
	m.Windows = r.windows()
	m.Windows = m.Windows[:min(whole, len(m.Windows))]
	if len(m.Windows) == 0 {
		return nil, fmt.Errorf("nothing was read")
	}
	return m, ctx.Err()
}
