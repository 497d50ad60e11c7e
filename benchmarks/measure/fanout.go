package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// openFanout starts as many processes as there are sidecars, under the same load, that only
// notify each other of writes. It shows what the machine allows.
func (b *Bench) openFanout(ctx context.Context, p record.Parameters) stream {
	f := &watched{bound: time.Duration(p.Bound) * time.Millisecond}
	for i := range watchedKeys {
		f.keys = append(f.keys, uint64(p.Keys+i))
	}
	all := addresses(p.Hosts)
	var servers []*peers.Server
	for i, address := range all {
		o := b.options(p, fmt.Sprint("-", i+1))
		o.Fan = append([]string{address, all[0]}, all[:i]...)
		o.Fan = append(o.Fan, all[i+1:]...)
		servers = append(servers, b.start(ctx, record.Fanout, o))
	}
	for i, s := range servers {
		var own []uint64
		for k := i; k < p.Keys; k += p.Hosts {
			own = append(own, uint64(k))
		}
		f.connect(b, s, p, own)
	}
	f.writeFirst()
	return f
}
