package hosts

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/shm"
	"github.com/cachesidecar/cachesidecar/internal/testhook"
	"github.com/cachesidecar/cachesidecar/internal/testing/history"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Several sidecars on a network in memory, in virtual time, under faults, with a load
// whose history is checked.

var (
	virtualRuns = flag.Int("virtual.runs", usualRuns(), "runs of each kind in virtual time")
	virtualSeed = flag.Uint64("virtual.seed", 1, "the first run's seed; 0 draws one")
	virtualMany = flag.Int("virtual.many", 20, "nodes of the largest run")
	virtualLog  = flag.Bool("virtual.log", false, "log what the sidecars do")
)

// firstSeed returns the seed of a test's first run. It is the same each time, unless the
// flag asks for a random seed.
func firstSeed() uint64 { return cmp.Or(*virtualSeed, rand.Uint64N(1<<32)) }

// virtualClock is a host's clock. It can be set wrong, and it stands still while the host
// is paused.
type virtualClock struct {
	origin time.Time
	up     time.Duration // the machine ran for so long then; zero: an hour
	offset atomic.Int64  // of the wall clock, ms
	frozen atomic.Int64  // boot clock at which it stands still; zero: it runs
}

func (c *virtualClock) Read() kv.Moment {
	up := cmp.Or(c.up, time.Hour)
	boot := up + time.Since(c.origin)
	if f := c.frozen.Load(); f != 0 {
		boot = time.Duration(f)
	}
	return kv.Moment{Wall: c.origin.Add(boot-up).UnixMilli() + c.offset.Load(), Boot: boot}
}

func (c *virtualClock) freeze() { c.frozen.Store(int64(c.Read().Boot)) }
func (c *virtualClock) thaw()   { c.frozen.Store(0) }

// requestTimeout is the time limit of calls of a world's sidecars.
const requestTimeout = time.Second

// world is one run.
type world struct {
	t      *testing.T
	seed   uint64
	rnd    *rand.Rand // of the faults, in one goroutine
	net    *simnet.Net
	begun  time.Time
	nodes  []*vnode
	bound  time.Duration
	voters []string // under policy consistent; empty: policy available

	origin *database       // the origin of the namespace; nil: none
	apps   bool            // readers load with lease tokens, instead of the sidecars
	rows   map[string]bool // keys of which the origin has a row at all times
	ns     Namespace       // settings of the default namespace

	events    int  // size of the logs; zero: the default
	noRelay   bool // events come by the logs alone
	shares    bool // the hosts' memory is shared
	memcached bool // hosts have an endpoint for memcached's protocol
	keeps     bool // hosts keep their entries while they are started again

	namespaces map[string]Namespace // further settings
	space      string               // namespace of all keys

	mu      sync.Mutex
	broken  []string // broken guarantees, if collect is set
	collect bool
	keys    []*vkey
	history *history.Checker
	tallied tallied
	hits    int
	misses  int
	failed  int
	seen    map[string]int64 // counts of processes that have ended
}

// down returns the nodes that do not run.
func (w *world) down() (list []*vnode) {
	for _, v := range w.nodes {
		if v.s == nil {
			list = append(list, v)
		}
	}
	return list
}

// startAll starts the nodes that do not run.
func (w *world) startAll() {
	for _, v := range w.down() {
		v.start()
	}
}

// leaveAll lets all nodes that run leave, and waits until what they and the killed have started has ended.
func (w *world) leaveAll() {
	for _, v := range w.nodes {
		if v.s != nil {
			v.leave()
		}
	}
	time.Sleep(30 * time.Second)
}

// killAll kills all nodes, and waits until what they have started has ended.
func (w *world) killAll() {
	for _, v := range w.nodes {
		v.kill()
	}
	time.Sleep(30 * time.Second)
}

// vnode is a host with its present process.
type vnode struct {
	w     *world
	i     int
	name  string
	ip    string
	clock *virtualClock
	reads kv.Clock                                        // replaces clock if set
	dials func(context.Context, string) (net.Conn, error) // replaces its dialer if set

	resolve func(context.Context, string) ([]string, error) // finds the addresses of a name if set
	gossips func(memberlist.Transport) memberlist.Transport // wraps its gossip transport
	edit    func(*Config)                                   // changes its configuration if set
	keyFile string                                          // empty: nothing is encrypted
	tls     TLSFiles

	// Guarded by the world's lock.
	s      *Sidecar // nil while it does not run
	run    int      // number of processes so far
	paused bool
	pauses int // number so far

	region vregion
	links  []*textLink // idle connections of apps to the endpoint for memcached's protocol

	socket string // of its shared memory
	kept   []*os.File
	host   *simnet.Host
	stop   context.CancelFunc
	done   chan error
}

