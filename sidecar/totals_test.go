package sidecar

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
	"github.com/cachesidecar/cachesidecar/internal/bubble"
	"github.com/cachesidecar/cachesidecar/internal/totals"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Counters and keys that several apps change at once, judged by package internal/totals:
// INCR, and SET and DELETE of keys with several writers.

var tallyNamespace = []byte("tally")

// tallied is a list of such keys. The world's lock guards them.
type tallied []*talliedKey

type talliedKey struct {
	name    []byte
	counter bool
	next    int64 // the number of the last SET
	ops     []totals.Op
}

// tally makes some counters and keys.
func (w *world) tally(counters, keys int) {
	for i := range counters + keys {
		w.tallied = append(w.tallied, &talliedKey{name: fmt.Appendf(nil, "tallied%d", i), counter: i < counters})
	}
}

// tallies is an app that changes and reads the tallied keys until ctx ends.
func (w *world) tallies(ctx context.Context, rnd *rand.Rand, upTo time.Duration) {
	for ctx.Err() == nil {
		if s, by, _ := w.any(rnd); s != nil {
			k := w.tallied[rnd.IntN(len(w.tallied))]
			switch n := rnd.IntN(20); {
			case n < 7:
				w.readTallied(s, by, k, n == 0)
			case k.counter && n < 19:
				w.incr(s, by, k)
			case n < 15:
				w.setTallied(s, by, k)
			default:
				end := w.begins(k, totals.Op{Kind: totals.Delete, Host: by})
				_, err := s.DeleteMulti(context.Background(), string(tallyNamespace), []string{string(k.name)}, cachesidecar.DeleteOptions{})
				end(0, err)
			}
		}
		pauseFor(ctx, time.Duration(rnd.Int64N(int64(upTo))))
	}
}

// begins records the begin of an operation, and returns the function that records its
// end.
func (w *world) begins(k *talliedKey, o totals.Op) (end func(number int64, err error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o.Began, o.Outcome = time.Since(w.begun), totals.Unknown
	i := len(k.ops)
	k.ops = append(k.ops, o)
	return func(number int64, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		o := &k.ops[i]
		o.Ended = time.Since(w.begun)
		switch {
		case err == nil:
			if o.Outcome = totals.Done; o.Kind != totals.Set {
				o.Number = number
			}
		case (errors.Is(err, cachesidecar.ErrUnavailable) || errors.Is(err, cachesidecar.ErrBusy)) && w.runsLocked(o.Host):
			o.Outcome = totals.Refused
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
	end := w.begins(k, totals.Op{Kind: totals.Incr, Host: by})
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
	end := w.begins(k, totals.Op{Kind: totals.Set, Host: by, Number: n})
	_, err := s.Set(context.Background(), string(tallyNamespace), string(k.name), binary.BigEndian.AppendUint64(nil, uint64(n)), cachesidecar.SetOptions{})
	end(n, err)
}

func (w *world) readTallied(s *Sidecar, by string, k *talliedKey, fresh bool) {
	q := &wire.Request{Op: wire.OpGet, Namespace: tallyNamespace, Key: k.name, TTLMS: wire.TTLDefault}
	if fresh {
		q.Options = wire.Fresh
	}
	end := w.begins(k, totals.Op{Kind: totals.Read, Host: by, Fresh: fresh})
	r, err := s.ask(context.Background(), q)
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

// flushTallied records the begin of a flush of all namespaces, as a deletion of each key.
func (w *world) flushTallied(by string) (end func(error)) {
	var ends []func(int64, error)
	for _, k := range w.tallied {
		ends = append(ends, w.begins(k, totals.Op{Kind: totals.Delete, Host: by}))
	}
	return func(err error) {
		for _, end := range ends {
			end(0, err)
		}
	}
}

// judgeTallied judges the history of all tallied keys.
func (w *world) judgeTallied(lossless bool) {
	r := totals.Rules{Bound: w.bound, Lossless: lossless}
	for _, k := range w.tallied {
		judge := r.Key
		if k.counter {
			judge = r.Counter
		}
		wrong := judge(k.ops)
		for _, line := range wrong[:min(len(wrong), 3)] {
			w.breaks("%s, the first of %d: %s", k.name, len(wrong), line)
		}
		for i := range k.ops {
			if o := &k.ops[i]; o.Kind == totals.Read && o.Outcome != totals.Done {
				w.seen["tallied misses"]++
				continue
			}
			what := [...]string{totals.Incr: "increments", totals.Set: "sets", totals.Delete: "deletions", totals.Read: "reads"}[k.ops[i].Kind]
			w.seen["tallied "+what+[...]string{totals.Done: "", totals.Unknown: " of unknown outcome", totals.Refused: " refused"}[k.ops[i].Outcome]]++
		}
	}
}

// If hosts are restarted in order, join, and change their weights, no increment is lost,
// and nothing that was deleted comes back.
func TestVirtualTotals(t *testing.T) {
	t.Parallel()
	for _, voters := range [][]string{nil, {"n0", "n1", "n2"}} {
		name := "available"
		if voters != nil {
			name = "consistent"
		}
		t.Run(name, func(t *testing.T) {
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
				moving += int(v.s.engine.Handoff.Counts.Pulling.Load()) + v.s.engine.Handoff.Offering()
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
		for _, k := range w.tallied {
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
