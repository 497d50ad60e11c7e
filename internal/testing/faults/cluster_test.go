package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// group is the cluster of a test.
type group struct {
	t     testing.TB
	dir   string
	bound time.Duration // max_staleness of its sidecars
	begin time.Time
	nodes []*node
}

// node is one sidecar's place: its name, its addresses and its app.
type node struct {
	*process
	g      *group
	index  int
	spec   spec
	prefix []string // the words before its command line
	// program is the path of the command that it runs; "": this binary, as a sidecar.
	program string
	app     *client.Client
	up      atomic.Bool  // apps use it
	life    atomic.Int64 // counts its processes
	downs   atomic.Int64 // counts how often apps had to stop using it
}

// fast is the bound for scenarios that do not test time. It is longer than the least
// valid bound, because on two cores ten sidecars pause for half a second now and then,
// which ends all ownership.
const fast = time.Second * slowness

// newGroup makes a cluster with the given number of places. It starts no process.
func newGroup(t testing.TB, bound time.Duration, places int) *group {
	t.Helper()
	testenv.ReadsClock(t, fast, "real processes: what apps read is held to max_staleness, and a fault lasts for a time")
	dir, err := os.MkdirTemp("", "csf") // short, for the sockets' paths
	testenv.Must(t, err)
	t.Cleanup(func() {
		if *keep {
			t.Logf("kept: %s", dir)
		} else {
			os.RemoveAll(dir)
		}
	})
	g := &group{t: t, dir: dir, bound: bound, begin: time.Now()}
	for range places {
		g.add(testenv.FreeAddress(t))
	}
	g.joinAll()
	return g
}

// add makes a place for one more sidecar.
func (g *group) add(address string) *node {
	g.t.Helper()
	n := &node{g: g, index: len(g.nodes)}
	name := fmt.Sprintf("n%02d", n.index)
	n.spec = spec{Node: name, Socket: filepath.Join(g.dir, name), Bind: address, MaxStaleness: g.bound}
	app, err := client.Dial(g.t.Context(), client.Config{Socket: n.spec.Socket, RequestTimeout: appTimeout, Lazy: true})
	testenv.Must(g.t, err)
	g.t.Cleanup(func() { app.Close() })
	n.app = app
	g.nodes = append(g.nodes, n)
	return n
}

// joinAll makes all sidecars join the first three, as README recommends: the same
// addresses on every host.
func (g *group) joinAll() {
	var join []string
	for _, n := range g.nodes[:min(3, len(g.nodes))] {
		join = append(join, n.spec.Bind)
	}
	for _, n := range g.nodes {
		n.spec.Join = join
	}
}

// vote makes some of the nodes the voters of all.
func (g *group) vote(voters ...*node) {
	for _, n := range g.nodes {
		n.spec.Voters = nil
		for _, v := range voters {
			n.spec.Voters = append(n.spec.Voters, v.spec.Node)
		}
	}
}

// servesNothing returns an error if a node does anything but miss keys and refuse writes.
func (n *node) servesNothing() error {
	ctx := n.g.t.Context()
	for i := range 20 {
		key := strconv.Itoa(i)
		if item, err := n.app.Get(ctx, key, cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
			return fmt.Errorf("%s reads %s as %q, %v", n.spec.Node, key, item.Value, err)
		}
		if _, err := n.app.Set(ctx, key, []byte("alone"), cachesidecar.SetOptions{}); !errors.Is(err, cachesidecar.ErrUnavailable) {
			return fmt.Errorf("%s takes a write of %s: %v", n.spec.Node, key, err)
		}
	}
	return nil
}

// launch starts the node's process and does not wait for it.
func (n *node) launch() {
	n.g.t.Helper()
	life := n.life.Add(1)
	log := filepath.Join(n.g.dir, fmt.Sprintf("%s.%d.log", n.spec.Node, life))
	words, env := n.commandLine()
	n.process = launch(n.g.t, n.spec.Node, append(slices.Clone(n.prefix), words...), env, log)
}

// start starts the node's process and waits until it serves.
func (n *node) start() {
	n.g.t.Helper()
	n.launch()
	n.serving()
}

