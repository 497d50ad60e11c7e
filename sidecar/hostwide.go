package sidecar

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// serve is serveNow, but also waits until all hosts have acknowledged a write with
// ack=all.
func (s *Sidecar) serve(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	r := s.serveNow(ctx, q, b, deadline)
	if s.engine.Acks.Wanted(q) {
		b.Release()
		r = s.engine.Acks.Wait(ctx, q, r, deadline)
	}
	return r
}

// serveNow is Engine.ServeNow, but also answers requests that concern the whole sidecar.
func (s *Sidecar) serveNow(
	ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	switch q.Op {
	case wire.OpStats:
		return s.engine.Admin.Stats(ctx, q, s.telemetry.Stats())
	case wire.OpVerify:
		return s.verify(q, deadline)
	case wire.OpReload:
		return answerReload(ctx, s.cfg.Reload)
	case wire.OpDrain:
		return s.ending.drain(ctx, q, deadline)
	}
	return s.engine.ServeNow(ctx, q, b, deadline)
}
