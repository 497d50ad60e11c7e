package measure

import (
	"context"
	"fmt"
	"net"

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

// String returns what the page calls the load.
func (sh shape) String() string {
	switch sh.op {
	case "GET":
		return fmt.Sprintf("GET hit, %d × %d", sh.conns, sh.pipeline)
	case multiGet:
		return fmt.Sprintf("GET hits, %d keys a line, %d × 1", sh.pipeline, sh.conns)
	}
	return fmt.Sprintf("%s, %d × %d", sh.op, sh.conns, sh.pipeline)
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
	name   string
	server *peers.Server
	dial   func() (net.Conn, error)
	by     map[string]load.Protocol // by op; without one the side takes no part
}

// ownEntrant is a server by its own protocol, on its own socket.
func ownEntrant(name string, s *peers.Server) entrant {
	return entrant{name, s, s.Dial, map[string]load.Protocol{"GET": s.Get, "SET": s.Set}}
}

// enterAll adds the sides that take part in a load.
func (c *contest) enterAll(sides []entrant, p *record.Parameters, sh shape, round int) {
	for _, e := range sides {
		protocol := e.by[sh.op]
		if protocol == nil {
			continue
		}
		c.enter(e.name, load.Config{
			Dial: e.dial, Protocol: protocol, Conns: sh.conns, Pipeline: sh.pipeline,
			Batches: batches(p.Cycle, sh.conns, sh.pipeline), Key: uniform(uint64(round), p.Keys),
		})
	}
}

// Socket measures throughput and latency of the sidecar against echo, redis and
// memcached.
func (b *Bench) Socket(ctx context.Context, p record.Parameters) {
	servers := b.startFilled(ctx, p, b.options(p, ""), record.Sidecar, record.Redis, record.Memcached)
	servers = append(servers, b.start(ctx, record.Echo, b.options(p, "")))
	var sides []entrant
	for _, s := range servers {
		sides = append(sides, ownEntrant(s.Name, s))
	}
	b.playAll(ctx, sides, p, shapes())
}

// playAll measures all loads in each round.
func (b *Bench) playAll(ctx context.Context, sides []entrant, p record.Parameters, list []shape) {
	for round := range p.Rounds {
		for _, sh := range list {
			b.playShape(ctx, sides, p, sh, round, func(*contest) {})
		}
	}
}

// playShape measures one load, once change has had the contest.
func (b *Bench) playShape(ctx context.Context, sides []entrant, p record.Parameters, sh shape, round int, change func(*contest)) {
	c := &contest{}
	defer c.close()
	c.enterAll(sides, &p, sh, round)
	change(c)
	if sh.sweep {
		p.Turns = p.SweepTurns
	}
	b.play(ctx, c, &p, round, sh.String())
}
