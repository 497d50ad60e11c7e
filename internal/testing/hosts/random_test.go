package hosts

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/history"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Many short runs in which any fault may happen, checked against the guarantees.

var randomRuns = flag.Int("virtual.random", 0, "short runs at random in virtual time; 0 is 2, or 20 with LONG_TESTS")

// randomLoad writes a few keys and reads some of them back at once. It reads the keys
// through all hosts, and some of these reads are fresh. Half of the changes, and a quarter of
// the reads, are made at the other doors.
func (w *world) randomLoad(ctx context.Context, wg *sync.WaitGroup) {
	w.shareMemory()
	for i, k := range w.keys {
		rnd := rand.New(rand.NewPCG(w.seed, uint64(100+i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				if rnd.IntN(2) == 0 {
					w.write(rnd, k)
				} else {
					w.writeAtDoor(rnd, k)
				}
				if rnd.IntN(2) == 0 {
					time.Sleep(time.Microsecond)
					w.readBack(k)
				}
				rest := time.Duration(20+rnd.IntN(1000)) * time.Millisecond
				if rnd.IntN(4) == 0 { // all hosts must have heard of the change, before another one helps
					rest += w.bound + time.Second
				}
				pauseFor(ctx, rest)
			}
		})
	}
	for i := range 4 {
		rnd := rand.New(rand.NewPCG(w.seed, uint64(1000+i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				switch k := w.keys[rnd.IntN(len(w.keys))]; rnd.IntN(8) {
				case 0:
					w.readFresh(rnd, k)
				case 1, 2:
					w.readAtDoor(rnd, k)
				default:
					w.read(rnd, k)
				}
				pauseFor(ctx, time.Duration(rnd.IntN(52))*time.Millisecond)
			}
		})
	}
	wg.Go(func() { w.flushAtTimes(ctx) })
	wg.Go(func() { w.reloads(ctx) })
	if w.ns.Quota > 0 {
		wg.Go(func() { w.evictions(ctx) })
	}
	for i := range 2 {
		rnd := rand.New(rand.NewPCG(w.seed, uint64(2000+i)))
		wg.Go(func() { w.tallies(ctx, rnd, 200*time.Millisecond) })
	}
	wg.Go(func() { // other writes, so that short logs lose events
		rnd := rand.New(rand.NewPCG(w.seed, 99))
		for i := 0; ctx.Err() == nil; i++ {
			if s, _, _ := w.any(rnd); s != nil {
				_, _ = s.Set(context.Background(), "default", fmt.Sprintf("other%d", i%500), nil, cachesidecar.SetOptions{})
			}
			pauseFor(ctx, time.Duration(rnd.IntN(30))*time.Millisecond)
		}
	})
}

// readBack reads a key through the process that has just written it.
func (w *world) readBack(k *vkey) {
	w.mu.Lock()
	by := ""
	if n := len(k.writes); n > 0 {
		by = k.writes[n-1].Host
	}
	var s *Sidecar
	for _, v := range w.nodes {
		if v.s != nil && !v.paused && by == fmt.Sprint(v.name, ".", v.run) {
			s = v.s
		}
	}
	w.mu.Unlock()
	if s != nil {
		w.readFrom(context.Background(), s, by, k)
	}
}

// fault is an event that may happen in a run. Its weight is its relative frequency.
type fault struct {
	name   string
	weight int
	splits bool // both sides continue; excepted under policy available
	do     func(w *world, v, o *vnode)
}

