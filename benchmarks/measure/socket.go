package measure

import (
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// shape is one load on the socket.
type shape struct {
	op              string
	conns, pipeline int
	sweep           bool // for the plots only
}

// shapes returns the shapes of the tables, then those that only the sweeps have.
func shapes() (list []shape) {
	for _, op := range []string{"GET", "SET"} {
		for _, s := range [][2]int{{1, 1}, {16, 1}, {1, 64}, {16, 64}} {
			list = append(list, shape{op, s[0], s[1], false})
		}
	}
	for n := 2; n <= 64; n *= 2 {
		if n != 16 {
			list = append(list, shape{"GET", n, 1, true})
		}
	}
	for n := 2; n <= 128; n *= 2 {
		if n != 64 {
			list = append(list, shape{"GET", 16, n, true})
		}
	}
	return list
}

// socketLimit is the memory of each server: the sidecar's default.
const socketLimit = 256 << 20

// Socket measures throughput and latency of the sidecar against echo, redis and
// memcached.
func (b *Bench) Socket(ctx context.Context, p record.SocketParameters) (rows []record.SocketRow, err error) {
	o := peers.Options{Bytes: socketLimit, KeySize: p.KeySize, ValueSize: p.ValueSize}
	servers, stop, err := b.startAll(ctx, []string{record.Echo, record.Sidecar, record.Redis, record.Memcached}, o)
	if err != nil {
		return nil, err
	}
	defer stop()
	for _, s := range servers {
		if s.Name == record.Echo {
			continue
		}
		if _, err := fill(ctx, s, p.Keys); err != nil {
			return nil, err
		}
	}
	for round := range p.Rounds {
		for _, sh := range shapes() {
			row, err := b.socketRow(ctx, servers, p, sh, round)
			if err != nil {
				return nil, fmt.Errorf("%s at %d × %d: %w", sh.op, sh.conns, sh.pipeline, err)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (b *Bench) socketRow(ctx context.Context, servers []*peers.Server, p record.SocketParameters, sh shape, round int) (row record.SocketRow, err error) {
	c := &contest{}
	defer c.close()
	for _, s := range servers {
		protocol := s.Get
		if sh.op == "SET" {
			protocol = s.Set
		}
		err := c.enter(s.Name, load.Config{
			Dial: s.Dial, Protocol: protocol, Conns: sh.conns, Pipeline: sh.pipeline,
			Batches: batches(p.Cycle, sh.conns, sh.pipeline), Key: uniform(uint64(round), p.Keys),
		})
		if err != nil {
			return row, err
		}
	}
	turns := p.Turns
	if sh.sweep {
		turns.Turns = p.SweepTurns
	}
	row = record.SocketRow{Round: round + 1, Op: sh.op, Conns: sh.conns, Pipeline: sh.pipeline}
	if row.Sides, err = c.play(ctx, turns, round); err != nil {
		return row, err
	}
	side := func(name string) float64 { return row.Sides[name].PerSecond() / 1000 }
	b.logf("round %d: %s %2d × %3d: echo %.0f k/s, sidecar %.0f, redis %.0f, memcached %.0f", row.Round, sh.op, sh.conns, sh.pipeline,
		side(record.Echo), side(record.Sidecar), side(record.Redis), side(record.Memcached))
	return row, nil
}
