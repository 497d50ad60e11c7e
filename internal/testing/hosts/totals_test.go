package hosts

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/history"
	"github.com/cachesidecar/cachesidecar/internal/testing/linear"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Counters and keys that several apps change at once: INCR, and SET and DELETE of keys with
// several writers.

var tallyNamespace = []byte("tally")

// tallied is a list of such keys, and their history. The world's lock guards them.
type tallied struct {
	keys []*talliedKey
	ops  []history.Op
}

type talliedKey struct {
	name    []byte
	counter bool
	next    int64 // the number of the last SET
}

// tally makes some counters and keys.
func (w *world) tally(counters, keys int) {
	for i := range counters + keys {
		w.tallied.keys = append(w.tallied.keys, &talliedKey{name: fmt.Appendf(nil, "tallied%d", i), counter: i < counters})
	}
}

// tallies is an app that changes and reads the tallied keys until ctx ends.
func (w *world) tallies(ctx context.Context, rnd *rand.Rand, upTo time.Duration) {
	for ctx.Err() == nil {
		if s, by, _ := w.any(rnd); s != nil {
			k := w.tallied.keys[rnd.IntN(len(w.tallied.keys))]
			switch n := rnd.IntN(20); {
			case n < 7:
				w.readTallied(s, by, k, n == 0)
			case k.counter && n < 19:
				w.incr(s, by, k)
			case n < 15:
				w.setTallied(s, by, k)
			default:
				end := w.begins(history.Op{Kind: history.Delete, Key: string(k.name), Host: by})
				_, err := s.DeleteMulti(context.Background(), string(tallyNamespace), []string{string(k.name)}, cachesidecar.DeleteOptions{})
				end(0, err)
			}
		}
		pauseFor(ctx, time.Duration(rnd.Int64N(int64(upTo))))
	}
}

