package gossip

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/simnet"
)

// cluster is some nodes on a network, in virtual time.
type cluster struct {
	*simnet.Net
	t     *testing.T
	nodes []*node // that run
	ended []*node
}

// node is a process, with what it was told.
type node struct {
	*Gossip
	c    *cluster
	ip   string
	stop context.CancelFunc
	done chan error

	mu        sync.Mutex
	received  map[string]int // datagrams
	conflicts []string
}

// inBubble runs a test in virtual time, and waits in the end until memberlist's
// goroutines have ended.
func inBubble(t *testing.T, f func(*testing.T, *cluster)) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{Net: simnet.New(1), t: t}
		f(t, c)
		for _, n := range slices.Clone(c.nodes) {
			n.end()
		}
		for _, n := range c.ended {
			if err := <-n.done; err != nil {
				t.Errorf("%s: Run: %v", n.cfg.Node, err)
			}
		}
		time.Sleep(10 * time.Second)
	})
}

func ipOf(i int) string { return fmt.Sprintf("10.0.%d.%d", i/250, i%250+1) }

const port = 7946

func addressOf(i int) string { return fmt.Sprintf("%s:%d", ipOf(i), port) }

// start starts node i, named n and its number, which joins the address of node
// 0 unless edit says otherwise.
func (c *cluster) start(i int, edit ...func(*Config)) *node {
	c.t.Helper()
	n := &node{c: c, ip: ipOf(i), done: make(chan error, 1), received: map[string]int{}}
	cfg := Config{
		Node: fmt.Sprintf("n%d", i), Cluster: "test", Bind: addressOf(i), Join: []string{addressOf(0)},
		Meta:    Meta{Address: fmt.Sprintf("%s:7947", n.ip), Epoch: 1, Weight: 1, MinVersion: 1, MaxVersion: 1},
		Receive: func(b []byte) { n.mu.Lock(); n.received[string(b)]++; n.mu.Unlock() },
		Conflict: func(node, known, other string) {
			n.mu.Lock()
			n.conflicts = append(n.conflicts, strings.Join([]string{node, known, other}, " "))
			n.mu.Unlock()
		},
	}
	for _, e := range edit {
		e(&cfg)
	}
	n.ip, _, _ = strings.Cut(cfg.Bind, ":")
	cfg.Transport = c.Host(n.ip).Transport(port)
	g, err := New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	n.Gossip = g
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	go func() { n.done <- g.Run(ctx) }()
	c.nodes = append(c.nodes, n)
	return n
}

// end lets the process leave.
func (n *node) end() {
	n.stop()
	n.c.nodes = slices.DeleteFunc(n.c.nodes, func(m *node) bool { return m == n })
	n.c.ended = append(n.c.ended, n)
}

// kill ends the process without a word.
func (n *node) kill() {
	n.c.Host(n.ip).Kill()
	n.end()
}

// until waits until f holds, at most for limit, and says how long it took.
func (c *cluster) until(what string, limit time.Duration, f func() bool) time.Duration {
	c.t.Helper()
	start := time.Now()
	for !f() {
		if time.Since(start) > limit {
			c.t.Errorf("%s: not within %v", what, limit)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// sees says whether node has a state in n's eyes.
func (n *node) sees(node string, s State) bool {
	for _, m := range n.Members() {
		if m.Node == node {
			return m.State == s
		}
	}
	return false
}

// whole says whether all that run see each other, and nobody else alive.
func (c *cluster) whole() bool {
	for _, n := range c.nodes {
		if n.Stats().Members != len(c.nodes) {
			return false
		}
	}
	return true
}