func newWorld(t *testing.T, seed uint64, n int) *world {
	w := &world{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), net: simnet.New(seed), begun: time.Now(), seen: map[string]int64{}, space: DefaultNamespace}
	w.bound = cluster.DefaultBound
	for i := range n {
		w.nodes = append(w.nodes, &vnode{w: w, i: i, name: fmt.Sprintf("n%d", i), ip: fmt.Sprintf("10.0.%d.%d", i/200, i%200+1), clock: &virtualClock{origin: w.begun}})
	}
	for i := range 60 {
		w.keys = append(w.keys, &vkey{name: fmt.Appendf(nil, "key%d", i)})
	}
	return w
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("seed %d, after %v: %s", w.seed, time.Since(w.begun).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

// config returns the configuration of the node's processes.
func (v *vnode) config() Config {
	w := v.w
	cfg := Config{
		Node: v.name, NoSocket: true, SharedSize: shm.MinSize, L2Size: 8 << 20, L1Size: 1 << 20,
		Bind: v.ip + ":7946", Insecure: true, IgnoreMemoryLimit: true, // to look it up reads many files
		MaxStaleness: w.bound, RequestTimeout: requestTimeout, Voters: w.voters,
		Namespaces: w.configured(w.ns), ClusterKeyFile: v.keyFile, TLS: v.tls,
	}
	if w.keeps {
		cfg.KeepMemory = true
	}
	if w.memcached {
		cfg.Memcached = memcachedAddress
	}
	if len(w.voters) > 0 {
		cfg.PartitionPolicy = cluster.Consistent
	}
	for _, o := range w.nodes[:min(3, len(w.nodes))] {
		cfg.Join = append(cfg.Join, o.ip+":7946")
	}
	if v.edit != nil {
		v.edit(&cfg)
	}
	if *virtualLog {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", v.name)
	}
	return cfg
}

// machine returns what stands for the node's machine.
func (v *vnode) machine() testhook.Machine {
	w := v.w
	on := testhook.Machine{
		Clock: v.clock, Events: cmp.Or(w.events, 1<<13), // enough for a world, and a log is cleared at first
		Network: cluster.Network{
			Nap:     time.Sleep,
			Listen:  func(address string) (net.Listener, error) { return v.host.Listen(7947) },
			Dial:    v.host.Dial,
			Table:   ringOf,
			NoRelay: w.noRelay,
			Resolve: v.resolve,
			Transport: func(string) memberlist.Transport {
				if v.gossips != nil {
					return v.gossips(v.host.Transport(7946))
				}
				return v.host.Transport(7946)
			},
		},
	}
	if w.keeps {
		on.Passed = append([]*os.File{}, v.kept...)
	}
	if v.reads != nil {
		on.Clock = v.reads
	}
	if v.dials != nil {
		on.Network.Dial = v.dials
	}
	return on
}

// configured returns the settings of all namespaces, if the default one has the settings ns.
func (w *world) configured(ns Namespace) map[string]Namespace {
	switch {
	case w.origin != nil && !w.apps:
		if ns.Origin == nil {
			ns.Origin = loader.Custom{Source: w.origin}
		}
	case reflect.DeepEqual(ns, Namespace{}):
		return w.namespaces
	}
	return map[string]Namespace{DefaultNamespace: ns}
}

// start runs a new process of the node.
func (v *vnode) start() {
	w := v.w
	v.host = w.net.Host(v.ip)
	s, err := newOn(v.config(), v.machine())
	testenv.Must(w.t, err)
	v.attach(s)
	if w.memcached {
		ln, err := v.host.Listen(0)
		testenv.Must(w.t, err)
		s.parts.Memcached(ln)
		s.door = ln.Addr().String()
	}
	ctx, stop := context.WithCancel(context.Background())
	v.stop, v.done = stop, make(chan error, 1)
	done := v.done
	go func() { done <- s.Run(ctx) }() // ends with stop: see leave and kill
	w.mu.Lock()
	v.s, v.paused, v.links = s, false, nil
	v.run++
	v.region.by = fmt.Sprint(v.name, ".", v.run)
	w.mu.Unlock()
}

// rings has the rings of all worlds by their members, as text.
var rings sync.Map

// ringOf computes a ring once for all nodes that have the same members.
func ringOf(members []ownership.RingMember) *ownership.Ring {
	key := fmt.Sprint(members)
	t, known := rings.Load(key)
	if !known {
		t, _ = rings.LoadOrStore(key, ownership.NewRing(members))
	}
	return t.(*ownership.Ring)
}

// take ends the use of the present process, and returns it.
func (v *vnode) take() *Sidecar {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	s := v.s
	v.s = nil
	return s
}

// leave ends the process in order.
func (v *vnode) leave() {
	s := v.take()
	v.keep(s)
	v.stop()
	if err := <-v.done; err != nil {
		v.w.fail("%s: Run: %v", v.name, err)
	}
	s.engine.Regions.Close()
	v.w.note(s)
	v.host.Kill()
}

// keep keeps the memory of a process that ends, as systemd does.
func (v *vnode) keep(s *Sidecar) {
	if v.kept = nil; v.w.keeps {
		fd, err := syscall.Dup(int(s.engine.Store.Memory().Fd()))
		testenv.Must(v.w.t, err)
		v.kept = []*os.File{os.NewFile(uintptr(fd), testhook.KeptName)}
	}
}

// kill ends the process at once.
func (v *vnode) kill() {
	s := v.take()
	v.keep(s) // of no use
	s.engine.SharedMemory.Abandon()
	v.host.Kill()
	v.stop()
	v.w.note(s)
}

// note adds the counts of a process to seen.
func (w *world) note(s *Sidecar) {
	st := s.telemetry.ClusterState() // may wait: not under the lock
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := s.engine.Kept(); k != nil {
		w.seen["kept partitions"] += int64(k.Partitions)
		w.seen["kept partitions again"] += int64(k.Again)
		w.seen["kept entries changed"] += k.Changed
	}
	w.seen["pauses"] += st.Pauses
	w.seen["peer reads"] += st.PeerReads
	w.seen["joined"] += st.Joined
	w.seen["handed over"] += st.Handoff.Admitted
	w.seen["fetched on their way"] += st.Handoff.Fetched
	w.seen["l1 hits"] += s.telemetry.L1Stats().Hits
	w.seen["refused fills"] += s.engine.Counts.FillsRefused.Load()
	w.seen["takeovers"] += st.Begun
	w.seen["resets"] += st.Invalidations.Resets
	w.seen["relayed events"] += st.Invalidations.Heard
	w.seen["refused copies"] += s.engine.Counts.CopiesRefused.Load()
	if l := s.engine.Namespaces.Lookup(session.DefaultNamespace).LoadStats(); l.Origin != "" {
		w.seen["loads"] += l.Loads
		w.seen["loads detached"] += l.Detached
		w.seen["loads shared"] += l.Collapsed
		w.seen["loads aside"] += l.Aside
	}
}

// pause stops the node's clock and its network for a while.
func (v *vnode) pause(d time.Duration) {
	v.w.mu.Lock()
	v.paused = true
	v.pauses++
	v.w.mu.Unlock()
	v.clock.freeze()
	v.w.net.Isolate(v.ip)
	time.Sleep(d)
	v.clock.thaw()
	v.w.net.Heal()
	v.w.mu.Lock()
	v.paused = false
	v.w.mu.Unlock()
}

// any returns a process that serves, its name, and a function that checks the duration of
// a call. The check passes if the call is answered in time, or if the process was paused
// meanwhile.
func (w *world) any(rnd *rand.Rand) (s *Sidecar, by string, inTime func(what string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var up []*vnode
	for _, v := range w.nodes {
		if v.s != nil && !v.paused {
			up = append(up, v)
		}
	}
	if len(up) == 0 {
		return nil, "", nil
	}
	v := up[rnd.IntN(len(up))]
	began, pauses := time.Now(), v.pauses
	return v.s, fmt.Sprint(v.name, ".", v.run), func(what string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		most := 1100 * time.Millisecond
		if w.apps { // LEASE, the load, and FILL
			most += 1500 * time.Millisecond
		}
		if d := time.Since(began); d > most && v.pauses == pauses {
			w.fail("%s took %v", what, d)
		}
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// breaks records a broken guarantee.
func (w *world) breaks(format string, args ...any) {
	if !w.collect {
		w.fail(format, args...)
		return
	}
	w.broken = append(w.broken, fmt.Sprintf(format, args...))
}

// agreed waits until all partitions are owned.
func (w *world) agreed(within time.Duration) {
	w.t.Helper()
	began := time.Now()
	for {
		held, up := 0, 0
		for _, v := range w.nodes {
			if v.s != nil {
				held += v.s.engine.Node.Stats().Owned
				up++
			}
		}
		if held == kv.Partitions {
			return
		}
		if time.Since(began) > within {
			for _, v := range w.nodes {
				if v.s != nil {
					w.t.Logf("%s: %+v %+v", v.name, v.s.engine.Node.Stats(), v.s.engine.Node.Members())
				}
			}
			w.t.Fatalf("seed %d: %d of %d partitions are held by %d nodes after %v", w.seed, held, kv.Partitions, up, within)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