// serving waits until the sidecar answers its app.
func (n *node) serving() {
	n.g.t.Helper()
	testenv.Succeeds(n.g.t, n.spec.Node+" to serve", func() error {
		select {
		case <-n.exited:
			n.g.t.Fatalf("%s has ended: %v", n.spec.Node, n.cmd.ProcessState)
		default:
		}
		ctx, cancel := context.WithTimeout(n.g.t.Context(), appTimeout)
		defer cancel()
		for range 4 { // over both of the client's connections
			if err := n.app.Ping(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	n.up.Store(true)
}

// start starts some nodes at once, and waits until they are one cluster.
func (g *group) start(nodes []*node) {
	g.t.Helper()
	begun := time.Now()
	for _, n := range nodes {
		n.launch()
	}
	for _, n := range nodes {
		n.serving()
	}
	g.settle(fmt.Sprintf("%d started at once", len(nodes)), begun)
}

// down makes apps stop using the node.
func (n *node) down() {
	n.up.Store(false)
	n.downs.Add(1)
}

// crash ends the process with kill -9.
func (n *node) crash() {
	n.down()
	n.kill()
}

// leave ends the process with SIGTERM.
func (n *node) leave() {
	n.g.t.Helper()
	n.down()
	n.signal(syscall.SIGTERM)
	n.wait()
}

// pause stops the process, and resume continues it.
func (n *node) pause() {
	n.g.t.Helper()
	n.down()
	proctest.Stop(n.g.t, n.cmd.Process)
}

func (n *node) resume() {
	n.g.t.Helper()
	n.signal(syscall.SIGCONT)
	n.up.Store(true)
}

// living returns the nodes that apps use.
func (g *group) living() (list []*node) {
	for _, n := range g.nodes {
		if n.up.Load() {
			list = append(list, n)
		}
	}
	return list
}

// any returns a random living node, or nil if there is none.
func (g *group) any() *node {
	list := g.living()
	if len(list) == 0 {
		return nil
	}
	return list[rand.IntN(len(list))]
}

// settle waits until the living nodes are one cluster, and returns the time since the
// given moment.
func (g *group) settle(what string, since time.Time) time.Duration {
	g.t.Helper()
	testenv.Succeeds(g.t, "all to agree: "+what, func() error { return g.agreed(g.living()) })
	took := time.Since(since)
	g.t.Logf("%s: all agree after %.1f s", what, took.Seconds())
	return took
}

// partitions is the number of partitions of a ring.
const partitions = 16384

// agreed returns nil if the nodes are one cluster: each sees all of them as members, and
// no other node; together they own every partition; and no handoff is under way.
func (g *group) agreed(nodes []*node) error {
	ctx, cancel := context.WithTimeout(g.t.Context(), 5*time.Second)
	defer cancel()
	held := 0
	for _, n := range nodes {
		members, err := n.app.Members(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", n.spec.Node, err)
		}
		in := map[string]bool{}
		for _, m := range members {
			if m.State == "in" && m.Partitions > 0 {
				in[m.Node] = true
			}
		}
		for _, o := range nodes {
			if !in[o.spec.Node] {
				return fmt.Errorf("%s lacks %s: %+v", n.spec.Node, o.spec.Node, members)
			}
		}
		if len(in) != len(nodes) {
			return fmt.Errorf("%s has others in: %+v", n.spec.Node, members)
		}
		st, err := n.app.Stats(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", n.spec.Node, err)
		}
		if h := st.Cluster.Handoff; h.Pulling > 0 || h.OpenOffers > 0 {
			return fmt.Errorf("%s hands over: %+v", n.spec.Node, h)
		}
		held += st.Cluster.Owned
	}
	if held != partitions {
		return fmt.Errorf("%d partitions are held", held)
	}
	return nil
}

// fill stores n entries that do not change afterwards, through all nodes.
func (g *group) fill(n int) {
	g.t.Helper()
	g.all(n, func(i int) {
		testenv.Succeeds(g.t, stillKey(i)+" to be stored", func() error {
			_, err := g.any().app.Set(g.t.Context(), stillKey(i), stillValue(i), cachesidecar.SetOptions{})
			return err
		})
	})
}

// all calls f for each number below n, some of them concurrently.
func (g *group) all(n int, f func(i int)) {
	const workers = 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}

func stillKey(i int) string { return "still:" + strconv.Itoa(i) }

func stillValue(i int) []byte { return bytes.Repeat([]byte(stillKey(i)+"/"), 100) }

// ratio counts reads, and those that found the right value.
type ratio struct {
	hits, asked atomic.Int64
	late        atomic.Int64 // reads that no owner answered in time, which are not in asked
}

func (r *ratio) share() float64 { return float64(r.hits.Load()) / float64(max(r.asked.Load(), 1)) }

func (r *ratio) String() string {
	return fmt.Sprintf("%.2f %% of %d, %d late", 100*r.share(), r.asked.Load(), r.late.Load())
}

// hits reads each of the n entries of fill once, through random nodes.
func (g *group) hits(n int) *ratio {
	g.t.Helper()
	r := &ratio{}
	g.all(n, func(i int) { g.still(r, i) })
	return r
}

// watch reads random entries of fill until stop is called.
func (g *group) watch(n int) (stop func() *ratio) {
	r := &ratio{}
	over := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { // ends with stop, or the test
			for {
				select {
				case <-over:
					return
				case <-g.t.Context().Done():
					return
				case <-time.After(pace / 3):
					g.still(r, rand.IntN(n))
				}
			}
		})
	}
	return func() *ratio {
		close(over)
		wg.Wait()
		return r
	}
}

// still checks whether an entry of fill is there.
func (g *group) still(r *ratio, i int) {
	n := g.any()
	if n == nil {
		return
	}
	key, downs := stillKey(i), n.downs.Load()
	item, err := n.app.Get(g.t.Context(), key, cachesidecar.GetOptions{})
	switch {
	case n.downs.Load() != downs: // its process may have ended
	case err == nil:
		r.asked.Add(1)
		r.hits.Add(1)
		if !bytes.Equal(item.Value, stillValue(i)) {
			g.t.Errorf("%s is %q", key, item.Value)
		}
	case outcomeOf(err) == absent:
		r.asked.Add(1)
	case outcomeOf(err) == odd:
		g.t.Errorf("%s: %v", key, err)
	default:
		r.late.Add(1)
	}
}

// stats returns the statistics of the living nodes, for the log.
func (g *group) stats() string {
	var b strings.Builder
	for _, n := range g.living() {
		st, err := n.app.Stats(testenv.Context(g.t))
		fmt.Fprintf(&b, "\n%s: %+v %v", n.spec.Node, st.Cluster, err)
	}
	return b.String()
}
