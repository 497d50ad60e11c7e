package measure

import (
	"bytes"
	"context"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// endpointShapes are the shapes of load on the endpoint for memcached's protocol.
var endpointShapes = []shape{
	{op: "GET", conns: 16, pipeline: 1}, {op: "GET", conns: 16, pipeline: 64},
	{op: "SET", conns: 16, pipeline: 1}, {op: "SET", conns: 16, pipeline: 64},
	{op: record.MultiGet, conns: 16, pipeline: 64},
}

// Endpoint measures a sidecar's endpoint for memcached's protocol against the socket of the
// same sidecar, and against memcached.
func (b *Bench) Endpoint(ctx context.Context, p record.SocketParameters) ([]record.SocketRow, error) {
	o := peers.Options{Bytes: socketLimit, KeySize: p.KeySize, ValueSize: p.ValueSize, Memcached: true}
	servers, stop, err := b.startAll(ctx, []string{record.Sidecar, record.Memcached}, o)
	if err != nil {
		return nil, err
	}
	defer stop()
	for _, s := range servers {
		if _, err := fill(ctx, s, p.Keys); err != nil {
			return nil, err
		}
	}
	sidecar, memcached := servers[0], servers[1]
	return b.socketRows(ctx, []entrant{
		ownEntrant(sidecar),
		{record.EndpointText, sidecar.DialMemcached, text(p.Data)},
		{record.EndpointMeta, sidecar.DialMemcached, meta(p.Data)},
		{record.MemcachedText, memcached.DialMemcached, text(p.Data)},
		{record.MemcachedMeta, memcached.DialMemcached, meta(p.Data)},
	}, p, endpointShapes)
}

func text(d record.Data) func(shape) load.Protocol {
	return func(sh shape) load.Protocol {
		switch sh.op {
		case "GET":
			return peers.MemcachedText{KeySize: d.KeySize}
		case "SET":
			return peers.MemcachedText{KeySize: d.KeySize, Value: bytes.Repeat([]byte("v"), d.ValueSize)}
		}
		return peers.MemcachedText{KeySize: d.KeySize, Keys: sh.pipeline}
	}
}

// meta has no command for many keys.
func meta(d record.Data) func(shape) load.Protocol {
	return func(sh shape) load.Protocol {
		switch sh.op {
		case "GET":
			return peers.Memcached{KeySize: d.KeySize, Lean: true}
		case "SET":
			return peers.Memcached{KeySize: d.KeySize, Value: bytes.Repeat([]byte("v"), d.ValueSize)}
		}
		return nil
	}
}
