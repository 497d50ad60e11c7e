package measure

import (
	"context"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// multiGet is the op of gets with multiKeys keys on one line. One line is in flight on each connection, and each key
// counts as a request.
const (
	multiGet  = "MGET"
	multiKeys = 64
)

// endpointShapes are the shapes of load on the endpoint for memcached's protocol.
var endpointShapes = []shape{
	{op: "GET", conns: 16, pipeline: 1}, {op: "GET", conns: 16, pipeline: 64},
	{op: "SET", conns: 16, pipeline: 1}, {op: "SET", conns: 16, pipeline: 64},
	{op: multiGet, conns: 16, pipeline: multiKeys},
}

// Endpoint measures a sidecar's endpoint for memcached's protocol against the socket of the
// same sidecar, and against memcached.
func (b *Bench) Endpoint(ctx context.Context, p record.Parameters) {
	o := b.options(p, "")
	o.Memcached = true
	servers := b.startFilled(ctx, p, o, record.Sidecar, record.Memcached)
	sidecar, memcached := servers[0], servers[1]
	b.playAll(ctx, []entrant{
		ownEntrant(record.OwnProtocol, sidecar),
		{record.EndpointText, sidecar, sidecar.DialMemcached, text(p)},
		{record.EndpointMeta, sidecar, sidecar.DialMemcached, meta(p)},
		{record.MemcachedText, memcached, memcached.DialMemcached, text(p)},
		{record.MemcachedMeta, memcached, memcached.DialMemcached, meta(p)},
	}, p, endpointShapes)
}

func text(p record.Parameters) map[string]load.Protocol {
	return map[string]load.Protocol{
		"GET":    peers.MemcachedText{KeySize: p.KeySize},
		"SET":    peers.MemcachedText{KeySize: p.KeySize, Value: value(p.ValueSize)},
		multiGet: peers.MemcachedText{KeySize: p.KeySize, Keys: multiKeys},
	}
}

// meta has no command for many keys.
func meta(p record.Parameters) map[string]load.Protocol {
	return map[string]load.Protocol{
		"GET": peers.Memcached{KeySize: p.KeySize, Lean: true},
		"SET": peers.Memcached{KeySize: p.KeySize, Value: value(p.ValueSize)},
	}
}
