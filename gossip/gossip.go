package gossip

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config of a Gossip. Zero means the default.
type Config struct {
	Node      string   // this node's name; unique in the cluster
	Cluster   string   // its name; packets of others are dropped
	Bind      string   // host:port for UDP and TCP; port 0 takes a free one
	Advertise string   // host:port that others use. Default: Bind
	Join      []string // host:port of others; a name may have several addresses
	Meta      Meta

	// Receive takes a datagram. It must not block, and must not keep b.
	Receive func(b []byte)
	// Conflict is told of another process under this or another node's name.
	Conflict func(node, known, other string)

	// RejoinEvery is about how often those that cannot be heard are tried.
	// Default 5 s.
	RejoinEvery time.Duration
	// Transport replaces UDP and TCP, for tests.
	Transport memberlist.Transport
	// Log takes memberlist's lines, at debug level but for warnings.
	Log *slog.Logger
}

// The timing. With these a dead node is known to be dead after about 3 s, where
// memberlist's own settings for a LAN take 6 to 11.
const (
	probeInterval  = 500 * time.Millisecond
	probeTimeout   = 250 * time.Millisecond
	suspicionMult  = 3
	gossipInterval = 50 * time.Millisecond
	pushPull       = 15 * time.Second
	reclaimAfter   = time.Millisecond // a name under a new address, once the old one is dead
	rejoinEvery    = 5 * time.Second
	leaveTimeout   = 500 * time.Millisecond
	maxRemembered  = 1024 // nodes that are gone, to be tried again
)

// State of a member, as gossip has it.
type State int

// The states.
const (
	Alive   State = iota
	Missing       // held for dead, or it said that it leaves
)

// Member is another node.
type Member struct {
	Node    string
	Address string // of its gossip
	Meta    Meta
	State   State
	since   time.Time
}

// Gossip is this node's part in it.
type Gossip struct {
	cfg  Config
	list *memberlist.Memberlist
	sent datagrams

	changed chan struct{} // has one when members may have changed

	metaChanged chan struct{}

	mu      sync.Mutex
	meta    []byte
	members map[string]*Member // never this node

	garbage atomic.Int64 // metas and datagrams that could not be read
	rejoins atomic.Int64
}

// New joins nobody yet, but others can find it from now on. Close it, or let
// Run do so.
func New(cfg Config) (*Gossip, error) {
	if cfg.RejoinEvery == 0 {
		cfg.RejoinEvery = rejoinEvery
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Receive == nil {
		cfg.Receive = func([]byte) {}
	}
	if cfg.Conflict == nil {
		cfg.Conflict = func(string, string, string) {}
	}
	meta, err := cfg.Meta.encode()
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		cfg: cfg, meta: meta, members: map[string]*Member{},
		changed: make(chan struct{}, 1), metaChanged: make(chan struct{}, 1),
	}
	c, err := cfg.memberlist()
	if err != nil {
		return nil, err
	}
	d := delegate{g}
	c.Delegate, c.Events, c.Conflict, c.Alive = d, d, d, d
	if g.list, err = memberlist.Create(c); err != nil {
		return nil, fmt.Errorf("gossip on %s: %w", cfg.Bind, err)
	}
	return g, nil
}

// memberlist is its configuration.
func (cfg *Config) memberlist() (*memberlist.Config, error) {
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = cfg.Node, cfg.Cluster
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = probeInterval, probeTimeout, suspicionMult
	c.SuspicionMaxTimeoutMult = 2
	c.GossipInterval, c.PushPullInterval = gossipInterval, pushPull
	c.TCPTimeout = 2 * time.Second
	c.DeadNodeReclaimTime = reclaimAfter
	c.EnableCompression = false
	c.Transport = cfg.Transport
	c.Logger = log.New(lines{cfg.Log}, "", 0)
	var err error
	if c.BindAddr, c.BindPort, err = hostPort("bind", cfg.Bind); err != nil {
		return nil, err
	}
	c.AdvertisePort = c.BindPort
	if cfg.Advertise != "" {
		if c.AdvertiseAddr, c.AdvertisePort, err = hostPort("advertise", cfg.Advertise); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func hostPort(what, s string) (string, int, error) {
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		var n uint64
		if n, err = strconv.ParseUint(port, 10, 16); err == nil {
			return host, int(n), nil
		}
	}
	return "", 0, fmt.Errorf("gossip: %s address %q: give host:port (%w)", what, s, err)
}

// Address is where others find this node.
func (g *Gossip) Address() string { return g.list.LocalNode().Address() }

// Changed has one element when members may have changed.
func (g *Gossip) Changed() <-chan struct{} { return g.changed }

// Members are the other nodes by name, those that are gone included for as
// long as they are remembered.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]Member, 0, len(g.members))
	for _, m := range g.members {
		list = append(list, *m)
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return list
}

// SetMeta changes what this node tells of itself. Others learn it soon.
func (g *Gossip) SetMeta(m Meta) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.meta = b
	g.mu.Unlock()
	wake(g.metaChanged)
	return nil
}

