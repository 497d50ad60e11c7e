package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// cluster is some nodes on a network, in virtual time.
type cluster struct {
	*simnet.Net
	t     *testing.T
	nodes []*node // running
	ended []*node
}

// node is a process, with what it was told.
type node struct {
	*Gossip
	c    *cluster
	name string
	ip   string
	stop context.CancelFunc
	done chan error
	log  *logBuffer

	mu        sync.Mutex
	received  map[string]int // datagrams
	conflicts []string
}

// inBubble runs a test in virtual time. In the end all nodes leave, and memberlist's
// goroutines must end soon after.
func inBubble(t *testing.T, f func(*testing.T, *cluster)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		c := &cluster{Net: newNet(), t: t}
		f(t, c)
		for _, n := range slices.Clone(c.nodes) {
			n.end()
		}
		for _, n := range c.ended {
			if err := <-n.done; err != nil {
				t.Errorf("%s: Run: %v", n.name, err)
			}
		}
		time.Sleep(5 * time.Second)
	})
}

const port = 7946

func ipOf(i int) string      { return fmt.Sprintf("10.0.%d.%d", i/250, i%250+1) }
func addressOf(i int) string { return fmt.Sprintf("%s:%d", ipOf(i), port) }

// start starts node i, whose name is n and its number. It joins node 0's address
// unless edit says otherwise.
func (c *cluster) start(i int, edit ...func(*Config)) *node {
	c.t.Helper()
	return c.startWith(i, func(t memberlist.Transport) memberlist.Transport { return t }, edit...)
}

// startWith starts a node whose transport is wrapped.
func (c *cluster) startWith(i int, wrap func(memberlist.Transport) memberlist.Transport, edit ...func(*Config)) *node {
	c.t.Helper()
	n := &node{c: c, done: make(chan error, 1), received: map[string]int{}, log: &logBuffer{}}
	cfg := Config{
		Node: fmt.Sprintf("n%d", i), Cluster: "test", Bind: addressOf(i), Join: []string{addressOf(0)},
		Meta:     Meta{Address: ipOf(i) + ":7947", Epoch: 1, Weight: 100, MinVersion: 1, MaxVersion: 1},
		Receive:  n.receive,
		Conflict: n.conflict,
		Known:    func(Member) bool { return true },
		Resolve:  func(context.Context, string) ([]string, error) { panic("a name was looked up") },
		Log:      slog.New(slog.NewTextHandler(n.log, nil)),
	}
	for _, e := range edit {
		e(&cfg)
	}
	n.name = cfg.Node
	n.ip, _, _ = strings.Cut(cfg.Bind, ":")
	cfg.Transport = wrap(c.Host(n.ip).Transport(port))
	g, err := New(cfg)
	testenv.Must(c.t, err)
	ctx, stop := context.WithCancel(context.Background())
	n.Gossip, n.stop = g, stop
	go func() { n.done <- g.Run(ctx) }()
	c.nodes = append(c.nodes, n)
	return n
}

// startAll starts nodes 0 to k-1, at about the same time, and returns when they have
// found each other.
func (c *cluster) startAll(k int, edit ...func(*Config)) {
	c.t.Helper()
	for i := range k {
		c.start(i, edit...)
		time.Sleep(rand.N(20 * time.Millisecond))
	}
	c.until("all find each other", 2*time.Second, c.whole)
	time.Sleep(10*time.Second + rand.N(probeInterval)) // past the special start phase
}

func epoch(e uint64) func(*Config)           { return func(c *Config) { c.Meta.Epoch = e } }
func join(addresses ...string) func(*Config) { return func(c *Config) { c.Join = addresses } }
func at(i int) func(*Config)                 { return func(c *Config) { c.Bind = addressOf(i) } }
func named(name string) func(*Config)        { return func(c *Config) { c.Node = name } }

// end lets the process leave.
func (n *node) end() {
	n.stop()
	n.c.nodes = slices.DeleteFunc(n.c.nodes, func(m *node) bool { return m == n })
	n.c.ended = append(n.c.ended, n)
}

// kill ends the process without a goodbye.
func (n *node) kill() {
	n.c.Host(n.ip).Kill()
	n.end()
}

func (n *node) receive(b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.received[string(b)]++
}

func (n *node) got() map[string]int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.received)
}

func (n *node) conflict(node, known, other string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conflicts = append(n.conflicts, fmt.Sprintf("%s at %s and %s", node, known, other))
}

func (n *node) told() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.conflicts)
}

// until waits until f holds, at most for limit, and returns how long it took.
func (c *cluster) until(what string, limit time.Duration, f func() bool) time.Duration {
	c.t.Helper()
	start := time.Now()
	for !f() {
		if time.Since(start) >= limit {
			c.t.Errorf("%s: not within %v", what, limit)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(start)
}

// member returns what n knows of a node; nil: nothing.
func (n *node) member(name string) *Member {
	for _, m := range n.Members() {
		if m.Node == name {
			return &m
		}
	}
	return nil
}

// all returns a function that says whether f holds of the node for all other running
// nodes.
func (c *cluster) all(name string, f func(Member) bool) func() bool {
	return func() bool {
		for _, n := range c.nodes {
			if m := n.member(name); n.name != name && (m == nil || !f(*m)) {
				return false
			}
		}
		return true
	}
}

func missing(m Member) bool { return !m.Alive }

func aliveAs(epoch uint64) func(Member) bool {
	return func(m Member) bool { return m.Alive && m.Meta.Epoch == epoch }
}

// count returns how many nodes live as far as this one knows, itself included.
func (g *Gossip) count() int { return 1 + int(g.living.Load()) }

// queued returns how many payloads wait to go out.
func (p *payloads) queued() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expire()
	return len(p.waiting)
}

// whole says whether all running nodes see each other, and no other node alive.
func (c *cluster) whole() bool {
	for _, n := range c.nodes {
		if n.count() != len(c.nodes) {
			return false
		}
	}
	return true
}

// stays checks again and again, for a while, that all see each other.
func (c *cluster) stays(what string, d time.Duration) {
	c.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, n := range c.nodes {
			for _, m := range n.Members() {
				if !m.Alive {
					c.t.Errorf("%s: %s misses %s", what, n.name, m.Node)
					return
				}
			}
		}
	}
}

// logBuffer keeps log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newNet() *simnet.Net { return simnet.New(rand.Uint64()) }
