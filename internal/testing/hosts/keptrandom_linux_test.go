package hosts

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestVirtualKept makes runs in which hosts that keep their memory are mostly started again.
func TestVirtualKept(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 10*time.Second)
	seen := map[string]int64{}
	runs := 1
	if *randomRuns > 0 {
		runs = max(2, *randomRuns/5)
	}
	for n := range runs {
		seed := firstSeed() + uint64(n)
		w := randomWith(t, seed, true, 6, (*world).restartFault, func(*world) {})
		for name, n := range w.seen {
			seen[name] += n
		}
	}
	t.Logf("seen %v", seen)
	if again := seen["kept partitions again"]; again < int64(runs)*10_000 || runs >= 20 && seen["kept entries changed"] == 0 {
		t.Errorf("the runs prove too little: entries of %d partitions are served again, %d had changed",
			again, seen["kept entries changed"])
	}
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
