package sidecar

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// thisHost implements session.Host: the sidecar, as its sessions see it.
type thisHost struct{ s *Sidecar }

func (h thisHost) Stats() cachesidecar.Stats { return h.s.telemetry.Stats() }

func (h thisHost) Serve(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply {
	return h.s.engine.ServeNow(ctx, q, b, deadline)
}

func (h thisHost) Enter() (leave func(), ok bool) { return h.s.inUse.Done, h.s.enter() }

func (h thisHost) Batch(took time.Duration) {
	h.s.telemetry.Batch(took)
	h.s.engine.Pressure.NoteBatch(took)
}
