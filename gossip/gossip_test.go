package gossip

import (
	"flag"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestTwoFindEachOther(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		a := c.start(0)
		if got, want := a.Address(), addressOf(0); got != want {
			t.Errorf("address %q, want %q", got, want)
		}
		b := c.start(1)
		c.until("they find each other", time.Second, c.whole)
		want := Member{Node: "n1", Address: addressOf(1), Alive: true, Meta: Meta{
			Address: ipOf(1) + ":7947", Epoch: 1, Weight: 100, MinVersion: 1, MaxVersion: 1,
		}}
		got := a.Members()
		if len(got) == 1 {
			got[0].since = time.Time{}
		}
		if !slices.Equal(got, []Member{want}) {
			t.Errorf("members %+v, want %+v", got, want)
		}
		if b.member("n0") == nil || len(b.Members()) != 1 {
			t.Errorf("the other's members: %+v", b.Members())
		}
		select {
		case <-a.Changed():
		default:
			t.Error("Changed says nothing")
		}
		synctest.Wait()
		select {
		case <-a.Changed():
			t.Error("Changed says it twice")
		default:
		}
		if health, garbage := a.list.GetHealthScore(), a.garbage.Load(); a.count() != 2 || health != 0 || garbage != 0 {
			t.Errorf("%d members, health %d, garbage %d", a.count(), health, garbage)
		}
	})
}

// missedBy is the time by which all know what gossip told them, or the next exchange of
// everything: once in some thousand times gossip misses a node.
const missedBy = pushPull * 3 / 2

func TestMetaSpreads(t *testing.T) {
	for _, k := range []int{2, 10} {
		t.Run(fmt.Sprint(k, " nodes"), func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				c.startAll(k)
				n := c.nodes[k-1]
				<-c.nodes[0].Changed()
				m := n.cfg.Meta
				var took []time.Duration
				for range 3 {
					for range 5 { // more often than it goes out: the last counts
						m.In = true
						m.Weight++
						testenv.Must(t, n.SetMeta(m))
					}
					took = append(took, c.until("all know it", missedBy, c.all(n.name, func(x Member) bool { return x.Meta == m })))
				}
				slices.Sort(took)
				t.Logf("seen by all after %v", took)
				if took[1] > time.Second {
					t.Errorf("seen by all after %v, want a second at most", took)
				}
				select {
				case <-c.nodes[0].Changed():
				default:
					t.Error("Changed says nothing")
				}
				m.Address = string(make([]byte, maxMeta))
				if err := n.SetMeta(m); err == nil {
					t.Error("a meta that is too long was taken")
				}
			})
		})
	}
}

// TestDetection checks what the package comment says about the time until a dead node
// is missing.
func TestDetection(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	for _, tc := range []struct {
		nodes, killed, runs int
		least, mean, most   time.Duration
	}{
		{2, 1, 20, 1500 * time.Millisecond, 3 * time.Second, 6 * time.Second},
		{3, 1, 20, 1500 * time.Millisecond, 3 * time.Second, 6 * time.Second},
		{3, 2, 10, 2 * time.Second, 6 * time.Second, 8 * time.Second}, // no witness left
		{10, 1, 20, 1500 * time.Millisecond, 3 * time.Second, 6 * time.Second},
		{10, 5, 5, 2 * time.Second, 7 * time.Second, 12 * time.Second},
	} {
		t.Run(fmt.Sprintf("%d of %d", tc.killed, tc.nodes), func(t *testing.T) {
			var least, sum, most time.Duration
			for range tc.runs {
				inBubble(t, func(t *testing.T, c *cluster) {
					c.startAll(tc.nodes)
					dead := slices.Clone(c.nodes[tc.nodes-tc.killed:])
					for _, n := range dead {
						n.kill()
					}
					health := 0
					d := c.until("all miss it", tc.most, func() bool {
						for _, n := range c.nodes {
							health = max(health, n.list.GetHealthScore())
						}
						return c.whole()
					})
					if tc.nodes == 10 && tc.killed == 1 && health > 0 {
						t.Errorf("somebody thinks that itself is not well: %d", health)
					}
					for _, n := range dead {
						if !c.all(n.name, missing)() {
							t.Errorf("%s is not missing", n.name)
						}
					}
					if d < tc.least {
						t.Errorf("missing after %v already", d)
					}
					if least == 0 || d < least {
						least = d
					}
					sum += d
					most = max(most, d)
				})
			}
			mean := sum / time.Duration(tc.runs)
			t.Logf("missing after %v to %v, %v on average", least, most, mean)
			if mean > tc.mean {
				t.Errorf("missing after %v on average, want %v", mean, tc.mean)
			}
		})
	}
}

func TestLeave(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(10)
		n := c.nodes[5]
		n.end()
		d := c.until("all know that it left", missedBy, c.all(n.name, missing))
		t.Logf("seen by all after %v", d)
		if err := <-n.done; err != nil {
			t.Error(err)
		}
		n.done <- nil // for inBubble
		c.start(5, epoch(2))
		c.until("it is back", missedBy, c.all(n.name, aliveAs(2)))
	})
}

