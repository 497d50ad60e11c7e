package peers

import (
	"math"
	"net"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Echo is the upper limit: frames as long as the sidecar's request or answer, whichever
// is longer, that come back unchanged.
type Echo struct {
	ungreeted
	Frame int
}

// ungreeted is of protocols that say nothing first.
type ungreeted struct{}

// Greet does nothing.
func (ungreeted) Greet(net.Conn) error { return nil }

// EchoOf returns frames as long as those of the sidecar's GETs and SETs.
func EchoOf(o Options) (get, set Echo) {
	value := make([]byte, o.ValueSize)
	p := load.Sidecar{KeySize: o.KeySize}
	request := p.Append(nil, 0, 0)
	answer := wire.AppendReply(nil, wire.OpGet, &wire.Reply{
		// The ids of the load, too, are five bytes long.
		ID: math.MaxUint32, Status: wire.OK, Value: value,
		Version: math.MaxInt64, TTLMS: time.Hour.Milliseconds(), Source: wire.SourceL2,
	})
	get.Frame = max(len(request), len(answer))
	p.Value = value
	set.Frame = len(p.Append(nil, 0, 0)) // its answer has no value
	return get, set
}

// EchoOfPeers returns frames as long as those between two sidecars, for a GET and for a
// SET.
func EchoOfPeers(o Options) (get, set Echo) {
	value, key := make([]byte, o.ValueSize), load.Key(nil, 0, o.KeySize)
	q := wire.Request{ // ids between sidecars are nine bytes long
		ID: math.MaxUint64, Op: wire.OpGet, TimeoutMS: 1000, Namespace: []byte("default"), Key: key, TTLMS: wire.TTLDefault,
		Options: wire.Fresh | wire.Attest,
	}
	request := wire.AppendRequest(nil, &q)
	answer := wire.AppendReply(nil, wire.OpGet, &wire.Reply{
		ID: math.MaxUint64, Status: wire.OK, Value: value, Version: math.MaxInt64, TTLMS: time.Hour.Milliseconds(), Source: wire.SourceL2,
		Attested: true, AsOf: math.MaxInt64, Owner: []byte("host-1"), Epoch: math.MaxUint64,
	})
	get.Frame = max(len(request), len(answer))
	q.Op, q.Options, q.Value = wire.OpSet, 0, value
	set.Frame = len(wire.AppendRequest(nil, &q))
	return get, set
}

// Append appends a frame.
func (p Echo) Append(dst []byte, _ int, _ uint64) []byte {
	return append(dst, make([]byte, p.Frame)...)
}

// Count counts frames.
func (p Echo) Count(b []byte, want int) (replies, hits, size int, err error) {
	n := min(len(b)/p.Frame, want)
	return n, n, n * p.Frame, nil
}
