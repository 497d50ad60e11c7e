package hosts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// strict is an app that counts up the values of its own keys, through one host, and
// accepts neither an error nor a miss nor another value until ctx ends.
func (w *world) strict(ctx context.Context, wg *sync.WaitGroup, v *vnode, s *Sidecar, keys int) (rounds *int) {
	rounds = new(int)
	fail := func(format string, args ...any) {
		if ctx.Err() == nil {
			w.fail(format, args...)
		}
	}
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			*rounds = i / keys
			key, value := fmt.Sprintf("%s.%d", v.name, i%keys), fmt.Sprint(*rounds)
			if _, err := s.Set(context.Background(), "default", key, []byte(value), cachesidecar.SetOptions{}); err != nil {
				fail("SET %s of round %s: %v", key, value, err)
			}
			for _, fresh := range []bool{false, true} {
				it, err := s.Get(context.Background(), "default", key, cachesidecar.GetOptions{Fresh: fresh})
				if err != nil || string(it.Value) != value {
					fail("GET %s, fresh %v, of round %s: %q, %v", key, fresh, value, it.Value, err)
				}
			}
			pauseFor(ctx, 3*time.Millisecond)
		}
	})
	return rounds
}

// untilGivenUp is a context that ends once v has given up all that it owned. From then
// on, v may end at any moment.
type untilGivenUp struct {
	context.Context
	s *Sidecar
}

func (u untilGivenUp) Err() error {
	if u.s.engine.Node.Owned().Len() == 0 {
		return context.Canceled
	}
	return u.Context.Err()
}

// TestVirtualDrain drains a host under load and takes the drain back. No request through
// any host fails or misses, and no read returns an older value.
func TestVirtualDrain(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 4*time.Second)
	for name, voters := range policies {
		t.Run(name, func(t *testing.T) {
			withNodes(t, 3, nil, Namespace{}, func(w *world) {
				ctx, stop := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				var rounds []*int
				for _, v := range w.nodes {
					rounds = append(rounds, w.strict(ctx, &wg, v, v.s, 50))
				}
				v := w.nodes[1]
				for range 3 {
					before := v.s.engine.Node.Owned().Len()
					time.Sleep(w.upTo(1000))
					d, err := v.s.Drain(ctx, cachesidecar.DrainOptions{})
					if err != nil || d.Partitions != before || d.NotTaken != 0 || d.Entries < 10 || d.Undone {
						w.fail("drain: %+v, %v; it owned %d", d, err, before)
					}
					if n := v.s.engine.Node.Owned().Len(); n != 0 {
						w.fail("it owns %d partitions", n)
					}
					if d.TookMS > w.bound.Milliseconds() {
						w.fail("the handover took %d ms", d.TookMS)
					}
					for _, o := range w.nodes {
						w.wants(time.Second, "n1", cluster.StateDrained, o)
					}
					v.s.engine.Node.SetWeight(uint32(20 + w.rnd.IntN(5))) // does not end the drained state
					time.Sleep(w.upTo(5000))
					if words, ready := v.s.readiness(); !ready || !strings.Contains(words, "drained") {
						w.fail("readiness: %q, %v", words, ready)
					}
					if st := v.s.telemetry.ClusterState(); !st.Drained || st.Owned != 0 {
						w.fail("drained: %v, it owns %d", st.Drained, st.Owned)
					}
					if d, err = v.s.Drain(ctx, cachesidecar.DrainOptions{Undo: true}); err != nil || !d.Undone {
						w.fail("undo: %+v, %v", d, err)
					}
					time.Sleep(time.Second) // the others have heard of it
					w.agreed(15 * time.Second)
					time.Sleep(w.upTo(2000))
					if st := v.s.telemetry.ClusterState(); st.Drained || st.Owned == 0 {
						w.fail("drained: %v, it owns %d", st.Drained, st.Owned)
					}
				}
				stop()
				wg.Wait()
				for i, n := range rounds {
					if *n < 10 {
						w.fail("n%d: %d rounds", i, *n)
					}
				}
			}, voters...)
		})
	}
}

