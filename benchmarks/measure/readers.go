package measure

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// readers read keys through hosts with the Go client at a steady pace, and count the
// results by the second. They leave most of the machine to the hosts, because they do not
// measure throughput.
type readers struct {
	keySize int
	keys    []uint64
	pause   time.Duration // of each reader between two reads, on average
	// pick chooses the host for a read; nil means no host.
	pick func(n uint64) *peers.Host

	mu      sync.Mutex
	begun   time.Time
	counts  []window
	slowest time.Duration
	why     string // the text of the first error
}

// window is the reads that ended within one second.
type window struct {
	reads, hits int64
	errors      int64 // neither a value nor a miss
	// degraded are reads that missed because the owner of the key could not be asked in
	// time. Other misses are of entries that are gone.
	degraded int64
}

// ratio returns the share of hits among the reads.
func (w window) ratio() float64 { return float64(w.hits) / float64(max(w.reads, 1)) }

// add adds another window.
func (w *window) add(o window) {
	w.reads, w.hits, w.errors, w.degraded = w.reads+o.reads, w.hits+o.hits, w.errors+o.errors, w.degraded+o.degraded
}

// readersAtOnce readers keep up the pace even if some wait for a host that is gone.
const readersAtOnce = 64

func newReaders(keySize int, keys []uint64, perSecond int) *readers {
	return &readers{keySize: keySize, keys: keys, pause: readersAtOnce * time.Second / time.Duration(perSecond)}
}

// start lets them read until ctx ends. It closes done when all have ended.
func (r *readers) start(ctx context.Context) (done <-chan struct{}) {
	r.reset()
	ended := make(chan struct{})
	var wg sync.WaitGroup
	for range readersAtOnce {
		wg.Go(func() {
			for kv.Sleep(ctx, rand.N(2*r.pause)) {
				r.read()
			}
		})
	}
	go func() { // ends with the readers
		wg.Wait()
		close(ended)
	}()
	return ended
}

// reset starts again with the first window.
func (r *readers) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.begun, r.counts, r.slowest, r.why = time.Now(), nil, 0, ""
}

// read reads one key. A failure does not count if the host has been asked to end, because
// its apps then have no sidecar.
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
	_, err := app.Get(context.Background(), key, cachesidecar.GetOptions{})
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
		r.counts = append(r.counts, window{})
	}
	w := &r.counts[at]
	w.reads++
	switch {
	case err == nil:
		w.hits++
	case !errors.Is(err, cachesidecar.ErrNotFound):
		if w.errors++; r.why == "" {
			r.why = err.Error()
		}
	case err != cachesidecar.ErrNotFound: // it wraps ErrNotFound, with the reason
		w.degraded++
	}
	r.slowest = max(r.slowest, end.Sub(start))
}

// windows returns the seconds so far. The last one is incomplete.
func (r *readers) windows() []window {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]window(nil), r.counts...)
}
