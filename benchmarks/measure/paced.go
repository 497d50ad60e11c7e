package measure

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"golang.org/x/sync/errgroup"
)

// paced writes keys at a rate over one connection, in batches of the writes that are due.
// If the server falls behind, paced catches up later.
type paced struct {
	nc       net.Conn
	protocol load.Protocol
	requests []byte // prebuilt, one after the other
	ends     []int
	next     int
	buf      []byte
}

const (
	pacedRequests = 1 << 13
	pacedBatch    = 256 // at most; less than the period of the ids
	pacedEvery    = time.Millisecond
)

func (b *Bench) openPaced(s *peers.Server, key func(i int) uint64) *paced {
	w := &paced{nc: b.connect(s.Dial, s.Set), protocol: s.Set, buf: make([]byte, 64<<10)}
	for i := range pacedRequests {
		w.requests = s.Set.Append(w.requests, i, key(i))
		w.ends = append(w.ends, len(w.requests))
	}
	return w
}

// run writes until ctx ends, and returns how many writes were answered.
func (w *paced) run(ctx context.Context, perSecond float64) (n int64, err error) {
	for begun := time.Now(); ctx.Err() == nil; {
		due := int(perSecond*time.Since(begun).Seconds()) - int(n)
		if due < 1 {
			time.Sleep(pacedEvery)
			continue
		}
		due = min(due, pacedBatch, pacedRequests-w.next)
		if err := w.write(due); err != nil {
			return n, err
		}
		n += int64(due)
	}
	return n, nil
}

func (w *paced) write(count int) error {
	begin := 0
	if w.next > 0 {
		begin = w.ends[w.next-1]
	}
	_ = w.nc.SetDeadline(time.Now().Add(lineTimeout * time.Millisecond))
	hits, err := load.Exchange(w.nc, w.protocol, w.requests[begin:w.ends[w.next+count-1]], count, &w.buf)
	w.next = (w.next + count) % pacedRequests
	if err == nil && hits < count {
		err = fmt.Errorf("%d of %d writes were stored", hits, count)
	}
	return err
}

// pacers share a rate.
type pacers []*paced

// start begins to write. The returned function stops the writes, and returns their number
// and the seconds that they took.
func (w pacers) start(ctx context.Context, perSecond int) (stop func() (int64, float64, error)) {
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	counts := make([]int64, len(w))
	begun := time.Now()
	for i, p := range w {
		g.Go(func() (err error) { // ends with ctx
			counts[i], err = p.run(ctx, float64(perSecond)/float64(len(w)))
			return err
		})
	}
	return func() (n int64, seconds float64, err error) {
		cancel()
		err = g.Wait()
		for _, c := range counts {
			n += c
		}
		return n, time.Since(begun).Seconds(), err
	}
}
