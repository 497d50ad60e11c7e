package measure

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// tracked is a redis that notifies clients of every written key (CLIENT TRACKING ON BCAST
// over RESP3), with as many clients as there are hosts.
type tracked struct {
	write pacers
	subs  []*subscriber
	app   rueidis.Client // overwrites, and keeps no copies
	size  int            // of keys
	value string
	first uint64
}

// subscriber records when it is notified of the watched key.
type subscriber struct {
	key  atomic.Pointer[string] // the watched key
	told chan time.Time         // of one notification
}

func (b *Bench) openTracked(ctx context.Context, p record.Parameters) stream {
	server := b.start(ctx, record.Redis, b.options(p, ""))
	t := &tracked{size: p.KeySize, value: string(make([]byte, p.ValueSize)), first: uint64(p.Keys)}
	for i := range p.Hosts {
		draw := uniform(uint64(i), p.Keys)
		t.write = append(t.write, b.openPaced(server, func(n int) uint64 { return draw(0, n) }))
		s := &subscriber{told: make(chan time.Time, 1)}
		o := redisClient(server.Socket)
		o.OnInvalidations = s.invalidated
		b.openRedis(o)
		t.subs = append(t.subs, s)
	}
	o := redisClient(server.Socket)
	o.ClientTrackingOptions, o.DisableCache = nil, true
	t.app = b.openRedis(o)
	return t
}

// openRedis makes a client of redis.
func (b *Bench) openRedis(o rueidis.ClientOption) rueidis.Client {
	c := must(rueidis.NewClient(o))
	b.closes(c.Close)
	return c
}

// redisClient returns the options of a client with one connection that is notified of all
// writes.
func redisClient(socket string) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{socket}, ForceSingleClient: true, PipelineMultiplex: -1, DisableRetry: true,
		ClientTrackingOptions: []string{"BCAST"},
		DialCtxFn: func(ctx context.Context, address string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", address)
		},
	}
}

func (s *subscriber) invalidated(keys []rueidis.RedisMessage) {
	now := time.Now()
	want := s.key.Load()
	if want == nil {
		return
	}
	for i := range keys {
		if k, err := keys[i].ToString(); err == nil && k == *want && s.key.CompareAndSwap(want, nil) {
			s.told <- now
		}
	}
}

func (t *tracked) writers() pacers { return t.write }

// probe counts all subscribers except the first, which stands for the host whose app
// writes.
func (t *tracked) probe(n uint64) ([]time.Duration, error) {
	key := string(load.Key(nil, t.first+n%watchedKeys, t.size))
	others := t.subs[1:]
	for _, s := range others {
		s.key.Store(&key)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lineTimeout*time.Millisecond)
	defer cancel()
	err := t.app.Do(ctx, t.app.B().Set().Key(key).Value(t.value).Build()).Error()
	answered := time.Now()
	if err != nil {
		return nil, err
	}
	delays := make([]time.Duration, len(others))
	for i, s := range others {
		select {
		case at := <-s.told:
			delays[i] = at.Sub(answered)
		case <-ctx.Done():
			return nil, fmt.Errorf("a client is not told within %d ms", lineTimeout)
		}
	}
	return delays, nil
}
