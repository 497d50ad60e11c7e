// Package load makes closed-loop load on a socket and measures it: each of a
// number of connections writes a batch of prebuilt requests, reads until all
// are answered, and writes the next. It is as cheap for every protocol: bytes
// are built beforehand and replies are only counted.
//
// Inputs are a Protocol and the shape of the load, output is a Result. Its
// goroutines, one a connection, end before Run returns. It checks no values;
// that is for tests.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	Duration time.Duration // of the measurement
	WarmUp   time.Duration // before it
	// Key returns the key of the nth request of a connection. It is asked
	// before the load begins.
	Key func(conn, n int) uint64
	// Once sends every prebuilt batch once, for as long as that takes, instead
	// of repeating them for Duration: to fill a cache.
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

// Run makes the load.
func Run(ctx context.Context, cfg Config) (Result, error) {
	if cfg.Conns < 1 || cfg.Pipeline < 1 {
		return Result{}, fmt.Errorf("load: %d connections × %d requests: give at least 1 of each", cfg.Conns, cfg.Pipeline)
	}
	if cfg.Batches == 0 {
		cfg.Batches = max(16, 64<<10/(cfg.Conns*cfg.Pipeline))
	}
	workers := make([]*worker, cfg.Conns)
	for i := range workers {
		w, err := newWorker(cfg, i)
		if err != nil {
			return Result{}, err
		}
		defer w.nc.Close()
		workers[i] = w
	}
	stop := context.AfterFunc(ctx, func() {
		for _, w := range workers {
			_ = w.nc.SetDeadline(time.Unix(1, 0))
		}
	})
	defer stop()
	begin := time.Now().Add(cfg.WarmUp)
	end := begin.Add(cfg.Duration)
	if cfg.Once {
		begin, end = time.Now(), time.Time{}
	}
	var g errgroup.Group
	for _, w := range workers {
		g.Go(func() error { return w.run(begin, end) })
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return Result{}, err
	}
	r := Result{Elapsed: cfg.Duration, Latency: newHistogram()}
	if cfg.Once {
		r.Elapsed = time.Since(begin)
	}
	for _, w := range workers {
		r.Requests += w.requests
		r.Hits += w.hits
		r.Latency.Merge(w.latency)
	}
	return r, nil
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(100, int64(time.Minute), 3) }

type worker struct {
	cfg     Config
	nc      net.Conn
	batches [][]byte
	buf     []byte

	requests, hits int64
	latency        *hdrhistogram.Histogram
}

func newWorker(cfg Config, conn int) (*worker, error) {
	nc, err := cfg.Dial()
	if err != nil {
		return nil, err
	}
	if err := cfg.Protocol.Greet(nc); err != nil {
		_ = nc.Close()
		return nil, err
	}
	w := &worker{cfg: cfg, nc: nc, batches: make([][]byte, cfg.Batches), buf: make([]byte, 256<<10), latency: newHistogram()}
	for b := range w.batches {
		for i := range cfg.Pipeline {
			w.batches[b] = cfg.Protocol.Append(w.batches[b], i, cfg.Key(conn, b*cfg.Pipeline+i))
		}
	}
	return w, nil
}

// run repeats the batches and counts those sent between begin and end; without
// an end it sends each once.
func (w *worker) run(begin, end time.Time) error {
	for n := 0; ; n++ {
		start := time.Now()
		if end.IsZero() && n == len(w.batches) || !end.IsZero() && !start.Before(end) {
			return nil
		}
		hits, err := w.exchange(w.batches[n%len(w.batches)])
		if err != nil {
			return err
		}
		if !start.Before(begin) {
			w.requests += int64(w.cfg.Pipeline)
			w.hits += int64(hits)
			_ = w.latency.RecordValue(int64(time.Since(start)))
		}
	}
}

// exchange writes a batch and reads its replies.
func (w *worker) exchange(batch []byte) (hits int, err error) {
	if _, err := w.nc.Write(batch); err != nil {
		return 0, err
	}
	have := 0
	for want := w.cfg.Pipeline; want > 0; {
		n, err := w.nc.Read(w.buf[have:])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return hits, err
		}
		have += n
		replies, hit, size, err := w.cfg.Protocol.Count(w.buf[:have], want)
		if err != nil {
			return hits, err
		}
		want -= replies
		hits += hit
		have = copy(w.buf, w.buf[size:have])
		if have == len(w.buf) {
			w.buf = append(w.buf, make([]byte, len(w.buf))...)
		}
	}
	if have > 0 {
		return hits, fmt.Errorf("load: %d bytes follow the last reply", have)
	}
	return hits, nil
}
