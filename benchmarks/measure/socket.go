package measure

import (
	"context"
	"fmt"
	"net"
	"strings"

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

// entrant is a side of a comparison on sockets.
type entrant struct {
	name string
	dial func() (net.Conn, error)
	// by returns the protocol for a shape; nil: the side takes no part.
	by func(sh shape) load.Protocol
}

// ownEntrant is a server by its own protocol, on its own socket.
func ownEntrant(s *peers.Server) entrant {
	return entrant{s.Name, s.Dial, func(sh shape) load.Protocol {
		switch sh.op {
		case "GET":
			return s.Get
		case "SET":
			return s.Set
		}
		return nil
	}}
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
	var sides []entrant
	for _, s := range servers {
		sides = append(sides, ownEntrant(s))
	}
	return b.socketRows(ctx, sides, p, shapes())
}

func (b *Bench) socketRows(ctx context.Context, sides []entrant, p record.SocketParameters, list []shape) (rows []record.SocketRow, err error) {
	for round := range p.Rounds {
		for _, sh := range list {
			row, err := b.socketRow(ctx, sides, p, sh, round)
			if err != nil {
				return nil, fmt.Errorf("%s at %d × %d: %w", sh.op, sh.conns, sh.pipeline, err)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func (b *Bench) socketRow(ctx context.Context, sides []entrant, p record.SocketParameters, sh shape, round int) (row record.SocketRow, err error) {
	c := &contest{}
	defer c.close()
	for _, e := range sides {
		protocol := e.by(sh)
		if protocol == nil {
			continue
		}
		err := c.enter(e.name, load.Config{
			Dial: e.dial, Protocol: protocol, Conns: sh.conns, Pipeline: sh.pipeline,
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
	var rates []string
	for _, name := range c.names {
		rates = append(rates, fmt.Sprintf("%s %.0f", name, row.Sides[name].PerSecond()/1000))
	}
	b.logf("round %d: %s %2d × %3d, k/s: %s", row.Round, sh.op, sh.conns, sh.pipeline, strings.Join(rates, ", "))
	return row, nil
}