// TestLengthyVirtualDrainUndone takes drains back under load when they have hardly begun. No
// request through any host fails or misses: what the host had given up is handed over
// before the host gets it back.
func TestLengthyVirtualDrainUndone(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	for name, voters := range policies {
		t.Run(name, func(t *testing.T) {
			withNodes(t, 3, nil, Namespace{}, func(w *world) {
				ctx, stop := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				for _, v := range w.nodes {
					w.strict(ctx, &wg, v, v.s, 50)
				}
				node := w.nodes[1].s.engine.Node
				for after := time.Duration(1); after < 12; after++ {
					var drained sync.WaitGroup
					drained.Go(func() { _, _ = w.nodes[1].s.Drain(ctx, cachesidecar.DrainOptions{}) })
					time.Sleep(after * after * time.Millisecond)
					d, err := w.nodes[1].s.Drain(ctx, cachesidecar.DrainOptions{Undo: true})
					if err != nil || !d.Undone {
						w.fail("undo: %+v, %v", d, err)
					}
					drained.Wait()
					time.Sleep(w.bound / 2)
					if node.Owned().Len() == 0 || w.nodes[1].s.telemetry.ClusterState().Drained {
						w.fail("undone after %v, it owns %d partitions", after*after*time.Millisecond, node.Owned().Len())
					}
					w.agreed(15 * time.Second)
				}
				stop()
				wg.Wait()
			}, voters...)
		})
	}
}

// TestLengthyVirtualDrainUndoneLarge takes drains back while the others have all partitions, and
// fetch the entries yet: no entry is lost.
func TestLengthyVirtualDrainUndoneLarge(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	for policy, voters := range policies {
		t.Run(policy, func(t *testing.T) {
			withNodes(t, 3, nil, Namespace{}, func(w *world) {
				w.net.SetDelay(2*time.Millisecond, 5*time.Millisecond)
				const keys = 250
				v, value := w.nodes[1], strings.Repeat("value", 32<<10/5) // 2.7 MB on each host, fetched by 256 KiB
				for i := range keys {
					if r := v.set(fmt.Sprint("key", i), value); r.Status != wire.OK {
						w.fail("SET: %s %s", r.Status, r.Message)
					}
				}
				early := 0
				for after := time.Duration(2); after < 10; after++ {
					var drained sync.WaitGroup
					drained.Go(func() { _, _ = v.s.Drain(context.Background(), cachesidecar.DrainOptions{}) })
					time.Sleep(after * after * time.Millisecond)
					if v.s.engine.Node.Owned().Empty() && v.s.engine.Handoff.OpenOffers() > 0 {
						early++
					}
					for range 2 { // the second finds the first not done
						if d, err := v.s.Drain(context.Background(), cachesidecar.DrainOptions{Undo: true}); err != nil || !d.Undone {
							w.fail("undo: %+v, %v", d, err)
						}
					}
					drained.Wait()
					time.Sleep(w.bound)
					w.agreed(15 * time.Second)
					time.Sleep(w.bound)
					lost := 0
					for i := range keys {
						if r := w.nodes[2].get(fmt.Sprint("key", i), 0); r.Status != wire.OK {
							lost++
						}
					}
					if lost > 0 {
						w.fail("undone after %v: %d entries are lost", after*after*time.Millisecond, lost)
					}
				}
				if early == 0 {
					t.Error("no drain was undone while entries were fetched")
				}
			}, voters...)
		})
	}
}

// TestVirtualLeaveTime drains a host whose entries take longer to fetch than its leave time: the drain ends
// with that time. With a longer one all entries come first, and the log tells how far it is.
func TestVirtualLeaveTime(t *testing.T) {
	t.Parallel()
	for _, leaveTime := range []time.Duration{time.Second, time.Minute} {
		var log testenv.Text
		logs := func(w *world) {
			w.nodes[1].edit = func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) }
		}
		withEdited(t, 2, nil, Namespace{}, logs, func(w *world) {
			const keys = 1000
			v, value := w.nodes[1], strings.Repeat("value", 4<<10/5) // 2 MB on the host, fetched by 256 KiB
			for i := range keys {
				if r := w.nodes[i%2].set(fmt.Sprint("key", i), value); r.Status != wire.OK {
					w.fail("SET: %s %s", r.Status, r.Message)
				}
			}
			w.net.SetDelay(150*time.Millisecond, 150*time.Millisecond)
			v.s.engine.Node.SetLeaveTime(leaveTime)
			d, err := v.s.Drain(context.Background(), cachesidecar.DrainOptions{})
			took := time.Duration(d.TookMS) * time.Millisecond
			if err != nil || d.NotTaken != 0 {
				w.fail("leave_time %v: %+v, %v", leaveTime, d, err)
			}
			if leaveTime == time.Second {
				if took < leaveTime || took > leaveTime+100*time.Millisecond || v.s.engine.Handoff.OpenOffers() == 0 {
					w.fail("after %v, %d offers", took, v.s.engine.Handoff.OpenOffers())
				}
				return
			}
			if took < engine.ProgressEvery || !strings.Contains(log.String(), `msg="handing over" entries=`) {
				w.fail("after %v, log: %s", took, log.String())
			}
			for i := range keys {
				if r := w.nodes[0].get(fmt.Sprint("key", i), 0); r.Status != wire.OK {
					w.fail("key %d: %s", i, r.Status)
				}
			}
		})
	}
}

