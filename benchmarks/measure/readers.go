package measure

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// readers read keys through hosts with the Go client, at a steady pace, and
// count what they find by the second. They leave the machine to the hosts: what
// is measured with them is no throughput.
type readers struct {
	keySize int
	keys    []uint64
	pause   time.Duration // of each between two reads, on average
	// pick chooses the host for a read; nil is none.
	pick func(n uint64) *peers.Host

	mu      sync.Mutex
	begun   time.Time
	counts  []record.Window
	slowest time.Duration
	why     string // of the first error
}

// readersAtOnce are enough for the pace while some wait for a host that is gone.
const readersAtOnce = 64

func newReaders(keySize int, keys []uint64, perSecond int) *readers {
	return &readers{keySize: keySize, keys: keys, pause: readersAtOnce * time.Second / time.Duration(perSecond)}
}

// start lets them read until ctx ends. done is closed when they have ended.
func (r *readers) start(ctx context.Context) (done <-chan struct{}) {
	r.reset()
	ended := make(chan struct{})
	var wg sync.WaitGroup
	for range readersAtOnce {
		wg.Go(func() {
			for {
				select {
				case <-time.After(rand.N(2 * r.pause)):
					r.read()
				case <-ctx.Done():
					return
				}
			}
		})
	}
	go func() { // ends with them
		wg.Wait()
		close(ended)
	}()
	return ended
}

// reset begins the first window anew.
func (r *readers) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun, r.counts, r.slowest, r.why = time.Now(), nil, 0, ""
}

// read reads one key. What fails because its host has been asked to end, whose
// apps then have none, counts for nothing.
func (r *readers) read() {
	n := rand.Uint64()
	h := r.pick(n)
	if h == nil {
		return
	}
	app := h.App()
	if app == nil {
		return
	}
	key := string(load.Key(nil, r.keys[rand.IntN(len(r.keys))], r.keySize))
	start := time.Now()
	_, err := app.Get(context.Background(), key)
	end := time.Now()
	if err != nil && h.App() != app {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if start.Before(r.begun) {
		return
	}
	at := int(end.Sub(r.begun) / time.Second)
	for len(r.counts) <= at {
		r.counts = append(r.counts, record.Window{})
	}
	w := &r.counts[at]
	w.Reads++
	switch {
	case err == nil:
		w.Hits++
	case !errors.Is(err, client.ErrNotFound):
		if w.Errors++; r.why == "" {
			r.why = err.Error()
		}
	case err != client.ErrNotFound: // the same, and says why
		w.Degraded++
	}
	r.slowest = max(r.slowest, end.Sub(start))
}

// windows are the seconds so far, the last one cut short.
func (r *readers) windows() []record.Window {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]record.Window(nil), r.counts...)
}
