package measure

import (
	"bytes"
	"context"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// multiGet is the op of gets with as many keys on one line as the shape's pipeline says. One line is in flight on each
// connection, and each key counts as a request.
const multiGet = "MGET"

// endpointShapes are the shapes of load on the endpoint for memcached's protocol.
var endpointShapes = []shape{
	{op: "GET", conns: 16, pipeline: 1}, {op: "GET", conns: 16, pipeline: 64},
	{op: "SET", conns: 16, pipeline: 1}, {op: "SET", conns: 16, pipeline: 64},
	{op: multiGet, conns: 16, pipeline: 64},
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

func text(p record.Parameters) func(shape) load.Protocol {
	return func(sh shape) load.Protocol {
		switch sh.op {
		case "GET":
			return peers.MemcachedText{KeySize: p.KeySize}
		case "SET":
			return peers.MemcachedText{KeySize: p.KeySize, Value: bytes.Repeat([]byte("v"), p.ValueSize)}
		}
		return peers.MemcachedText{KeySize: p.KeySize, Keys: sh.pipeline}
	}
}

// meta has no command for many keys.
func meta(p record.Parameters) func(shape) load.Protocol {
	return func(sh shape) load.Protocol {
		switch sh.op {
		case "GET":
			return peers.Memcached{KeySize: p.KeySize, Lean: true}
		case "SET":
			return peers.Memcached{KeySize: p.KeySize, Value: bytes.Repeat([]byte("v"), p.ValueSize)}
		}
		return nil
	}
}
