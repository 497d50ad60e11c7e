package gossip

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	gt "github.com/cachesidecar/cachesidecar/internal/testing/gossiptest"
)

// acquaintances are processes that have been met.
type acquaintances struct {
	mu sync.Mutex
	m  map[string]bool
}

func (a *acquaintances) known(node string, m Meta) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.m[fmt.Sprint(node, m.Epoch)]
}

func (a *acquaintances) meet(node string, epoch uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.m[fmt.Sprint(node, epoch)] = true
}

// invent tells a node of a process.
func (c *cluster) invent(to int, node string, at int, epoch uint64, incarnation uint32) {
	tr := c.Host(ipOf(200)).Transport(0)
	meta := gt.Meta(ipOf(at)+":7947", epoch, 1<<32-1, true, 1<<63)
	_, _ = tr.WriteTo(gt.Labelled("test", gt.Alive(node, net.ParseIP(ipOf(at)), port, incarnation, meta)), addressOf(to))
	_ = tr.Shutdown()
}

// TestUnknownAreKeptApart: memberlist never hears of processes that have not been
// met. They are not probed and not passed on, and few are remembered. A process that
// is met is a member soon, although it is told of no more.
func TestUnknownAreKeptApart(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		a := &acquaintances{m: map[string]bool{"n01": true, "n11": true, "n21": true}}
		for i := range 3 {
			c.start(i, func(cfg *Config) { cfg.Known = a.known })
		}
		c.until("those that were met find each other", 2*time.Second, c.whole)
		real := c.start(3, epoch(1), func(cfg *Config) { cfg.Known = a.known })
		for i := range 4 * maxUnknown {
			c.invent(0, fmt.Sprint("fake", i), 100, uint64(i), 1)
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Second)
		for _, n := range c.nodes[:3] {
			s := n.Stats()
			if s.Members != 3 || len(n.Members()) != 2 || n.list.NumMembers() != 3 {
				t.Errorf("%s has %d members, memberlist %d", n.name, s.Members, n.list.NumMembers())
			}
			if n == c.nodes[0] && (s.Unknown != maxUnknown || s.Forgotten < 2*maxUnknown) || n != c.nodes[0] && s.Unknown > 1 {
				t.Errorf("%s remembers %d that are unknown, and has forgotten %d", n.name, s.Unknown, s.Forgotten)
			}
		}
		a.meet("n3", 1)
		for _, n := range c.nodes[:3] {
			n.Met("n3")
			if n == real {
				t.Fatal("the order of nodes")
			}
		}
		c.until("the one that was met is a member", 10*time.Second, c.all("n3", aliveAs(1)))
		time.Sleep(2 * unknownFor)
		if u := c.nodes[0].Unknown(); len(u) > 0 {
			t.Errorf("%d are remembered that no node tells of", len(u))
		}
	})
}

// TestKnownNameKeepsItsProcess: a known name keeps its process, its address and its
// meta, even if another process of that name is told of.
func TestKnownNameKeepsItsProcess(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		a := &acquaintances{m: map[string]bool{"n01": true, "n11": true, "n21": true}}
		for i := range 3 {
			c.start(i, func(cfg *Config) { cfg.Known = a.known })
		}
		c.until("they find each other", 2*time.Second, c.whole)
		for i := range 100 {
			c.invent(0, "n1", 1, 99, uint32(100+i))
			time.Sleep(20 * time.Millisecond)
			if m := c.nodes[0].member("n1"); m == nil || m.State != Alive || m.Meta.Epoch != 1 || m.Meta.Weight != 100 {
				t.Fatalf("after %d: %+v", i, m)
			}
		}
	})
}

// TestUnknownAtJoinAddressStays: an unknown process at a join address keeps its
// place, even if many processes at other addresses are told of. There is one process
// at each join address.
func TestUnknownAtJoinAddressStays(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		a := &acquaintances{m: map[string]bool{}}
		n := c.start(0, join(addressOf(1)), func(cfg *Config) { cfg.Known = a.known })
		c.start(1, func(cfg *Config) { cfg.Known = a.known })
		time.Sleep(time.Second)
		for i := range 4 * maxUnknown {
			c.invent(0, fmt.Sprint("fake", i), 100, 1, 1)
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(100 * time.Millisecond)
		if u := n.Unknown(); len(u) != maxUnknown || u[0].Node != "n1" || !u[0].Joined {
			t.Errorf("%d, the first is %+v", len(u), u[0])
		}
		for i := range 10 {
			c.invent(0, fmt.Sprint("there", i), 1, 1, 1)
			time.Sleep(10 * time.Millisecond)
		}
		joined := 0
		for _, u := range n.Unknown() {
			if u.Joined {
				joined++
			}
		}
		if joined != 1 {
			t.Errorf("%d at one join address", joined)
		}
	})
}
