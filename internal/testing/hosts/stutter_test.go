package hosts

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/history"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Hosts stand still again and again, each time for less than B. In the moments between
// they do a part of the waiting work, in any order.

// halts says how a host stutters. All fields except rnd and stops have a default.
type halts struct {
	rnd      *rand.Rand
	stops    int
	from, to float64 // duration of each stop, in B; default 0.05 to 0.99
	still    bool    // the host does none of the waiting work
	during   func()  // is called in each stop; must not wait
	between  func()  // is called between two stops; must not wait
}

// stutter stops a host again and again. At the end the host continues with all waiting
// work.
func (v *vnode) stutter(h halts) {
	if h.to == 0 {
		h.from, h.to = 0.05, 0.99
	}
	for range h.stops {
		v.halt()
		half := time.Duration((h.from + h.rnd.Float64()*(h.to-h.from)) * float64(v.w.bound) / 2)
		time.Sleep(half)
		if h.during != nil {
			h.during()
		}
		time.Sleep(half)
		part := 0.0
		if !h.still && h.rnd.IntN(2) == 0 {
			part = h.rnd.Float64()
		}
		v.goOn(part)
		if h.between != nil {
			h.between()
		}
		time.Sleep(100*time.Microsecond + time.Duration(h.rnd.IntN(900))*time.Microsecond)
	}
	v.goOn(1)
}

func (v *vnode) halt() {
	v.w.mu.Lock()
	v.paused = true
	v.pauses++
	v.w.seen["stops"]++
	v.w.mu.Unlock()
	v.clock.freeze()
	v.w.net.Stop(v.ip)
}

// goOn lets a host run, with a part of the waiting work.
func (v *vnode) goOn(part float64) {
	v.clock.thaw()
	v.w.net.Run(v.ip, part)
	v.w.mu.Lock()
	v.paused = false
	v.w.mu.Unlock()
}

// contested is a key that two hosts write, one write after the other.
type contested struct {
	*vkey
	mu sync.Mutex
}

// contest starts writes and reads of keys through a host, if it runs. An operation that
// is still under way is not started again.
func (w *world) contest(wg *sync.WaitGroup, v *vnode, keys []*contested, writes bool) {
	w.mu.Lock()
	s, by := v.s, fmt.Sprint(v.name, ".", v.run)
	w.mu.Unlock()
	if s == nil {
		return
	}
	for _, k := range keys {
		wg.Go(func() {
			if writes && k.mu.TryLock() {
				w.writeTo(s, by, k.vkey, false, false)
				k.mu.Unlock()
			}
			w.readFrom(context.Background(), s, by, k.vkey)
		})
	}
}

func (w *world) contested(n int) (keys []*contested) {
	for i := range n {
		keys = append(keys, &contested{vkey: &vkey{name: fmt.Appendf(nil, "contested%d.%d", w.rnd.Uint32(), i)}})
	}
	return keys
}

// stutters is the fault for random runs: another host writes the same keys.
func stutters(w *world, v, o *vnode) {
	var wg sync.WaitGroup
	keys := w.contested(4)
	w.contest(&wg, v, keys, true)
	time.Sleep(10 * time.Millisecond)
	from := 0.05 + 0.9*w.rnd.Float64()
	v.stutter(halts{
		rnd: w.rnd, stops: 3 + w.rnd.IntN(5), from: from, to: min(0.99, from+0.2),
		during:  func() { w.contest(&wg, o, keys, true) },
		between: func() { w.contest(&wg, v, keys, w.rnd.IntN(2) == 0) },
	})
	wg.Wait()
}

// stutterOwner stops an owner for nearly B, so often that another host becomes the owner
// of its keys. It reads the keys in each moment in which the owner runs.
func (w *world) stutterOwner(owner, other *vnode, keys []*contested) {
	var wg sync.WaitGroup
	owner.stutter(halts{
		rnd: w.rnd, stops: 7, from: 0.955, to: 0.975, still: true,
		during:  func() { w.contest(&wg, other, keys, true) },
		between: func() { w.contest(&wg, owner, keys, false) },
	})
	wg.Wait()
}

