package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/race"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// countOwners counts the partitions that some host of the list serves, and those that more than
// one serves.
func countOwners(list ...*vnode) (some, more int) {
	for i := range uint16(kv.Partitions) {
		n := 0
		for _, v := range list {
			if v.s.engine.Node.OwnershipEpoch(i) != 0 {
				n++
			}
		}
		some += min(n, 1)
		more += max(0, n-1)
	}
	return some, more
}

// knowsIn says whether a host lists another one as in.
func knowsIn(v, other *vnode) bool {
	return slices.ContainsFunc(v.s.engine.Node.Members(), func(m cluster.Member) bool {
		return m.ID == other.s.engine.Node.Self() && m.State == cluster.StateIn
	})
}

// TestLengthyVirtualRelayRestarts cuts the link between two hosts of three, and restarts the third
// about when the two come in. No partition has two owners then. One case is left, of which
// internal/cluster/README.md tells: both have just come in, and neither knows it of the other. Then
// it is rare, 2 to 4 of 100: without the wait for a host that was not told, it is the rule.
func TestLengthyVirtualRelayRestarts(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 10*time.Second)
	const most = 8
	runs := 48
	if race.Enabled { // ten times as slow
		runs = 8
	}
	left, split := 0, 0
	for i := range runs {
		seed, kill := uint64(1+i/4), []time.Duration{3020, 3028, 3040, 3056}[i%4]
		bubble.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, 3)
			n0, n1, n2 := w.nodes[0], w.nodes[1], w.nodes[2]
			w.net.Cut(n0.ip, n2.ip)
			n1.start()
			time.Sleep(w.upTo(300))
			n0.start()
			time.Sleep(w.upTo(300))
			n2.start()
			time.Sleep(kill*time.Millisecond - time.Since(w.begun))
			n1.kill()
			time.Sleep(60 * time.Millisecond)
			untold := n0.s.engine.Node.Stats().In && n2.s.engine.Node.Stats().In && !knowsIn(n0, n2) && !knowsIn(n2, n0)
			if untold {
				left++
			}
			n1.start()
			for time.Since(w.begun) < 9*time.Second {
				if _, more := countOwners(n0, n2); more > 0 && untold {
					split++
					break
				} else if more > 0 {
					t.Errorf("seed %d, killed after %d ms: %d partitions have two owners after %v", seed, kill, more, time.Since(w.begun))
					break
				}
				time.Sleep(5 * time.Millisecond)
			}
			w.killAll()
		})
	}
	t.Logf("in %d of %d runs neither knew of the other, in %d of these partitions had two owners", left, runs, split)
	if split > most {
		t.Errorf("partitions had two owners in %d of %d runs in which neither knew of the other, %d is the most", split, left, most)
	}
}

// TestVirtualBlockedAsTheyComeIn blocks the port between two hosts half a second before both
// come in. Gossip passes all the time, so neither takes the other for dead.
func TestVirtualBlockedAsTheyComeIn(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		var mu sync.Mutex
		var conns []net.Conn
		var blocked atomic.Bool
		for _, v := range w.nodes {
			v.dials = func(ctx context.Context, to string) (net.Conn, error) {
				if blocked.Load() {
					return nil, errors.New("blocked")
				}
				nc, err := v.host.Dial(ctx, to)
				if err == nil {
					mu.Lock()
					conns = append(conns, nc)
					mu.Unlock()
				}
				return nc, err
			}
			v.start()
		}
		time.Sleep(2500 * time.Millisecond)
		blocked.Store(true)
		mu.Lock()
		for _, nc := range conns {
			nc.Close()
		}
		mu.Unlock()
		for range 400 {
			time.Sleep(50 * time.Millisecond)
			if _, more := countOwners(w.nodes...); more > 0 {
				t.Errorf("%d partitions have two owners after %v", more, time.Since(w.begun))
				break
			}
		}
		if some, _ := countOwners(w.nodes[0]); some != kv.Partitions {
			t.Errorf("the first host serves %d of %d partitions", some, kv.Partitions)
		}
		w.killAll()
	})
}

// TestVirtualRefusedHost: a host whose clock is off is refused. It must not hold up others
// that leave, start or take over.
func TestVirtualRefusedHost(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		n0, n1, n2 := w.nodes[0], w.nodes[1], w.nodes[2]
		n0.start()
		n1.start()
		w.agreed(15 * time.Second)
		time.Sleep(5 * time.Second)
		ctx := context.Background()
		for i := range 300 {
			mustSet(t, n0.s, fmt.Sprint("key", i), []byte("v"))
		}
		n2.clock.offset.Store(10_000)
		n2.start()
		time.Sleep(300 * time.Millisecond)

		n0.leave()
		if some, _ := countOwners(n1); some != kv.Partitions {
			t.Errorf("after the other host has left, %d partitions are served", some)
		}
		time.Sleep(500 * time.Millisecond)
		n0.start()
		late := 0
		for range 500 {
			time.Sleep(10 * time.Millisecond)
			if some, _ := countOwners(n0, n1); some != kv.Partitions {
				late++
			}
		}
		if late > 50 {
			t.Errorf("after a host has started, not all is served for %v", time.Duration(late)*10*time.Millisecond)
		}
		lost := 0
		for i := range 300 {
			if _, err := n1.s.Get(ctx, "default", fmt.Sprint("key", i), cachesidecar.GetOptions{}); err != nil {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("%d of 300 keys are lost", lost)
		}

		// The refused host is restarted again and again. Gossip may take so long to miss the killed
		// one that n1, which cannot poll it, goes out first and comes in again.
		n0.kill()
		killed := time.Now()
		for some := 0; some != kv.Partitions; some, _ = countOwners(n1) {
			if took := time.Since(killed); took > 15*time.Second {
				t.Fatalf("%v after the other host was killed, %d partitions are served", took, some)
			}
			time.Sleep(1400 * time.Millisecond)
			n2.kill()
			time.Sleep(100 * time.Millisecond)
			n2.start()
		}
		n1.kill()
		n2.kill()
		time.Sleep(30 * time.Second)
	})
}