// TestEndsAlone: a node that leaves does not wait for nodes that are not there.
func TestEndsAlone(t *testing.T) {
	for _, tc := range []struct {
		name  string
		begin func(c *cluster) *node
		limit time.Duration
	}{
		{"nobody was ever there", func(c *cluster) *node {
			n := c.start(0, join())
			time.Sleep(time.Minute)
			return n
		}, 0},
		{"just cut off", func(c *cluster) *node {
			c.startAll(3)
			c.Isolate(c.nodes[1].ip)
			return c.nodes[1]
		}, leaveTimeout},
		{"about to join who does not answer", func(c *cluster) *node {
			n := c.start(1)
			time.Sleep(time.Second)
			return n
		}, 2 * streamTimeout},
		{"at once", func(c *cluster) *node { return c.start(0) }, leaveTimeout},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				n := tc.begin(c)
				start := time.Now()
				n.end()
				if err := <-n.done; err != nil {
					t.Error(err)
				}
				if d := time.Since(start); d > tc.limit {
					t.Errorf("it took %v, want %v", d, tc.limit)
				}
				n.done <- nil // for inBubble
			})
		})
	}
}

// TestClose closes without Run, twice, and while Run runs.
func TestClose(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		c := &cluster{Net: newNet(), t: t}
		g, err := New(Config{Node: "a", Bind: addressOf(7), Log: slog.New(slog.DiscardHandler), Transport: c.Host(ipOf(7)).Transport(port)})
		testenv.Must(t, err)
		for range 2 {
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		}
		n := c.start(0)
		n.Broadcast([]byte("x"))
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		n.stop()
		if err := <-n.done; err != nil {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
	})
}

// allSizes is given in CI's random-ci. Without it clusters are smaller.
var allSizes = flag.Bool("gossip.all", false, "clusters of all sizes, and long splits of large ones")

// sized returns n, or less without -gossip.all.
func sized(n, less int) int {
	if *allSizes {
		return n
	}
	return less
}

// TestRestart: a name that comes back, before or after it was missed, is seen in its
// new process. As a rule that takes no longer than the limit. If the gossip did not
// reach a node, it takes until the next full exchange.
func TestRestart(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	t.Parallel()
	const elsewhere = 40
	for _, tc := range []struct {
		name  string
		leave bool
		down  time.Duration
		edit  func(*Config)
		limit time.Duration
		sees  time.Duration // at most, of each run: one that joins nobody may have to wait for an exchange
	}{
		{"at once, same address", false, 300 * time.Millisecond, join(addressOf(0)), time.Second, time.Second},
		{"at once, same address, and joins nobody", false, 300 * time.Millisecond, join(), 3 * time.Second, pushPull * 3 / 2},
		{"at once, elsewhere", false, 300 * time.Millisecond, at(elsewhere), 8 * time.Second, time.Second},
		{"later, same address", false, time.Minute, join(addressOf(0)), rejoinEvery * 3 / 2, time.Second},
		{"later, same address, and joins nobody", false, time.Minute, join(), rejoinEvery * 3 / 2, pushPull * 3 / 2},
		{"later, elsewhere", false, time.Minute, at(elsewhere), rejoinEvery * 3 / 2, time.Second},
		{"after it left, same address", true, 300 * time.Millisecond, join(addressOf(0)), time.Second, time.Second},
		{"after it left, elsewhere", true, 300 * time.Millisecond, at(elsewhere), time.Second, time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, k := range []int{2, 3, sized(10, 5)} {
				var took, sees []time.Duration
				for range 3 {
					inBubble(t, func(t *testing.T, c *cluster) {
						c.startAll(k)
						n := c.nodes[k-1]
						if tc.leave {
							n.end()
						} else {
							n.kill()
						}
						time.Sleep(tc.down)
						next := c.start(k-1, epoch(2), tc.edit)
						took = append(took, c.until("all see the new process", pushPull*3/2, c.all(n.name, aliveAs(2))))
						sees = append(sees, c.until("it sees all", tc.sees, c.whole))
						if got, want := c.nodes[0].member(n.name).Address, next.Address(); got != want {
							t.Errorf("its address is %s, want %s", got, want)
						}
						time.Sleep(2 * conflictAfter)
						for _, m := range c.nodes {
							if told := m.told(); len(told) > 0 {
								t.Errorf("%s was told of a conflict: %s", m.name, told)
							}
						}
					})
				}
				slices.Sort(took)
				slices.Sort(sees)
				t.Logf("%d nodes: seen by all after %v, sees all %v later", k, took, sees)
				if took[1] > tc.limit {
					t.Errorf("%d nodes: seen by all after %v, want %v", k, took[1], tc.limit)
				}
				if sees[1] > time.Second {
					t.Errorf("%d nodes: sees all %v later, want 1s", k, sees[1])
				}
			}
		})
	}
}