// begins records the begin of an operation, and returns the function that records its
// end.
func (w *world) begins(o history.Op) (end func(number int64, err error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o.Began, o.Outcome = w.now(), history.Unknown
	o.Ended = o.Began
	i := len(w.tallied.ops)
	w.tallied.ops = append(w.tallied.ops, o)
	return func(number int64, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		o := &w.tallied.ops[i]
		o.Ended = w.now()
		switch {
		case err == nil:
			if o.Outcome = history.Done; o.Kind != history.Set {
				o.Number = number
			}
		case errors.Is(err, cachesidecar.ErrNotFound):
			o.Outcome = history.Absent
		case (errors.Is(err, cachesidecar.ErrUnavailable) || errors.Is(err, cachesidecar.ErrBusy)) && w.runsLocked(o.Host):
			o.Outcome = history.Unavailable
		}
	}
}

// runsLocked reports whether a process has not been killed. What a killed process says
// about a write means nothing.
func (w *world) runsLocked(by string) bool {
	for _, v := range w.nodes {
		if v.s != nil && by == fmt.Sprint(v.name, ".", v.run) {
			return true
		}
	}
	return false
}

// incr increments a counter and returns its total, or zero if the increment is not known
// to be done.
func (w *world) incr(s *Sidecar, by string, k *talliedKey) int64 {
	end := w.begins(history.Op{Kind: history.Incr, Key: string(k.name), Host: by})
	n, err := s.Incr(context.Background(), string(tallyNamespace), string(k.name), 1, cachesidecar.IncrOptions{Create: true, Initial: 1})
	end(n, err)
	if err != nil {
		return 0
	}
	return n
}

func (w *world) setTallied(s *Sidecar, by string, k *talliedKey) {
	w.mu.Lock()
	k.next++
	n := k.next
	w.mu.Unlock()
	end := w.begins(history.Op{Kind: history.Set, Key: string(k.name), Host: by, Number: n})
	_, err := s.Set(context.Background(), string(tallyNamespace), string(k.name), binary.BigEndian.AppendUint64(nil, uint64(n)), cachesidecar.SetOptions{})
	end(n, err)
}

func (w *world) readTallied(s *Sidecar, by string, k *talliedKey, fresh bool) {
	q := &wire.Request{Op: wire.OpGet, Namespace: tallyNamespace, Key: k.name, TTLMS: wire.TTLDefault}
	if fresh {
		q.Options = wire.Fresh
	}
	end := w.begins(history.Op{Key: string(k.name), Host: by, Fresh: fresh})
	r, err := s.execute(context.Background(), q)
	n := int64(0)
	switch {
	case err != nil:
	case k.counter:
		n, err = strconv.ParseInt(string(r.Value), 10, 64)
	default:
		n = int64(binary.BigEndian.Uint64(r.Value))
	}
	end(n, err)
}

// judgeTallied judges the history of all tallied keys.
func (w *world) judgeTallied(lossless bool) {
	ops := w.tallied.ops
	for _, line := range history.Lines(history.Check(history.Rules{Bound: w.bound, Lossless: lossless}, ops)) {
		w.breaks("%s", line)
	}
	for _, key := range linear.Broken(ops, !lossless) {
		w.breaks("%s is not linearizable", key)
	}
	for i := range ops {
		switch o := &ops[i]; {
		case o.Kind == history.Read && o.Outcome != history.Done:
			w.seen["tallied misses"]++
		case o.Kind == history.Flush:
		default:
			what := map[history.Kind]string{history.Incr: "increments", history.Set: "sets", history.Delete: "deletions", history.Read: "reads"}[o.Kind]
			if o.Outcome != history.Done {
				what += " " + o.Outcome.String()
			}
			w.seen["tallied "+what]++
		}
	}
}

// If hosts are restarted in order, join, and change their weights, no increment is lost,
// and nothing that was deleted comes back. Policy consistent is tried where -virtual.random is given.
func TestVirtualTotals(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	for policy, voters := range policies {
		if voters != nil && *randomRuns == 0 {
			continue
		}
		t.Run(policy, func(t *testing.T) {
			seed := firstSeed()
			for i := range *virtualRuns {
				orderly(t, seed+uint64(i), voters)
			}
		})
	}
}

// atRest waits until every node has joined and owns its share, with all entries of it. If
// the ring changed before the last change is complete, entries would be lost.
func (w *world) atRest(within time.Duration) {
	w.t.Helper()
	w.agreed(within)
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		moving := 0
		for _, v := range w.nodes {
			if v.s != nil {
				if !v.s.engine.Node.Stats().In {
					moving++
				}
				moving += int(v.s.engine.Handoff.Counts.Pulling.Load()) + v.s.engine.Handoff.OpenOffers()
			}
		}
		if moving == 0 {
			break
		}
		if time.Since(began) > within {
			w.t.Fatalf("seed %d: %d hosts come or handoffs are under way after %v", w.seed, moving, within)
		}
	}
	w.agreed(within)
}

func orderly(t *testing.T, seed uint64, voters []string) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, 4)
		w.voters = voters
		w.tally(6, 6)
		late := w.nodes[3]
		for _, v := range w.nodes[:3] {
			v.start()
		}
		w.agreed(15 * time.Second)
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for i := range 4 {
			rnd := rand.New(rand.NewPCG(seed, uint64(100+i)))
			wg.Go(func() { w.tallies(ctx, rnd, 30*time.Millisecond) })
		}
		time.Sleep(w.upTo(2000))
		late.start()
		for range 6 {
			v := w.nodes[w.rnd.IntN(4)]
			time.Sleep(w.upTo(2000))
			w.atRest(20 * time.Second)
			if len(voters) > 0 { // a voter is silent at first, and its earlier promises must be forgotten
				time.Sleep(ownership.Margin(2*w.bound) + w.bound/2)
			}
			if w.rnd.IntN(3) == 0 {
				v.s.engine.Node.SetWeight(uint32(1 + w.rnd.IntN(100)))
				continue
			}
			v.leave()
			time.Sleep(w.upTo(2000))
			v.start()
		}
		w.atRest(20 * time.Second)
		stop()
		wg.Wait()
		for _, k := range w.tallied.keys {
			if k.counter {
				w.incr(late.s, fmt.Sprint(late.name, ".", late.run), k)
			}
		}
		w.judgeTallied(true)
		w.leaveAll()
		t.Logf("seed %d: %v", seed, w.seen)
		if w.seen["tallied increments"] < 300 || w.seen["tallied sets"] < 200 || w.seen["tallied deletions"] < 200 || w.seen["handed over"] < 2 {
			t.Errorf("too tame a run")
		}
	})
}
