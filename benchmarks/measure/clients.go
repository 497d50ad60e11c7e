package measure

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/bradfitz/gomemcache/memcache"
	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// goClient is a client as a Go program has it.
type goClient struct {
	get   func(ctx context.Context, key string) (value []byte, err error)
	close func()
}

// poolConns is how many connections a client of a pool may keep: one for each goroutine.
const poolConns = 64

// nearBytes is the size of a cache in the process: ample.
const nearBytes = 64 << 20

// openClient makes the client of a side.
func openClient(ctx context.Context, side string, socket string) (goClient, error) {
	switch side {
	case record.OursSocket, record.OursNear, record.OursShared:
		cfg := client.Config{Socket: socket, DialTimeout: 10 * time.Second, NoSharedMemory: side != record.OursShared}
		if side == record.OursNear {
			cfg.NearCache = client.NearCache{Bytes: nearBytes, Bound: time.Second}
		}
		c, err := client.Dial(ctx, cfg)
		if err != nil {
			return goClient{}, err
		}
		return goClient{func(ctx context.Context, key string) ([]byte, error) {
			it, err := c.Get(ctx, key, cachesidecar.GetOptions{})
			return it.Value, err
		}, func() { c.Close() }}, nil
	case record.Gomemcache:
		c := memcache.New(socket)
		c.MaxIdleConns = poolConns
		return goClient{func(_ context.Context, key string) ([]byte, error) {
			it, err := c.Get(key)
			if err != nil {
				return nil, err
			}
			return it.Value, nil
		}, func() { _ = c.Close() }}, nil
	case record.GoRedis:
		c := redis.NewClient(&redis.Options{Network: "unix", Addr: socket, PoolSize: poolConns})
		return goClient{func(ctx context.Context, key string) ([]byte, error) {
			return c.Get(ctx, key).Bytes()
		}, func() { c.Close() }}, nil
	case record.RueidisPlain, record.RueidisNear:
		return openRueidis(side, socket)
	}
	return goClient{}, fmt.Errorf("no client %q", side)
}

func openRueidis(side, socket string) (goClient, error) {
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{socket}, ForceSingleClient: true, DisableCache: side == record.RueidisPlain,
		CacheSizeEachConn: nearBytes,
		DialCtxFn: func(ctx context.Context, address string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			return d.DialContext(ctx, "unix", address)
		},
	})
	if err != nil {
		return goClient{}, err
	}
	get := func(ctx context.Context, key string) ([]byte, error) {
		return c.Do(ctx, c.B().Get().Key(key).Build()).AsBytes()
	}
	if side == record.RueidisNear {
		get = func(ctx context.Context, key string) ([]byte, error) {
			return c.DoCache(ctx, c.B().Get().Key(key).Cache(), time.Hour).AsBytes()
		}
	}
	return goClient{get, c.Close}, nil
}

// clientLoad is GETs of a client by some goroutines.
type clientLoad struct {
	client     goClient
	keys       []string
	goroutines int
	size       int // of values

	calls, mallocs uint64 // of all measured turns
}

// latencyOf is how many calls there are for each whose latency is taken: reading the clock
// takes as long as the fastest of them.
const latencyOf = 8

var errValue = errors.New("a value of another length")