// TestVirtualLeaveServes ends a host under load, and starts it again soon after. While it
// hands over, it serves, and no request through any host fails or misses. No request
// through another host does after that.
func TestVirtualLeaveServes(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	for policy, voters := range policies {
		t.Run(policy, func(t *testing.T) {
			withNodes(t, 3, nil, Namespace{}, func(w *world) {
				v := w.nodes[1]
				others, stopOthers := context.WithCancel(context.Background())
				var wg, ownApp sync.WaitGroup
				for _, o := range w.nodes {
					if o == v {
						w.strict(untilGivenUp{context.Background(), v.s}, &ownApp, o, o.s, 50)
					} else {
						w.strict(others, &wg, o, o.s, 50)
					}
				}
				time.Sleep(2 * time.Second)
				begun := time.Now()
				v.stop()
				ownApp.Wait()
				v.leave()
				if took := time.Since(begun); took > w.bound {
					w.fail("it took %v to leave", took)
				}
				time.Sleep(500 * time.Millisecond)
				v.start()
				time.Sleep(3 * w.bound)
				stopOthers()
				wg.Wait()
			}, voters...)
		})
	}
}

// TestVirtualDrainTwice drains a host twice at the same time: both wait for one end.
// Undone in the middle, both say so.
func TestVirtualDrainTwice(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		v := w.nodes[0]
		both := func() (list [2]cachesidecar.Drained) {
			var wg sync.WaitGroup
			for i := range list {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond)
					var err error
					if list[i], err = v.s.Drain(context.Background(), cachesidecar.DrainOptions{}); err != nil {
						w.fail("drain %d: %v", i, err)
					}
				})
			}
			wg.Wait()
			return list
		}
		v.set("key", "value")
		if list := both(); list[0].Partitions == 0 || list[0].Partitions != list[1].Partitions || list[0].TookMS != list[1].TookMS {
			w.fail("two drains: %+v", list)
		}
		undo := func() {
			if d, err := v.s.Drain(context.Background(), cachesidecar.DrainOptions{Undo: true}); err != nil || !d.Undone {
				w.fail("undo: %+v, %v", d, err)
			}
		}
		undo()
		time.Sleep(time.Second) // the other has heard of it
		w.agreed(15 * time.Second)
		w.net.Isolate(w.nodes[1].ip) // nothing is taken over
		time.AfterFunc(200*time.Millisecond, undo)
		if list := both(); !list[0].Undone || !list[1].Undone {
			w.fail("two drains, undone: %+v", list)
		}
		w.net.Heal()
		w.agreed(15 * time.Second)
		if d, err := v.s.Drain(context.Background(), cachesidecar.DrainOptions{Undo: true}); err != nil || d.Undone {
			w.fail("undo without a drain: %+v, %v", d, err)
		}
	})
}

// TestVirtualDrainOfTheLast checks that the only host that owns keys is not drained
// unless forced. It then owns nothing until the drain is undone.
func TestVirtualDrainOfTheLast(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		a, b := w.nodes[0], w.nodes[1]
		drain := func(v *vnode, o cachesidecar.DrainOptions) error {
			_, err := v.s.Drain(context.Background(), o)
			return err
		}
		if err := drain(a, cachesidecar.DrainOptions{}); err != nil {
			w.fail("%v", err)
		}
		if err := drain(b, cachesidecar.DrainOptions{}); !errors.Is(err, cachesidecar.ErrNoOwner) || !strings.Contains(err.Error(), "force") {
			w.fail("the last host: %v", err)
		}
		if n := b.s.engine.Node.Owned().Len(); n != kv.Partitions {
			w.fail("refused, and it owns %d", n)
		}
		if err := drain(b, cachesidecar.DrainOptions{Force: true}); err != nil {
			w.fail("forced: %v", err)
		}
		if n := b.s.engine.Node.Owned().Len(); n != 0 {
			w.fail("forced, and it owns %d", n)
		}
		if r := b.set("key", "value"); !r.Status.IsError() {
			w.fail("a write without any owner: %v", r.Status)
		}
		for _, v := range w.nodes {
			if err := drain(v, cachesidecar.DrainOptions{Undo: true}); err != nil {
				w.fail("%v", err)
			}
		}
		w.agreed(15 * time.Second)
		if r := b.set("key", "value"); r.Status.IsError() {
			w.fail("a write afterwards: %v %s", r.Status, r.Message)
		}
	})
}