var faults = []fault{
	{name: "killed", weight: 2, do: func(w *world, v, o *vnode) { // and back within 300 ms, or later
		v.kill()
		time.Sleep([]time.Duration{w.upTo(300), 2*time.Second + w.upTo(6000)}[w.rnd.IntN(2)])
		v.start()
	}},
	{name: "restarted", weight: 3, do: func(w *world, v, o *vnode) {
		v.leave()
		time.Sleep(w.upTo(3000))
		v.start()
	}},
	{name: "two restarted", weight: 2, do: func(w *world, v, o *vnode) { // an heir is started again, too, or killed
		v.leave()
		time.Sleep(w.upTo(1000))
		if w.rnd.IntN(3) > 0 {
			o.leave()
		} else {
			o.kill()
		}
		time.Sleep(w.upTo(500))
		v.start()
		time.Sleep(w.upTo(1000))
		o.start()
	}},
	{name: "paused", weight: 2, do: func(w *world, v, o *vnode) { v.pause(w.upTo(9000)) }},
	{name: "link cut", weight: 2, do: func(w *world, v, o *vnode) { // events come by gossip alone, relayed
		w.net.Cut(v.ip, o.ip)
		time.Sleep(w.upTo(4000))
	}},
	{name: "link cut one way", weight: 2, do: func(w *world, v, o *vnode) {
		w.net.CutOneWay(v.ip, o.ip)
		time.Sleep(w.upTo(4000))
	}},
	{name: "isolated", weight: 2, do: func(w *world, v, o *vnode) { // too short for a split
		w.net.Isolate(v.ip)
		time.Sleep(w.upTo(2500))
	}},
	{name: "split", weight: 6, splits: true, do: func(w *world, v, o *vnode) {
		w.split(w.rnd.IntN(3) > 0, func() bool { return w.rnd.IntN(2) == 0 })
		time.Sleep(w.upTo(10000))
	}},
	{name: "loss", weight: 2, do: func(w *world, v, o *vnode) {
		w.net.SetLoss(0.3)
		time.Sleep(w.upTo(3000))
	}},
	{name: "delay", weight: 2, do: func(w *world, v, o *vnode) {
		w.net.SetDelay(0, 100*time.Millisecond)
		time.Sleep(w.upTo(3000))
	}},
	{name: "clock off", weight: 2, do: func(w *world, v, o *vnode) { // the wall clock
		v.clock.offset.Store([]int64{3600_000, -3600_000, 700, -700, 300}[w.rnd.IntN(5)])
		time.Sleep(w.upTo(5000))
		v.clock.offset.Store(0)
	}},
	{name: "moved", weight: 2, do: func(w *world, v, o *vnode) { // partitions, and back
		weight := v.s.cfg.Weight
		w.net.SetDelay(0, w.upTo(60)) // entries are on their way for some time
		v.s.engine.Node.SetWeight(1)
		time.Sleep(w.upTo(2000))
		v.s.engine.Node.SetWeight(weight)
		time.Sleep(w.upTo(500))
	}},
	{name: "drained", weight: 2, do: func(w *world, v, o *vnode) {
		w.net.SetDelay(0, w.upTo(60))
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, _ = v.s.Drain(ctx, cachesidecar.DrainOptions{}) // is refused if it has just come
		time.Sleep(w.upTo(1000))
		_, _ = v.s.Drain(context.Background(), cachesidecar.DrainOptions{Undo: true})
		time.Sleep(w.upTo(1000))
	}},
	{name: "stutter", weight: 3, do: stutters},
}

// fault lets one random fault happen, and undoes its effects on the network.
func (w *world) fault() {
	possible := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return f.splits && len(w.voters) == 0 })
	sum := 0
	for _, f := range possible {
		sum += f.weight
	}
	at, next := w.rnd.IntN(sum), 0
	for at >= possible[next].weight {
		at -= possible[next].weight
		next++
	}
	i := w.rnd.IntN(len(w.nodes))
	v, o := w.nodes[i], w.nodes[(i+1+w.rnd.IntN(len(w.nodes)-1))%len(w.nodes)]
	possible[next].do(w, v, o)
	w.net.Heal()
	w.net.SetLoss(0)
	w.net.SetDelay(100*time.Microsecond, 500*time.Microsecond)
	w.mu.Lock()
	w.seen["fault: "+possible[next].name]++
	w.mu.Unlock()
}

func (w *world) upTo(ms int) time.Duration { return time.Duration(w.rnd.IntN(ms)) * time.Millisecond }

// loaded makes all values come from a database, in which they are written before their
// keys are deleted from the cache.
func (w *world) loaded() {
	rnd := rand.New(rand.NewPCG(w.seed, 98)) // for the database, in any goroutine
	var mu sync.Mutex
	most := []int{2, 50, 200}[w.rnd.IntN(3)]
	w.origin = newDatabase(func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(rnd.IntN(most*1000)) * time.Microsecond
	})
	ttl, early := []time.Duration{time.Second, 200*time.Millisecond + w.upTo(2000), w.upTo(10000) + 1}[w.rnd.IntN(3)], float64(w.rnd.IntN(10))
	w.ns = Namespace{DefaultTTL: &ttl, ReplicaLag: []time.Duration{0, 0, time.Second}[w.rnd.IntN(3)]}
	if w.apps = w.rnd.IntN(2) == 0; !w.apps {
		w.ns.RefreshEarly = &early
	}
}

// fillOrigin gives each key a row, which is never deleted, if the sidecars load.
func (w *world) fillOrigin() {
	if w.apps {
		return
	}
	w.rows = map[string]bool{}
	for _, k := range w.keys {
		w.rows[string(k.name)] = true
		r, _ := w.commit(k, history.Op{Kind: history.Set})
		w.mu.Lock()
		w.endLocked(r, history.Done)
		w.mu.Unlock()
	}
}

// keepsIn reports whether the hosts of a run keep their entries while they are started again.
func keepsIn(seed uint64) bool { return seed/4%2 == 1 && runtime.GOOS == "linux" }

