package hosts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Counters, and keys that are added once, move with their partitions. No INCR or ADD
// starts afresh at the new owner, even after many moves in a row, with slow messages, and
// with hosts that come and leave. (If the ring changes again before it is agreed upon,
// entries are lost: an owner that has heard one host's ballot gives nothing to another
// host, which may come later.)
func TestLengthyVirtualTotalsOverMoves(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	for seed := range uint64(*virtualRuns) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { totalsOverMoves(t, seed) })
		})
	}
}

// movedCounter is a counter as the clients that increment it know it.
type movedCounter struct {
	key            []byte
	known, unknown int64 // increments acknowledged; increments of unknown outcome
}

func totalsOverMoves(t *testing.T, seed uint64) {
	w := newWorld(t, seed, 4)
	w.startAll()
	w.agreed(15 * time.Second)
	time.Sleep(2 * time.Second)
	w.net.SetDelay(100*time.Microsecond, 20*time.Millisecond)
	var counters []*movedCounter
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 40 {
		c := &movedCounter{key: fmt.Appendf(nil, "counter%d", i)}
		counters = append(counters, c)
		rnd := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() { c.count(ctx, w, rnd) })
		once := fmt.Appendf(nil, "once%d", i)
		wg.Go(func() { addOnce(ctx, w, rand.New(rand.NewPCG(seed, uint64(1000+i))), once) })
	}
	for range 6 {
		v := w.nodes[w.rnd.IntN(len(w.nodes))]
		if w.rnd.IntN(4) == 0 {
			v.leave()
			time.Sleep(w.upTo(1000))
			v.start()
		} else {
			v.s.engine.Node.SetWeight(uint32(1 + w.rnd.IntN(200)))
		}
		time.Sleep(4 * time.Second) // all hosts have heard of it
		w.agreed(15 * time.Second)
		time.Sleep(w.upTo(100))
	}
	stop()
	wg.Wait()
	moved := int64(0)
	for _, v := range w.nodes {
		moved += v.s.engine.Handoff.Counts.Admitted.Load() + v.s.engine.Handoff.Counts.Fetched.Load()
		v.leave()
	}
	time.Sleep(30 * time.Second)
	sum := int64(0)
	for _, c := range counters {
		sum += c.known
	}
	t.Logf("%d increments of %d counters, %d entries moved", sum, len(counters), moved)
	if sum < 1000 || moved < 20 {
		t.Error("too tame a run")
	}
}

// count increments the counter until ctx ends, and checks each sum.
func (c *movedCounter) count(ctx context.Context, w *world, rnd *rand.Rand) {
	for ctx.Err() == nil {
		pauseFor(ctx, time.Duration(rnd.IntN(200))*time.Millisecond)
		s, by, _ := w.any(rnd)
		if s == nil {
			continue
		}
		sum, err := s.Incr(context.Background(), "default", string(c.key), 1, cachesidecar.IncrOptions{Create: true})
		switch {
		case err != nil:
			c.unknown++
			continue
		case sum < c.known || sum > c.known+c.unknown+1:
			w.fail("%s through %s: the sum is %d after %d increments, and %d of unknown outcome", c.key, by, sum, c.known, c.unknown)
		}
		c.known, c.unknown = sum, 0
	}
}

// addOnce adds a key again and again. Only one ADD may succeed.
func addOnce(ctx context.Context, w *world, rnd *rand.Rand, key []byte) {
	added := time.Time{}
	for ctx.Err() == nil {
		pauseFor(ctx, time.Duration(rnd.IntN(500))*time.Millisecond)
		s, by, _ := w.any(rnd)
		if s == nil {
			continue
		}
		_, err := s.Add(context.Background(), "default", string(key), []byte("v"), cachesidecar.SetOptions{})
		switch {
		case err == nil && !added.IsZero():
			w.fail("%s through %s is added again, %v after", key, by, time.Since(added))
		case err == nil, errors.Is(err, cachesidecar.ErrExists):
			if added.IsZero() {
				added = time.Now()
			}
		}
	}
}

// A write that depends on the present entry must ask the releaser in the ownership epoch
// in which the write is executed. An answer from an earlier epoch says nothing.
func TestVirtualFetchedInThisOwnership(t *testing.T) {
	inQuietWorld(t, 1, func(t *testing.T, w *world) {
		v := w.nodes[0]
		key, h := keyOwnedBy(v, "key")
		holding := v.s.engine.Node.OwnershipEpoch(h.Partition())
		src := &handoff.Source{From: kv.Process{Node: "gone", Epoch: 1}}
		v.s.engine.Handoff.Incoming[h.Partition()].Store(src)
		for _, tc := range []struct {
			fetched uint32
			want    wire.Status
		}{{0, wire.Moved}, {holding - 1, wire.Moved}, {holding, wire.OK}} {
			for _, q := range []wire.Request{
				{Op: wire.OpIncr, Key: key, Delta: 1, Create: true},
				{Op: wire.OpSet, Key: append([]byte(nil), key...), Mode: wire.ModeAdd},
			} {
				q.Namespace, q.TTLMS = session.DefaultNamespace, wire.TTLDefault
				b := namespaces.Pins{Table: v.s.engine.Namespaces}
				r := v.s.engine.Execute(&q, &b, v.s.engine.Clock.Read(), tc.fetched)
				b.Release()
				if want := tc.want; r.Status != want && !(want == wire.OK && r.Status == wire.Exists) {
					t.Errorf("%s, asked for in holding %d of %d: %s, want %s", q.Op, tc.fetched, holding, r.Status, want)
				}
			}
		}
		v.s.engine.Handoff.Incoming[h.Partition()].Store(nil)
	})
}
