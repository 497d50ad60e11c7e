package sidecar

import (
	"context"
	"flag"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/linear"
	"github.com/cachesidecar/cachesidecar/internal/verify"
)

var keptRuns = flag.Int("virtual.kept", 2, "short runs of restarts with kept memory")

var keptKeeps = flag.Bool("virtual.keptkeeps", true, "keep the memory")

var keptMisses = flag.Bool("virtual.keptmisses", true, "judge that no value comes back that a fresh read has missed")

// judgeFreshValues is judgeFresh without the misses.
func (w *world) judgeFreshValues() {
	for _, k := range w.keys {
		if w.origin != nil {
			continue
		}
		ops := slices.DeleteFunc(slices.Clone(k.fresh), func(o verify.Op) bool { return o.Outcome == verify.Absent })
		for _, r := range k.writes {
			ops = append(ops, r.Op)
		}
		if len(linear.Broken(ops, true)) > 0 {
			w.breaks("the values of fresh reads of %s are not linearizable", k.name)
		}
	}
}

// TestVirtualKept makes runs in which hosts that keep their memory are mostly started again.
func TestVirtualKept(t *testing.T) {
	seen := map[string]int64{}
	for n := range *keptRuns {
		seed := firstSeed() + uint64(n)
		bubble.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, 3+int(seed/2%2))
			w.keeps = *keptKeeps
			w.keys = w.keys[:6]
			w.tally(2, 2)
			if seed%2 == 1 {
				w.voters = []string{"n0", "n1", "n2"}
			}
			w.events = []int{0, 0, 1024}[w.rnd.IntN(3)]
			w.noRelay = w.rnd.IntN(4) == 0
			if w.rnd.IntN(2) == 0 {
				w.loaded()
			}
			if w.rnd.IntN(3) == 0 {
				w.ns.Quota = smallQuota
			}
			w.memcached = true
			for _, v := range w.nodes {
				v.start()
			}
			w.agreed(15 * time.Second)
			ctx, stop := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			w.randomLoad(ctx, &wg)
			time.Sleep(time.Second)
			for range 6 {
				w.restartFault()
				time.Sleep(w.upTo(3000))
			}
			time.Sleep(w.bound)
			stop()
			wg.Wait()
			for _, v := range w.nodes {
				v.kill()
			}
			time.Sleep(30 * time.Second)
			w.judgeTallied(false)
			if *keptMisses {
				w.judgeFresh()
			}
			w.judgeFreshValues()
			for name, n := range w.seen {
				seen[name] += n
			}
			seen["hits"] += int64(w.hits)
		})
	}
	t.Logf("seen %v", seen)
}

// restartFault starts a host again, in one of many ways.
func (w *world) restartFault() {
	i := w.rnd.IntN(len(w.nodes))
	v, o := w.nodes[i], w.nodes[(i+1+w.rnd.IntN(len(w.nodes)-1))%len(w.nodes)]
	drain := func(v *vnode) {
		ctx, cancel := context.WithTimeout(context.Background(), w.upTo(200)+time.Millisecond)
		defer cancel()
		_, _ = v.s.Drain(ctx, cachesidecar.DrainOptions{})
	}
	switch w.rnd.IntN(10) {
	case 0: // time after time
		for range 3 {
			v.leave()
			time.Sleep(w.upTo(300))
			v.start()
			time.Sleep(w.upTo(4000))
		}
	case 1: // slow links
		w.net.SetDelay(0, w.upTo(100))
		v.leave()
		time.Sleep(w.upTo(2000))
		v.start()
		time.Sleep(w.upTo(4000))
	case 2: // killed soon after
		v.leave()
		time.Sleep(w.upTo(2000))
		v.start()
		time.Sleep(w.upTo(4000))
		v.kill()
		time.Sleep(w.upTo(500))
		v.start()
	case 3: // the drain is not over
		w.net.SetDelay(0, w.upTo(60))
		drain(v)
		v.leave()
		time.Sleep(w.upTo(2000))
		v.start()
	case 4: // the heir is cut off
		v.leave()
		w.net.Isolate(o.ip)
		time.Sleep(w.upTo(1500))
		v.start()
		time.Sleep(w.upTo(1000))
	case 5: // the heir stands still
		v.leave()
		go func() {
			time.Sleep(w.bound / 8)
			v.start()
		}()
		o.pause(w.upTo(5000))
		time.Sleep(w.bound)
	case 6: // the heir moves partitions
		weight := o.s.cfg.Weight
		v.leave()
		o.s.engine.Node.SetWeight(1)
		time.Sleep(w.upTo(2500))
		v.start()
		time.Sleep(w.upTo(2500))
		o.s.engine.Node.SetWeight(weight)
	case 7: // both
		var both sync.WaitGroup
		for _, n := range []*vnode{v, o} {
			both.Go(func() { n.leave() })
		}
		both.Wait()
		for _, n := range []*vnode{v, o} {
			time.Sleep(w.upTo(1000))
			n.start()
		}
	default:
		v.leave()
		time.Sleep(w.upTo(5000))
		v.start()
		time.Sleep(w.upTo(5000))
	}
	w.net.Heal()
	w.net.SetLoss(0)
	w.net.SetDelay(100*time.Microsecond, 500*time.Microsecond)
	down := func(v *vnode) bool { return v.s == nil }
	for began := time.Now(); slices.ContainsFunc(w.nodes, down) && time.Since(began) < time.Minute; {
		time.Sleep(10 * time.Millisecond)
	}
}

// TestVirtualKeptMaxLag is TestVirtualMaxLag with hosts that keep their memory and are mostly started again.
func TestVirtualKeptMaxLag(t *testing.T) {
	var cached, old, late int
	seen := map[string]int64{}
	for n := range uint64(*keptRuns) {
		seed := firstSeed() + n
		withFeed(t, seed, seed%2 == 1, t.Errorf, func(w *world) { w.keeps = *keptKeeps }, func(l *laggard) {
			ctx, stop := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			l.load(ctx, &wg)
			for range 4 {
				down := l.rnd.IntN(3)
				l.feed.set(down == 1, down == 2)
				pauseFor(ctx, l.upTo(12_000))
				l.restartFault()
				pauseFor(ctx, l.upTo(2_000))
				l.feed.set(false, false)
				pauseFor(ctx, l.upTo(8_000))
			}
			time.Sleep(l.bound)
			stop()
			wg.Wait()
			cached, old, late = cached+l.counts.cached, old+l.counts.old, late+l.counts.late
			for _, v := range l.nodes {
				l.note(v.s)
			}
			for name, n := range l.seen {
				seen[name] += n
			}
		})
	}
	t.Logf("%d cached, %d old by more than B, %d at late hosts; %d kept partitions, %d again, %d changed",
		cached, old, late, seen["kept partitions"], seen["kept partitions again"], seen["kept entries changed"])
}