// TestVirtualDrainAtStartUndone checks that a drain that waits until its host is in can be
// taken back, and ends with its caller's context and with the host.
func TestVirtualDrainAtStartUndone(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		v := w.nodes[1]
		begin := func(ctx context.Context) (told func() (cachesidecar.Drained, error)) {
			v.leave()
			v.start()
			s := v.s // while it runs
			var d cachesidecar.Drained
			var err error
			done := make(chan struct{})
			go func() {
				defer close(done)
				d, err = s.Drain(ctx, cachesidecar.DrainOptions{})
			}()
			time.Sleep(time.Millisecond)
			return func() (cachesidecar.Drained, error) { <-done; return d, err }
		}
		told := begin(context.Background())
		if d, err := v.s.Drain(context.Background(), cachesidecar.DrainOptions{Undo: true}); err != nil || !d.Undone {
			w.fail("undo: %+v, %v", d, err)
		}
		if d, err := told(); err != nil || !d.Undone {
			w.fail("the drain that was undone: %+v, %v", d, err)
		}
		w.agreed(15 * time.Second)

		ctx, cancel := context.WithCancel(context.Background())
		told = begin(ctx)
		cancel()
		if d, err := told(); err == nil {
			w.fail("the drain that was given up: %+v", d)
		}
		w.agreed(15 * time.Second)

		for _, o := range []*vnode{w.nodes[0], w.nodes[2]} {
			o.leave() // then v does not come in
		}
		told = begin(context.Background())
		began := time.Now()
		v.leave()
		if took := time.Since(began); took > time.Second {
			w.fail("beside a drain that waits, the end took %v", took)
		}
		if d, err := told(); err == nil {
			w.fail("the drain of a host that ends: %+v", d)
		}
		for _, o := range w.nodes {
			o.start()
		}
		w.agreed(60 * time.Second)
	})
}

// TestVirtualDrainAtStart drains a host that was just started, and does not know the
// others yet.
func TestVirtualDrainAtStart(t *testing.T) {
	t.Parallel()
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		v := w.nodes[1]
		v.leave()
		v.start()
		if d, err := v.s.Drain(context.Background(), cachesidecar.DrainOptions{}); err != nil || d.NotTaken != 0 {
			w.fail("drain at the start: %+v, %v", d, err)
		}
		if n := v.s.engine.Node.Owned().Len(); n != 0 {
			w.fail("drained, and it owns %d partitions", n)
		}
		if d, err := v.s.Drain(context.Background(), cachesidecar.DrainOptions{Undo: true}); err != nil || !d.Undone {
			w.fail("undo: %+v, %v", d, err)
		}
		w.agreed(15 * time.Second)
	})
}

// TestDrainAlone checks that a host that is alone for good keeps what it owns.
func TestDrainAlone(t *testing.T) {
	s := start(t, Config{})
	if _, err := s.Drain(t.Context(), cachesidecar.DrainOptions{}); !errors.Is(err, cachesidecar.ErrNoOwner) ||
		!strings.Contains(err.Error(), "keeps its entries") {
		t.Errorf("alone: %v", err)
	}
	d, err := s.Drain(t.Context(), cachesidecar.DrainOptions{Force: true})
	if err != nil || d.Partitions != kv.Partitions || d.NotTaken != kv.Partitions {
		t.Errorf("forced: %+v, %v", d, err)
	}
	if _, err := s.Set(t.Context(), "default", "key", []byte("value"), cachesidecar.SetOptions{}); err != nil {
		t.Errorf("a write afterwards: %v", err)
	}
	if d, err := s.Drain(t.Context(), cachesidecar.DrainOptions{Undo: true}); err != nil || d.Undone {
		t.Errorf("undo: %+v, %v", d, err)
	}
	if _, err := s.Drain(t.Context(), cachesidecar.DrainOptions{Force: true, Stop: true}); err != nil {
		t.Error(err)
	}
	<-s.Ending()
}
