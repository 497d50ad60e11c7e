// Package load makes closed-loop load on a socket and measures it: each of a
// number of connections writes a batch of prebuilt requests, reads until all
// are answered, and writes the next. It is as cheap for every protocol: bytes
// are built beforehand and replies are only counted.
//
// Inputs are a Protocol and the shape of the load, output is a Result. Its
// goroutines, one a connection, end before a measurement returns. It checks no
// values; that is for tests.
package load

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
)

// Protocol is what a server speaks.
type Protocol interface {
	// Greet is called once on each new connection.
	Greet(nc net.Conn) error
	// Append appends the request that is number i of its batch, for the key
	// that is number key.
	Append(dst []byte, i int, key uint64) []byte
	// Count counts the whole replies at the start of b, and those of them that
	// were hits (or stored, for writes), and says how many bytes they are. want
	// is how many are still to come.
	Count(b []byte, want int) (replies, hits, size int, err error)
}

// Config is the shape of a load.
type Config struct {
	Dial     func() (net.Conn, error)
	Protocol Protocol
	Conns    int           // at least 1
	Pipeline int           // requests in flight a connection, at least 1
	Duration time.Duration // of Run's measurement
	WarmUp   time.Duration // before it
	// Key returns the key of the nth request of a connection. It is asked
	// before the load begins.
	Key func(conn, n int) uint64
	// Once makes Run send every prebuilt batch once, for as long as that takes,
	// instead of repeating them for Duration: to fill a cache.
	Once bool
	// Batches is how many batches are prebuilt, a connection. Default 64 Ki
	// requests' worth over all connections, at least 16.
	Batches int
}

// Result is what a load came to.
type Result struct {
	Requests int64
	Hits     int64
	Elapsed  time.Duration
	Latency  *hdrhistogram.Histogram // of batches, in nanoseconds
}

// PerSecond is the throughput.
func (r Result) PerSecond() float64 { return float64(r.Requests) / r.Elapsed.Seconds() }

// Add adds what another measurement of the same load came to.
func (r *Result) Add(o Result) {
	if r.Latency == nil {
		r.Latency = newHistogram()
	}
	r.Requests += o.Requests
	r.Hits += o.Hits
	r.Elapsed += o.Elapsed
	r.Latency.Merge(o.Latency)
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(100, int64(time.Minute), 3) }

// Load is open connections with their requests prebuilt. Measurements of it
// may follow one another, so that the sides of a comparison can take turns.
// One goroutine uses it at a time. After an error it can only be closed.
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

// Run makes the load for warmUp, then for d, and tells of the latter.
func (l *Load) Run(ctx context.Context, warmUp, d time.Duration) (Result, error) {
	for _, w := range l.workers {
		w.reset()
	}
	begin := time.Now().Add(warmUp)
	end := begin.Add(d)
	if err := l.each(ctx, func(w *worker) error { return w.repeat(begin, end) }); err != nil {
		return Result{}, err
	}
	return l.result(d), nil
}

// Once sends every prebuilt batch once.
func (l *Load) Once(ctx context.Context) (Result, error) {
	for _, w := range l.workers {
		w.reset()
	}
	begin := time.Now()
	if err := l.each(ctx, (*worker).once); err != nil {
		return Result{}, err
	}
	return l.result(time.Since(begin)), nil
}

// each runs f for all connections at once. When ctx ends, so do their reads
// and writes.
func (l *Load) each(ctx context.Context, f func(*worker) error) error {
	stop := context.AfterFunc(ctx, func() {
		for _, w := range l.workers {
			_ = w.nc.SetDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	var g errgroup.Group
	for _, w := range l.workers {
		g.Go(func() error { return f(w) })
	}
	err := g.Wait()
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (l *Load) result(elapsed time.Duration) Result {
	r := Result{Elapsed: elapsed, Latency: newHistogram()}
	for _, w := range l.workers {
		r.Requests += w.requests
		r.Hits += w.hits
		r.Latency.Merge(w.latency)
	}
	return r
}

// Run opens a load, makes it as its configuration says, and closes it.
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
