// Package member drives one node of a cache that lives inside a program. Each node runs
// in a process of its own. The package chooses keys that other nodes own, makes the load,
// and executes orders.
//
// Inputs are a Node and orders, one JSON value each. Outputs are answers, one JSON value
// each. Its goroutines, one per worker, end before an order is answered. It knows no
// library; those are in cmd/member.
package member

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Node is a node of one of the libraries.
type Node interface {
	// Elsewhere reports whether another node owns a key.
	Elsewhere(ctx context.Context, key string) (bool, error)
	// Set stores a value for Get, if the library can store.
	Set(ctx context.Context, key string, value []byte) error
	// Get returns the value. The caller owns the bytes.
	Get(ctx context.Context, key string) ([]byte, error)
}

// Config describes the load on a node.
type Config struct {
	Keys      int // keys that another node owns
	KeySize   int // bytes
	ValueSize int // bytes
	Workers   int // concurrent workers, each with one request at a time
}

// Value returns the value of every key.
func (c Config) Value() []byte { return bytes.Repeat([]byte("v"), c.ValueSize) }

// Ready is the first line of a member's output. It means that the node serves, or that it
// can take orders.
type Ready struct {
	Ready bool `json:"ready"`
}

// Order makes the load for Turn, after a warm-up that does not count.
type Order struct {
	WarmUp time.Duration `json:"warm_up_ns"`
	Turn   time.Duration `json:"turn_ns"`
}

// Answer is the result of a load.
type Answer struct {
	Requests int64                  `json:"requests"`
	Hits     int64                  `json:"hits"`
	Latency  *hdrhistogram.Snapshot `json:"latency"` // nanoseconds
	Error    string                 `json:"error,omitempty"`
}

// Member makes load on a node.
type Member struct {
	cfg     Config
	node    Node
	workers []*worker
}

// New finds keys that another node owns, stores their values, and reads each one back to
// compare it byte for byte.
func New(ctx context.Context, cfg Config, node Node) (*Member, error) {
	m := &Member{cfg: cfg, node: node}
	keys, err := m.find(ctx)
	if err != nil {
		return nil, err
	}
	for i := range cfg.Workers {
		w := &worker{node: node, size: cfg.ValueSize, latency: load.NewHistogram()}
		for at := i; at < len(keys); at += cfg.Workers {
			w.keys = append(w.keys, keys[at])
		}
		m.workers = append(m.workers, w)
	}
	value := cfg.Value()
	var g errgroup.Group
	for _, w := range m.workers {
		g.Go(func() error { return w.fill(ctx, value) })
	}
	return m, g.Wait()
}

// find looks for cfg.Keys keys that another node owns, among ten times as many.
func (m *Member) find(ctx context.Context) ([]string, error) {
	const atOnce = 32
	var next, found atomic.Int64
	var mu sync.Mutex
	var keys []string
	var g errgroup.Group
	for range atOnce {
		g.Go(func() error {
			for found.Load() < int64(m.cfg.Keys) {
				n, most := next.Add(1)-1, 10*int64(m.cfg.Keys)
				if n >= most {
					return fmt.Errorf("only %d of %d keys belong to another node: it is not there", found.Load(), most)
				}
				key := string(load.Key(nil, uint64(n), m.cfg.KeySize))
				elsewhere, err := m.node.Elsewhere(ctx, key)
				if err != nil {
					return fmt.Errorf("who owns %s: %w", key, err)
				}
				if elsewhere && found.Add(1) <= int64(m.cfg.Keys) {
					mu.Lock()
					keys = append(keys, key)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	return keys, g.Wait()
}

// Serve executes orders until the end of in.
func (m *Member) Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	return serve(in, out, func(o Order) Answer { return m.run(ctx, o) })
}

// serve reports that a node is ready, and answers orders until the end of in.
func serve[O, A any](in io.Reader, out io.Writer, execute func(O) A) error {
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	if err := answers.Encode(Ready{true}); err != nil {
		return err
	}
	for {
		var o O
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := answers.Encode(execute(o)); err != nil {
			return err
		}
	}
}

// run makes the load once.
func (m *Member) run(ctx context.Context, o Order) Answer {
	begin := time.Now().Add(o.WarmUp)
	end := begin.Add(o.Turn)
	var g errgroup.Group
	for _, w := range m.workers {
		g.Go(func() error { return w.repeat(ctx, begin, end) })
	}
	if err := g.Wait(); err != nil {
		return Answer{Error: err.Error()}
	}
	var a Answer
	latency := load.NewHistogram()
	for _, w := range m.workers {
		a.Requests += w.requests
		a.Hits += w.hits
		latency.Merge(w.latency)
	}
	a.Latency = latency.Export()
	return a
}

// worker cycles through its keys, so that it always asks for the key that it has not
// asked for the longest.
type worker struct {
	node Node
	size int
	keys []string
	next int

	requests, hits int64
	latency        *hdrhistogram.Histogram
}

func (w *worker) fill(ctx context.Context, value []byte) error {
	for _, key := range w.keys {
		if err := w.node.Set(ctx, key, value); err != nil {
			return fmt.Errorf("set %s: %w", key, err)
		}
		if got, err := w.node.Get(ctx, key); err != nil || !bytes.Equal(got, value) {
			return fmt.Errorf("get %s: %d bytes that are not what was set, error %v", key, len(got), err)
		}
	}
	return nil
}

func (w *worker) repeat(ctx context.Context, begin, end time.Time) error {
	w.requests, w.hits = 0, 0
	w.latency.Reset()
	for {
		start := time.Now()
		if !start.Before(end) {
			return nil
		}
		key := w.keys[w.next]
		w.next = (w.next + 1) % len(w.keys)
		value, err := w.node.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("get %s: %w", key, err)
		}
		if !start.Before(begin) {
			w.requests++
			if len(value) == w.size {
				w.hits++
			}
			// It fails only above one minute.
			_ = w.latency.RecordValue(int64(time.Since(start)))
		}
	}
}