// A host that stutters is considered dead by the others, and serves nothing of what they
// have taken from it. It joins again when it runs.
func TestVirtualStutter(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 700*time.Millisecond)
	for policy, voters := range policies {
		t.Run(policy, func(t *testing.T) {
			inQuietWorld(t, 3, func(t *testing.T, w *world) {
				v, other := w.nodes[0], w.nodes[2]
				var keys []*contested
				for i := range 10 {
					name, _ := keyOwnedBy(v, fmt.Sprintf("key%d.", i))
					keys = append(keys, &contested{vkey: &vkey{name: name}})
				}
				var wg sync.WaitGroup
				w.contest(&wg, v, keys, true)
				wg.Wait()
				w.stutterOwner(v, other, keys)
				st := v.s.telemetry.ClusterState()
				if st.Pauses == 0 && voters == nil {
					t.Error("no pause was found")
				}
				if stopped := time.Duration(v.s.engine.Node.Stats().StoppedMS) * time.Millisecond; stopped < 13*w.bound/2 {
					t.Errorf("it did not run for %v", stopped)
				}
				time.Sleep(10 * time.Second)
				w.agreed(15 * time.Second)
				written := 0
				for _, k := range keys {
					for _, v := range k.writes {
						if v.Outcome == history.Done {
							written++
						}
					}
				}
				for range keys {
					w.contest(&wg, v, keys, true)
				}
				wg.Wait()
				if written < 30 {
					t.Errorf("only %d writes", written)
				}
				w.contest(&wg, v, keys, true)
				wg.Wait()
				for _, k := range keys {
					if n := w.readFrom(context.Background(), other.s, "n2.1", k.vkey); n != len(k.writes) {
						t.Errorf("write %d is read after %d: %v", n, len(k.writes), &k.writes[len(k.writes)-1].Op)
					}
				}
			}, voters...)
		})
	}
}

// stuttering lets a host stutter under load while do runs.
func (w *world) stuttering(v, o *vnode, stops int, do func()) {
	var wg sync.WaitGroup
	keys := w.contested(6)
	rnd := rand.New(rand.NewPCG(w.seed, 5))
	wg.Go(func() {
		v.stutter(halts{
			rnd: rnd, stops: stops, from: 0.6, to: 0.99,
			during:  func() { w.contest(&wg, o, keys, true) },
			between: func() { w.contest(&wg, v, keys, true) },
		})
	})
	do()
	wg.Wait()
}

// A host stutters while another host is killed and comes back.
func TestLengthyVirtualStutterWhileOneIsKilled(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	t.Parallel()
	virtually(t, 4, func(w *world) {
		for range 4 {
			v, victim, o := w.nodes[w.rnd.IntN(2)], w.nodes[2], w.nodes[3]
			w.stuttering(v, o, 5, func() {
				time.Sleep(w.upTo(4000))
				victim.kill()
				time.Sleep(w.upTo(5000))
				victim.start()
			})
			time.Sleep(w.upTo(8000))
		}
	})
}

// A host stutters while it is the only voter left. Soon no host serves anything, until
// another voter is back.
func TestLengthyVirtualStutterOfTheLastVoter(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	t.Parallel()
	virtually(t, 4, func(w *world) {
		last, o := w.nodes[0], w.nodes[3]
		for range 3 {
			w.nodes[1].kill()
			w.nodes[2].kill()
			w.stuttering(last, o, 6, func() { time.Sleep(3 * w.bound) })
			for _, v := range []*vnode{last, o} {
				if held := v.s.engine.Node.Stats().Owned; held > 0 {
					w.fail("%s holds %d partitions without a majority of the voters", v.name, held)
				}
			}
			w.nodes[1].start()
			time.Sleep(w.upTo(5000))
			w.nodes[2].start()
			time.Sleep(w.upTo(8000))
		}
	}, "n0", "n1", "n2")
}