// random is one run. Every other run is under policy consistent. Only the last fault may
// still be under way when the next fault begins, and none at the end.
func random(t *testing.T, seed uint64, collect bool) (w *world) {
	return randomWith(t, seed, keepsIn(seed), 3, (*world).fault, func(w *world) { w.collect = collect })
}

// randomWith is a run with a number of faults.
func randomWith(t *testing.T, seed uint64, keeps bool, faults int, fault, edit func(*world)) (w *world) {
	bubble.Test(t, func(t *testing.T) {
		w = newWorld(t, seed, 3+int(seed/2%2))
		edit(w)
		w.keys = w.keys[:6]
		w.tally(2, 2)
		if seed%2 == 1 {
			w.voters = []string{"n0", "n1", "n2"}
		}
		w.events = []int{0, 16, 64}[w.rnd.IntN(3)]
		w.noRelay = w.rnd.IntN(4) == 0
		if w.keeps = keeps; w.keeps { // what a log has lost keeps nothing
			w.events *= 64
		}
		if w.rnd.IntN(2) == 0 {
			w.loaded()
			w.fillOrigin()
		}
		if w.rnd.IntN(2) == 0 {
			w.ns.Quota = smallQuota
		}
		w.memcached = true
		w.startAll()
		w.agreed(15 * time.Second)
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		w.randomLoad(ctx, &wg)
		time.Sleep(time.Second)
		for range faults {
			fault(w)
			time.Sleep(w.upTo(3000))
		}
		time.Sleep(w.bound)
		stop()
		wg.Wait()
		w.killAll()
		w.judgeTallied(false)
		w.judgeFresh()
	})
	return w
}

// least is what a hundred runs must have seen; with less they prove little. Fewer runs differ more, and need a
// quarter of their part.
var least = map[string]int64{
	"hits": 50_000, "l1 hits": 20_000, "takeovers": 100_000, "resets": 50, "relayed events": 1_000, "refused fills": 10,
	"refused copies": 100, "fresh reads": 5_000, "handed over": 100, "pauses": 5,
	"loads": 500, "loads shared": 100, "loads detached": 50, "fills": 300, "reads of several": 2_000,
	"touched": 150, "flushes": 100, "flushes refused": 5, "misses after expiry": 1_000, "misses after a flush": 1_000,
	"shared hits": 20_000, "shared hits without a sidecar": 150,
	"evicted": 300, "reloads": 500, "fetched on their way": 15, "events of claims": 10, "events of tokens": 4,
	"events of renewals": 25, "doors: claims done": 80, "doors: renewals done": 30, "doors: tokens done": 40,
	"doors: swaps done": 5, "doors: touches done": 10, "doors: sets done": 50, "doors: soft deletions done": 200,
	"doors: deletions with a version done": 50, "doors: reads done": 5_000, "doors: reads old": 80,
	"doors: memcached's claims done": 100, "doors: memcached's renewals done": 40, "doors: memcached's swaps done": 4,
	"doors: memcached's touches done": 12, "doors: memcached's sets done": 50, "doors: memcached's reads done": 5_000,
	"doors: memcached's soft deletions done": 200, "doors: memcached's reads old": 15,
	"tallied increments": 1_500, "tallied sets": 1_000, "tallied deletions": 800, "tallied reads": 1_200,
}

func init() {
	for _, f := range faults { // each fault
		least["fault: "+f.name] = 2
	}
}

func TestVirtualRandom(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 10*time.Second)
	runs := *randomRuns
	if runs == 0 {
		if runs = 2; testenv.Long() {
			runs = 20
		}
	}
	seed := firstSeed()
	t.Logf("%d runs from seed %d on", runs, seed)
	var mu sync.Mutex
	seen := map[string]int64{}
	var next atomic.Int64
	t.Run("runs", func(t *testing.T) {
		for range runtime.GOMAXPROCS(0) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for n := next.Add(1) - 1; n < int64(runs) && !t.Failed(); n = next.Add(1) - 1 {
					w := random(t, seed+uint64(n), false)
					mu.Lock()
					for name, n := range w.seen {
						seen[name] += n
					}
					seen["hits"] += int64(w.hits)
					seen["misses"] += int64(w.misses)
					mu.Unlock()
				}
			})
		}
	})
	var names []string
	for name, n := range seen {
		names = append(names, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(names)
	t.Logf("seen: %s", strings.Join(names, ", "))
	if t.Failed() || runs < 20 {
		return
	}
	for name, n := range least {
		want := n * int64(runs) / 100
		if runs < 100 {
			want /= 4
		}
		if seen[name] < want {
			t.Errorf("only %d %s in %d runs, want %d", seen[name], name, runs, want)
		}
	}
}