// Run implements side.
func (l *clientLoad) Run(ctx context.Context, warmUp, d time.Duration) (load.Result, error) {
	if _, err := l.run(ctx, warmUp); err != nil {
		return load.Result{}, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := l.run(ctx, d)
	runtime.ReadMemStats(&after)
	l.calls += uint64(r.Requests)
	l.mallocs += after.Mallocs - before.Mallocs
	return r, err
}

func (l *clientLoad) run(ctx context.Context, d time.Duration) (load.Result, error) {
	var stop atomic.Bool
	time.AfterFunc(d, func() { stop.Store(true) })
	results := make([]load.Result, l.goroutines)
	var g errgroup.Group
	began := time.Now()
	for i := range l.goroutines {
		g.Go(func() error { return l.goroutine(ctx, &stop, i, &results[i]) })
	}
	err := g.Wait()
	sum := load.Result{Elapsed: time.Since(began), Latency: hdrhistogram.New(1, int64(time.Minute), 3)}
	for _, r := range results {
		sum.Requests += r.Requests
		sum.Hits += r.Requests
		sum.Latency.Merge(r.Latency)
	}
	return sum, err
}

func (l *clientLoad) goroutine(ctx context.Context, stop *atomic.Bool, i int, r *load.Result) error {
	r.Latency = hdrhistogram.New(1, int64(time.Minute), 3)
	draw := uniform(uint64(i), len(l.keys))
	order := make([]uint16, 1024)
	for n := range order {
		order[n] = uint16(draw(i, n))
	}
	for n := 0; !stop.Load(); n++ {
		key := l.keys[order[n%len(order)]]
		timed := n%latencyOf == 0
		var began time.Time
		if timed {
			began = time.Now()
		}
		value, err := l.client.get(ctx, key)
		if err == nil && len(value) != l.size {
			err = errValue
		}
		if err != nil {
			return fmt.Errorf("GET %s: %w", key, err)
		}
		if timed {
			_ = r.Latency.RecordValue(int64(time.Since(began)))
		}
		r.Requests++
	}
	return nil
}

// clientSides are the sides with their servers, ours first.
var clientSides = []struct{ name, server string }{
	{record.OursSocket, record.Sidecar}, {record.OursNear, record.Sidecar}, {record.OursShared, record.Sidecar},
	{record.Gomemcache, record.Memcached}, {record.GoRedis, record.Redis}, {record.RueidisPlain, record.Redis}, {record.RueidisNear, record.Redis},
}

// coldSides are the sides that hold values in the process, or read them there.
var coldSides = []string{record.OursNear, record.OursShared, record.RueidisNear}

// Clients measures GETs of Go clients, each with its own server: the product's over the
// socket, with a near cache and with shared memory, and those of redis and memcached.
func (b *Bench) Clients(ctx context.Context, p record.Parameters) {
	c := &clients{b: b, p: p, sockets: map[string]string{}}
	for _, s := range b.startFilled(ctx, p, b.options(p, ""), record.Sidecar, record.Redis, record.Memcached) {
		for _, side := range clientSides {
			if side.server == s.Name {
				c.sockets[side.name] = s.Socket
			}
		}
	}
	for i := range p.Keys {
		c.keys = append(c.keys, string(load.Key(nil, uint64(i), p.KeySize)))
	}
	for round := range p.Rounds {
		for _, n := range []int{1, 16, 64} {
			within(fmt.Sprintf("%d goroutines", n), func() { c.warm(ctx, round, n) })
		}
		within("a process that starts", func() { c.cold(ctx, round) })
	}
}

// clients is the comparison of clients.
type clients struct {
	b       *Bench
	p       record.Parameters
	sockets map[string]string // by side
	keys    []string
}

// warm measures all sides with a number of goroutines.
func (c *clients) warm(ctx context.Context, round, goroutines int) {
	play := &contest{}
	for _, side := range clientSides {
		a := must(openClient(ctx, side.name, c.sockets[side.name]))
		defer a.close()
		for range 3 { // caches in the process are warm
			for _, key := range c.keys {
				must(a.get(ctx, key))
			}
		}
		play.add(side.name, &clientLoad{client: a, keys: c.keys, goroutines: goroutines, size: c.p.ValueSize})
	}
	play.play(ctx, &c.p, round)
	shape := "GET hits, 1 goroutine"
	if goroutines > 1 {
		shape = fmt.Sprintf("GET hits, %d goroutines", goroutines)
	}
	for _, s := range play.sides {
		l := s.side.(*clientLoad)
		c.b.put(shape, s.name, append([]figure{{"k/s", s.sum.PerSecond() / 1000}, {"ns a hit", 1e9 / s.sum.PerSecond()},
			{"allocations a GET", float64(l.mallocs) / float64(max(1, l.calls))}}, percentiles("", "µs", s.sum.Latency)...)...)
	}
}

// cold measures the first GETs of clients that have just been made, the connecting included.
// Other processes have read the keys before.
func (c *clients) cold(ctx context.Context, round int) {
	for _, side := range rotated(coldSides, round) {
		began := time.Now()
		a := must(openClient(ctx, side, c.sockets[side]))
		draw := uniform(uint64(round), len(c.keys))
		for n := range c.p.ColdGets {
			must(a.get(ctx, c.keys[draw(0, n)]))
		}
		took := time.Since(began)
		a.close()
		c.b.put(fmt.Sprintf("first %s GETs of a process", record.Commas(c.p.ColdGets)), side, figure{"k/s", float64(c.p.ColdGets) / took.Seconds() / 1000})
	}
}