// A host stutters while it hands over what it owns, because other hosts are to own more,
// or because it leaves.
func TestLengthyVirtualStutterWhileHandingOver(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	t.Parallel()
	for policy, voters := range policies {
		t.Run(policy, func(t *testing.T) {
			virtually(t, 4, func(w *world) {
				v, o := w.nodes[1], w.nodes[3]
				weight := v.s.cfg.Weight
				w.stuttering(v, o, 4, func() { v.s.engine.Node.SetWeight(1) })
				w.stuttering(v, o, 4, func() { v.s.engine.Node.SetWeight(weight) })
				time.Sleep(w.upTo(5000))
				w.stuttering(v, o, 4, func() { v.leave() })
				time.Sleep(w.upTo(3000))
				v.start()
				time.Sleep(w.upTo(8000))
			}, voters...)
		})
	}
}

// Hosts of busy machines stand still for a while in each second. No ownership ends
// because of that, everything is stored, and a takeover after a kill is as fast as ever.
// Two hosts that stand still by turns for most of D cannot poll each other. So with the
// smallest bound only one of them stands still for long.
func TestLengthyVirtualBusyHosts(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	for _, c := range []struct {
		bound, gap time.Duration
		hosts      int
	}{
		{2 * time.Second, 100 * time.Millisecond, 4},
		{2 * time.Second, 400 * time.Millisecond, 4},
		{500 * time.Millisecond, 100 * time.Millisecond, 4},
		{500 * time.Millisecond, 400 * time.Millisecond, 1},
	} {
		t.Run(fmt.Sprintf("%v in each second, B=%v", c.gap, c.bound), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) { busyHosts(t, c.bound, c.gap, c.hosts) })
		})
	}
}

func busyHosts(t *testing.T, bound, gap time.Duration, hosts int) {
	w := newWorld(t, 1, 4)
	w.bound = bound
	w.startAll()
	w.agreed(15 * time.Second)
	store := func(key string) error {
		for { // an app of a host that stands still waits
			w.mu.Lock()
			v := w.nodes[0]
			paused := v.paused
			w.mu.Unlock()
			if !paused {
				_, err := v.s.Set(context.Background(), "default", key, []byte("v"), cachesidecar.SetOptions{})
				return err
			}
			time.Sleep(time.Millisecond)
		}
	}
	for _, v := range w.nodes { // makes the connections
		setAll(v, 100, "v")
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i, v := range w.nodes[:hosts] {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * 230 * time.Millisecond)
			for ctx.Err() == nil {
				v.halt()
				time.Sleep(gap)
				v.goOn(1)
				time.Sleep(time.Second - gap)
			}
		})
	}
	for i := range 1000 {
		if err := store(fmt.Sprint("key", i)); err != nil {
			t.Errorf("key%d after %v: %v", i, time.Since(w.begun), err)
		}
		time.Sleep(30 * time.Millisecond)
	}
	for _, v := range w.nodes {
		if st := v.s.engine.Node.Stats(); st.Pauses > 0 || v.i < hosts && gap > bound/8 && st.StoppedMS < (20*gap).Milliseconds() {
			t.Errorf("%s: %d pauses, %d endings, %d ms in which it did not run", v.name, st.Pauses, st.Ended, st.StoppedMS)
		}
	}
	ended := func() (n int64) {
		for _, v := range w.nodes {
			n += v.s.engine.Node.Stats().Ended
		}
		return n
	}
	before := ended()
	time.Sleep(20 * time.Second)
	if n := ended() - before; n > 0 {
		t.Errorf("%d holdings have ended", n)
	}
	w.nodes[3].kill()
	began := time.Now()
	for i := range 300 {
		for store(fmt.Sprint("key", i)) != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	took := time.Since(began)
	t.Logf("all is stored again %v after a kill", took)
	if took > 4500*time.Millisecond {
		t.Error("that is too late")
	}
	stop()
	wg.Wait()
	for _, v := range w.nodes[:3] {
		v.kill()
	}
	time.Sleep(30 * time.Second)
}
