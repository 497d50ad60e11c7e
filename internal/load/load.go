// Package load puts closed-loop load on a socket and measures it. Each connection writes
// a batch of prebuilt requests, reads until all of them are answered, and writes the next
// batch. The generator is equally cheap for every protocol: requests are built
// beforehand, and replies are only counted.
//
// Inputs are a Protocol and the shape of the load; output is a Result. There is one
// goroutine per connection; all of them end before a measurement returns. The package
// does not check values; tests do that.
package load

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
)

// Protocol builds the requests of a server's protocol and counts its replies.
type Protocol interface {
	// Greet is called once on each new connection.
	Greet(nc net.Conn) error
	// Append appends request number i of a batch, for key number key.
	Append(dst []byte, i int, key uint64) []byte
	// Count counts the complete replies at the start of b, and how many of them were hits
	// (for writes: stored). It returns their size in bytes. want is the number of replies
	// still to come.
	Count(b []byte, want int) (replies, hits, size int, err error)
}

// Config is the shape of a load.
type Config struct {
	Dial     func() (net.Conn, error)
	Protocol Protocol
	Conns    int           // at least 1
	Pipeline int           // requests in flight per connection, at least 1
	Duration time.Duration // of Run's measurement
	WarmUp   time.Duration // before the measurement
	// Key returns the key of the nth request of a connection. It is called before the
	// load begins.
	Key func(conn, n int) uint64
	// Once makes Run send every prebuilt batch once, however long that takes, instead of
	// repeating the batches for Duration. It serves to fill a cache.
	Once bool
	// Batches is the number of prebuilt batches per connection. Default: 64 Ki requests
	// over all connections, at least 16 batches.
	Batches int
}

// Result is the result of a load.
type Result struct {
	Requests int64
	Hits     int64
	Elapsed  time.Duration
	Latency  *hdrhistogram.Histogram // of batches, in nanoseconds
}

// PerSecond returns the throughput in requests per second.
func (r Result) PerSecond() float64 { return float64(r.Requests) / r.Elapsed.Seconds() }

// NewHistogram returns a histogram of nanoseconds, up to a minute.
func NewHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(100, int64(time.Minute), 3) }

// Load is a set of open connections with prebuilt requests. It can be measured several
// times, so that the sides of a comparison can take turns. It is not safe for concurrent
// use. After an error it can only be closed.
type Load struct {
	workers []*worker
}

// Open connects and builds the requests.
func Open(cfg Config) (*Load, error) {
	if cfg.Conns < 1 || cfg.Pipeline < 1 {
		return nil, fmt.Errorf("load: %d connections × %d requests: give at least 1 of each", cfg.Conns, cfg.Pipeline)
	}
	if cfg.Batches == 0 {
		cfg.Batches = max(16, 64<<10/(cfg.Conns*cfg.Pipeline))
	}
	l := new(Load)
	for i := range cfg.Conns {
		w, err := newWorker(cfg, i)
		if err != nil {
			l.Close()
			return nil, err
		}
		l.workers = append(l.workers, w)
	}
	return l, nil
}

// Close closes the connections.
func (l *Load) Close() {
	for _, w := range l.workers {
		_ = w.nc.Close()
	}
}

// Run runs the load for warmUp, then for d, and returns the result of the second part.
func (l *Load) Run(ctx context.Context, warmUp, d time.Duration) (Result, error) {
	begin := time.Now().Add(warmUp)
	return l.send(ctx, begin, begin.Add(d))
}

// Once sends every prebuilt batch once.
func (l *Load) Once(ctx context.Context) (Result, error) { return l.send(ctx, time.Now(), time.Time{}) }

// send sends batches over all connections at the same time, until a time, and returns the result from begin on.
// A zero time sends every batch once. When ctx ends, reads and writes end.
func (l *Load) send(ctx context.Context, begin, until time.Time) (Result, error) {
	stop := context.AfterFunc(ctx, func() {
		for _, w := range l.workers {
			_ = w.nc.SetDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	var g errgroup.Group
	for _, w := range l.workers {
		g.Go(func() error { return w.send(begin, until) })
	}
	if err := g.Wait(); err != nil {
		return Result{}, cmp.Or(ctx.Err(), err)
	}
	if until.IsZero() {
		until = time.Now()
	}
	r := Result{Elapsed: until.Sub(begin), Latency: NewHistogram()}
	for _, w := range l.workers {
		r.Requests += w.requests
		r.Hits += w.hits
		r.Latency.Merge(w.latency)
	}
	return r, nil
}

// Run opens a load, runs it as configured, and closes it.
func Run(ctx context.Context, cfg Config) (Result, error) {
	l, err := Open(cfg)
	if err != nil {
		return Result{}, err
	}
	defer l.Close()
	if cfg.Once {
		return l.Once(ctx)
	}
	return l.Run(ctx, cfg.WarmUp, cfg.Duration)
}