// TestConflict: there are two live processes of one name.
func TestConflict(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(3)
		old := c.nodes[2]
		other := c.start(9, named(old.name), epoch(2))
		c.until("the newcomer is told", conflictAfter+2*contestEvery, func() bool { return len(other.told()) > 0 })
		want := fmt.Sprintf("n2 at %s and %s", addressOf(9), addressOf(2))
		if got := other.told()[0]; got != want {
			t.Errorf("it was told %q, want %q", got, want)
		}
		time.Sleep(4 * conflictAfter)
		if got := len(other.told()); got < 3 || got > 6 {
			t.Errorf("it was told %d times in %v, want about 5", got, 5*conflictAfter)
		}
		want = fmt.Sprintf("n2 at %s and %s", addressOf(2), addressOf(9))
		if got := c.nodes[0].told(); len(got) == 0 || got[0] != want {
			t.Errorf("the others were told %q, want %q", got, want)
		}
		// The first process has the name, until it goes.
		for _, n := range c.nodes[:2] {
			if m := n.member("n2"); m == nil || !aliveAs(1)(*m) {
				t.Errorf("%s knows %+v", n.name, m)
			}
		}
		old.kill()
		c.until("the newcomer has the name", 8*time.Second, c.all("n2", aliveAs(2)))
		told := len(other.told())
		time.Sleep(4 * conflictAfter)
		if got := len(other.told()); got != told {
			t.Errorf("it was told %d times more after that", got-told)
		}
		// It no longer asks others about its name.
		if got, err := other.targets(t.Context(), false); len(got) > 0 || err != nil {
			t.Errorf("it would join %v while no node is missing: %v", got, err)
		}
	})
}

// TestConflictLasts checks what counts as a conflict.
func TestConflictLasts(t *testing.T) {
	const every = conflictAfter / 3
	for _, tc := range []struct {
		name string
		step func(i int, d delegate, known, other *memberlist.Node)
		want int
	}{
		{"the same", func(int, delegate, *memberlist.Node, *memberlist.Node) {}, 2},
		{"ever another", func(i int, _ delegate, _, other *memberlist.Node) { other.Port = uint16(i) }, 0},
		{"seldom", func(i int, _ delegate, _, _ *memberlist.Node) { time.Sleep(conflictGap) }, 0},
		{"it was settled meanwhile", func(i int, d delegate, known, _ *memberlist.Node) {
			d.NotifyLeave(known)
			d.NotifyJoin(known)
		}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, c *cluster) {
				n := c.start(0, join())
				d := delegate{n.Gossip}
				known := &memberlist.Node{Name: "x", Addr: net.IP{10, 0, 9, 1}, Port: 1, Meta: n.meta}
				other := &memberlist.Node{Name: "x", Addr: net.IP{10, 0, 9, 2}, Port: 1, Meta: n.meta}
				d.NotifyJoin(known)
				for i := range 8 { // 2.3 × conflictAfter
					tc.step(i, d, known, other)
					d.NotifyConflict(known, other)
					time.Sleep(every)
				}
				if got := n.told(); len(got) != tc.want {
					t.Errorf("told %q, want %d", got, tc.want)
				}
				d.NotifyLeave(known)
			})
		})
	}
}

func TestAdvertise(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		for advertise, want := range map[string]string{
			"":         addressOf(0),
			"10.9.9.9": "10.9.9.9:7946",
			"fd00::1":  "[fd00::1]:7946",
		} {
			g, err := New(Config{Node: "a", Bind: addressOf(0), Advertise: advertise, Log: slog.New(slog.DiscardHandler), Transport: c.Host(ipOf(0)).Transport(port)})
			testenv.Must(t, err)
			if got := g.Address(); got != want {
				t.Errorf("advertise %q: address %q, want %q", advertise, got, want)
			}
			_ = g.Close()
		}
	})
}

// TestHundred: as many nodes as a cluster may well have, or 40 without -gossip.all.
func TestHundred(t *testing.T) {
	testenv.Takes(t, time.Second)
	t.Parallel()
	inBubble(t, func(t *testing.T, c *cluster) {
		for i := range sized(100, 40) {
			c.start(i) // all at once
		}
		d := c.until("all find each other", 5*time.Second, c.whole)
		t.Logf("all find each other after %v", d)
		time.Sleep(10 * time.Second)

		last := len(c.nodes) - 1
		n := c.nodes[last]
		n.kill()
		d = c.until("all miss it", 9*time.Second, c.all(n.name, missing))
		t.Logf("missing after %v", d)
		if d < 3*time.Second {
			t.Errorf("missing after %v already", d)
		}
		c.start(last, at(150), epoch(2))
		d = c.until("all see it elsewhere", 3*missedBy, c.all(n.name, aliveAs(2)))
		t.Logf("back after %v", d)

		c.nodes[20].end()
		d = c.until("all know that one left", 3*missedBy, c.all("n20", missing))
		t.Logf("left after %v", d)

		for i := range 20 {
			if !c.nodes[i].Broadcast(fmt.Append(nil, "datagram ", i)) {
				t.Error("there was no room for a datagram")
			}
		}
		time.Sleep(2 * time.Second)
		var reached int
		for _, n := range c.nodes {
			reached += len(n.got())
		}
		if want := 20 * (len(c.nodes) - 1); reached < want*99/100 {
			t.Errorf("datagrams came %d times, want %d", reached, want)
		}
		if !c.whole() {
			t.Error("somebody is missing")
		}
	})
}
