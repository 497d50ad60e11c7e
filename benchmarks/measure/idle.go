package measure

import (
	"context"
	"fmt"
	"net"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// IdleKeys is the number of keys that are set beforehand, so that there is something to
// get.
const IdleKeys = 1000

// Idle measures the memory of idle connections in each server: after one GET, and after a
// batch of GETs. Each round has new processes.
func (b *Bench) Idle(ctx context.Context, p record.Parameters) {
	names := []string{record.Sidecar, record.Redis, record.Memcached}
	buf := make([]byte, replyBuffer)
	for round := range p.Rounds {
		for _, name := range rotated(names, round) {
			within(fmt.Sprintf("%d connections to %s", p.Conns, name), func() { b.idle(ctx, name, p, buf) })
		}
	}
}

func (b *Bench) idle(ctx context.Context, name string, p record.Parameters, buf []byte) {
	defer b.scope()()
	s := b.start(ctx, name, b.options(p, ""))
	fill(ctx, s, p.Keys)
	before := must(s.Settled(ctx))
	h := b.hold(ctx, s, p.Conns, buf)
	one := must(s.Settled(ctx))
	check(h.ask(ctx, s.Get, p.Pipeline, buf))
	batch := must(s.Settled(ctx))
	each := func(bytes int64) float64 { return float64(bytes-before) / 1024 / float64(p.Conns) }
	b.put(record.Commas(p.Conns)+" idle connections", name, figure{"KiB a connection after one GET", each(one)},
		figure{fmt.Sprintf("KiB a connection after a batch of %d GETs", p.Pipeline), each(batch)})
}

// replyBuffer is the size of the longest batch of replies, in bytes.
const replyBuffer = 1 << 20

// held is connections that are open and idle between requests.
type held []net.Conn

// hold connects and sends one GET on each connection before it makes the next, so that
// the server's backlog does not overflow. The connections stay until the end of the scope.
func (b *Bench) hold(ctx context.Context, s *peers.Server, n int, buf []byte) (h held) {
	check(needFiles(n))
	for range n {
		h = append(h, b.connect(s.Dial, s.Get))
		check(h[len(h)-1:].ask(ctx, s.Get, 1, buf))
	}
	return h
}

// ask sends a batch on one connection after another, and reads the replies.
func (h held) ask(ctx context.Context, p load.Protocol, pipeline int, buf []byte) error {
	var batch []byte
	for i := range pipeline {
		batch = p.Append(batch, i, uint64(i%IdleKeys))
	}
	for _, nc := range h {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, err := load.Exchange(nc, p, batch, pipeline, &buf); err != nil {
			return err
		}
	}
	return nil
}
