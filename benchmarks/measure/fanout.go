package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// fanout is as many processes as there are sidecars, under the same load, that only
// notify each other of writes. It shows what the machine allows.
type fanout struct {
	watched
	servers []*peers.Server
}

func (b *Bench) openFanout(ctx context.Context, p record.Parameters) (stream, error) {
	f := &fanout{watched: watched{bound: time.Duration(p.Bound) * time.Millisecond}}
	if err := f.open(ctx, b, p); err != nil {
		f.close()
		return nil, err
	}
	return f, nil
}

func (f *fanout) open(ctx context.Context, b *Bench, p record.Parameters) error {
	var all []string
	for range p.Hosts {
		address, err := peers.FreeAddress()
		if err != nil {
			return err
		}
		all = append(all, address)
	}
	for i, address := range all {
		o := b.options(p, fmt.Sprint("-", i+1))
		o.Fan = append([]string{address, all[0]}, all[:i]...)
		o.Fan = append(o.Fan, all[i+1:]...)
		s, err := b.start(ctx, record.Fanout, o)
		if err != nil {
			return err
		}
		f.servers = append(f.servers, s)
	}
	for i := range watchedKeys {
		f.keys = append(f.keys, uint64(p.Keys+i))
	}
	for i, s := range f.servers {
		var own []uint64
		for k := i; k < p.Keys; k += p.Hosts {
			own = append(own, uint64(k))
		}
		if err := f.connect(s, p, own); err != nil {
			return err
		}
	}
	return f.begin()
}

func (f *fanout) close() {
	f.watched.close()
	for _, s := range f.servers {
		s.Stop()
	}
}