func wake(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Run joins, keeps joining what is missing, and spreads this node's meta, until
// ctx ends; then it says that this node leaves, and shuts down.
func (g *Gossip) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { g.spreadMeta(ctx) })
	wg.Go(func() { g.rejoin(ctx) })
	wg.Wait()
	err := g.list.Leave(leaveTimeout)
	return errors.Join(err, g.Close())
}

// Close ends it without a word to others.
func (g *Gossip) Close() error { return g.list.Shutdown() }

// spreadMeta tells others what has changed. It has a goroutine of its own,
// since memberlist blocks until the news is out.
func (g *Gossip) spreadMeta(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.metaChanged:
			if err := g.list.UpdateNode(leaveTimeout); err != nil {
				g.cfg.Log.Debug("gossip: the news of this node is slow to spread", "error", err)
			}
		}
	}
}

// rejoin tries the join addresses, and members that are missing, for ever: a
// split that lasts longer than memberlist remembers does not heal by itself.
func (g *Gossip) rejoin(ctx context.Context) {
	for first := true; ; first = false {
		if targets := g.missing(); len(targets) > 0 {
			n, err := g.list.Join(targets)
			switch {
			case n > 0:
				g.rejoins.Add(1)
			case first:
				g.cfg.Log.Warn("nobody answers at the join addresses yet: going on alone, and trying again", "addresses", strings.Join(targets, " "), "error", err)
			}
		}
		t := time.NewTimer(g.cfg.RejoinEvery/2 + rand.N(g.cfg.RejoinEvery))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
	}
}

// missing lists whom to try: every join address that is not a living member's,
// and the address of every member that is missing.
func (g *Gossip) missing() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var targets []string
	alive := map[string]bool{g.Address(): true, g.cfg.Advertise: true}
	living := 0
	for _, m := range g.members {
		if m.State == Alive {
			alive[m.Address] = true
			living++
		} else {
			targets = append(targets, m.Address)
		}
	}
	for _, a := range g.cfg.Join {
		// A name may stand for any member: ask it while somebody is missing.
		if ip := net.ParseIP(hostOf(a)); ip == nil && living > 0 && len(targets) == 0 || alive[a] {
			continue
		}
		targets = append(targets, a)
	}
	slices.Sort(targets)
	return slices.Compact(targets)
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

// Stats counts what happened.
type Stats struct {
	Members   int   // that are alive, this node included
	Health    int   // memberlist's own score of this node: 0 is well
	Garbage   int64 // metas that could not be read
	Rejoins   int64 // joins that found somebody
	Sent      int64 // datagrams that went out, copies included
	Dropped   int64 // datagrams that found no room
	Datagrams int   // waiting
}

// Stats returns the counts so far.
func (g *Gossip) Stats() Stats {
	s := Stats{Members: 1, Health: g.list.GetHealthScore(), Garbage: g.garbage.Load(), Rejoins: g.rejoins.Load()}
	for _, m := range g.Members() {
		if m.State == Alive {
			s.Members++
		}
	}
	s.Sent, s.Dropped, s.Datagrams = g.sent.stats()
	return s
}

// Broadcast sends a datagram to all, as far as there is room and by and by;
// false says that there was none.
func (g *Gossip) Broadcast(b []byte) bool { return g.sent.add(b, g.list.NumMembers()) }

// lines passes memberlist's log on.
type lines struct{ log *slog.Logger }

func (l lines) Write(b []byte) (int, error) {
	s := strings.TrimSpace(string(b))
	level := slog.LevelDebug
	if strings.HasPrefix(s, "[ERR]") {
		level = slog.LevelInfo
	}
	l.log.Log(context.Background(), level, s)
	return len(b), nil
}
