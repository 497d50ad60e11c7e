package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func key(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }
func keys(list ...byte) (k [][]byte) {
	for _, n := range list {
		k = append(k, key(n))
	}
	return k
}
func keyed(list ...byte) func(*Config) { return func(c *Config) { c.Keys = keys(list...) } }

// TestKeys: a node that has the key is a member, with all that gossip carries. A node
// that has another key, or none, is a stranger to the members and they to it. Both
// sides say what to do.
func TestKeys(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		a, b := c.start(0, keyed(1)), c.start(1, keyed(1, 2))
		other, none := c.start(2, keyed(3)), c.start(3)
		c.until("a and b find each other", 2*time.Second, func() bool { return a.member("n1") != nil && b.member("n0") != nil })
		long := strings.Repeat("x", maxPayload)
		b.Broadcast([]byte(long))
		c.until("the longest datagram comes", 2*time.Second, func() bool { return a.got()[long] == 1 })
		time.Sleep(time.Minute)
		for _, n := range []*node{a, b, other, none} {
			want := 1
			if n == other || n == none {
				want = 0
			}
			if got := n.Members(); len(got) != want {
				t.Errorf("%s knows %v, want %d", n.name, got, want)
			}
			if n != b && !strings.Contains(n.log.String(), "give all hosts the same cluster_key_file") {
				t.Errorf("%s does not say that another has another key:\n%s", n.name, n.log.String())
			}
		}
		if told := strings.Count(a.log.String(), "give all hosts the same cluster_key_file"); told > 3 {
			t.Errorf("it is told %d times in a minute", told)
		}
	})
}

// TestLongestFitsEncrypted: the longest datagram fits beside the longest cluster name
// too.
func TestLongestFitsEncrypted(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		name := func(cfg *Config) { cfg.Cluster = strings.Repeat("c", 255) }
		a, b := c.start(0, keyed(1), name), c.start(1, keyed(1), name)
		c.until("they find each other", 2*time.Second, c.whole)
		long := strings.Repeat("x", maxPayload)
		b.Broadcast([]byte(long))
		c.until("the longest datagram comes", 2*time.Second, func() bool { return a.got()[long] == 1 })
	})
}

// TestKeyRotation: keys are added, moved up and removed on one node after the other.
// No node misses another meanwhile. In the end the old key is a stranger's.
func TestKeyRotation(t *testing.T) {
	inBubble(t, func(t *testing.T, c *cluster) {
		c.startAll(5, keyed(1))
		for _, step := range [][]byte{{1, 2}, {2, 1}, {2}, {2, 3, 4}, {4, 2, 3}, {4}} {
			for _, n := range c.nodes {
				if err := n.SetKeys(keys(step...)); err != nil {
					t.Error(err)
				}
				time.Sleep(rand.N(2 * time.Second))
				if !c.whole() {
					t.Errorf("step %v: not all know all", step)
					return
				}
			}
			time.Sleep(20 * time.Second) // past a push and pull
			if !c.whole() {
				t.Errorf("after step %v: not all know all", step)
				return
			}
			var text string
			sent := time.Time{}
			c.until("a datagram comes", 10*time.Second, func() bool {
				if time.Since(sent) > time.Second { // one alone may be lost
					sent = time.Now()
					text = fmt.Sprint("datagram ", step, sent)
					c.nodes[0].Broadcast([]byte(text))
				}
				return !slices.ContainsFunc(c.nodes[1:], func(n *node) bool { return n.got()[text] == 0 })
			})
		}
		for _, n := range c.nodes {
			if s := n.Stats(); s.Garbage > 0 || n.count() != 5 {
				t.Errorf("%s: %+v", n.name, s)
			}
		}
		old := c.start(5, keyed(1))
		time.Sleep(time.Minute)
		if len(old.Members()) > 0 || c.nodes[0].member(old.name) != nil {
			t.Error("the old key joins")
		}
	})
}

func TestSetKeys(t *testing.T) {
	ring := func(g *Gossip) (list []byte) {
		for _, k := range g.ring.GetKeys() {
			list = append(list, k[0])
		}
		return list
	}
	g, err := New(Config{Node: "a", Bind: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler), Keys: keys(1, 2, 3)})
	testenv.Must(t, err)
	defer g.Close()
	for _, want := range [][]byte{{1, 3}, {1, 3, 4}, {4, 5, 6, 7, 8}, {4, 6, 8}, {9}, {9, 1, 2, 3, 4, 5, 6, 7}} {
		testenv.Must(t, g.SetKeys(keys(want...)))
		got := ring(g)
		slices.Sort(got[1:])
		if !slices.Equal(got, want) {
			t.Errorf("the ring has %v, want %v", got, want)
		}
	}
}
