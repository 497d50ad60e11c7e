package gossip

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config of a Gossip. Zero means the default.
type Config struct {
	Node    string // this node's name; unique in the cluster
	Cluster string // its name; packets of others are dropped
	// Bind is ip:port for UDP and TCP, or localhost:port; port 0 takes a free
	// one.
	Bind string
	// Advertise is the ip:port that others use; port 0 is Bind's. Default:
	// Bind, which must then be one address.
	Advertise string
	// Join are host:port of others. A name may have several addresses, and is
	// looked up again each time.
	Join []string
	Meta Meta
	// Keys encrypt all that is sent: the first is in use, all are accepted, and
	// what none of them has encrypted is dropped. 32 bytes each; none is plain text.
	Keys [][]byte

	// Receive takes a datagram. It must not block, and must not keep b.
	Receive func(b []byte)
	// Conflict is told of another process under this or another node's name,
	// once it has lasted for conflictAfter, and again as long as it lasts. It
	// must not block.
	Conflict func(node, known, other string)
	// Known says whether a process has been met elsewhere than in gossip, which
	// strangers can send: of others see Unknown. It must not block, nor call back.
	// Default: all are.
	Known func(node string, m Meta) bool

	// RejoinEvery is about how often those that cannot be heard are tried; at
	// the start it is more often. Default 5 s.
	RejoinEvery time.Duration
	// Transport replaces UDP and TCP, and Resolve the system's resolver of
	// names, for tests.
	Transport memberlist.Transport
	Resolve   func(ctx context.Context, host string) ([]string, error)
	// Log takes memberlist's lines at debug level, and what the operator should
	// know.
	Log *slog.Logger
}

// The timing. See the package comment for what comes of it.
const (
	probeInterval  = 500 * time.Millisecond
	probeTimeout   = 200 * time.Millisecond // and as long again for those who ask in our stead: less than the interval
	suspicionMult  = 3
	gossipInterval = 50 * time.Millisecond
	pushPull       = 15 * time.Second
	reclaimAfter   = time.Millisecond // a name under a new address, once the old one is dead
	rejoinEvery    = 5 * time.Second
	streamTimeout  = 2 * time.Second
	leaveTimeout   = 500 * time.Millisecond
	conflictAfter  = 15 * time.Second // longer than it takes until a dead node is known to be dead
	conflictGap    = time.Minute      // after which it is another conflict
)

// maxMembers bounds the members, living and gone: beyond it those that have
// been gone longest are forgotten, and a living one too many is refused.
const maxMembers = 2048

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
	dropped bool // it is tried still, and listed no more: see Drop
}

// Gossip is this node's part in it.
type Gossip struct {
	cfg    Config
	list   *memberlist.Memberlist
	ring   *memberlist.Keyring // nil without keys
	filter *filter
	sent   *datagrams

	changed     chan struct{} // has one when members may have changed
	metaChanged chan struct{}
	another     chan string // an address where not the process lives that is known

	mu        sync.Mutex
	address   string
	meta      []byte
	members   map[string]*Member // never this node
	conflicts map[string]*conflict
	unknown   unknown

	living    atomic.Int64 // others; written under the lock
	contested atomic.Bool  // others know this node's name at another address
	garbage   atomic.Int64
	rejoins   atomic.Int64

	keys     sync.Mutex // of changes of the ring, and of what follows
	keysTold time.Time

	ending sync.Mutex // held while it leaves or closes
	closed bool
}

// New joins nobody yet, but others can find it from now on. Close it, or let
// Run do so.
func New(cfg Config) (*Gossip, error) {
	if cfg.RejoinEvery <= 0 {
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
	if cfg.Known == nil {
		cfg.Known = func(string, Meta) bool { return true }
	}
	if cfg.Resolve == nil {
		cfg.Resolve = net.DefaultResolver.LookupHost
	}
	meta, err := cfg.Meta.encode()
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		cfg: cfg, meta: meta, members: map[string]*Member{}, conflicts: map[string]*conflict{},
		changed: make(chan struct{}, 1), metaChanged: make(chan struct{}, 1), another: make(chan string, 1),
		unknown: newUnknown(),
		sent:    newDatagrams(),
	}
	c, err := cfg.memberlist()
	if err != nil {
		return nil, err
	}
	d := delegate{g}
	c.Delegate, c.Events, c.Conflict, c.Alive, c.Ping = d, d, d, d, d
	c.Logger = g.logger()
	if g.ring, err = keyring(cfg.Keys); err != nil {
		return nil, err
	}
	c.Keyring = g.ring // with it memberlist verifies all that comes
	g.filter = newFilter(cfg.Cluster, c.EncryptionEnabled, &g.garbage)
	t, err := newTransport(c, g.filter)
	if err == nil {
		c.Transport = t
		if g.list, err = memberlist.Create(c); err != nil {
			_ = t.Shutdown()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("gossip: bind %s, UDP and TCP: %w: give an address of this host and a port that is free", cfg.Bind, err)
	}
	address := g.list.LocalNode().Address()
	g.mu.Lock()
	g.address = address
	g.mu.Unlock()
	return g, nil
}

// Address is where others find this node.
func (g *Gossip) Address() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.address
}

// Changed has one element when members may have changed.
func (g *Gossip) Changed() <-chan struct{} { return g.changed }

// Members are the other nodes by name, those that are gone included for as
// long as they are remembered.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make([]Member, 0, len(g.members))
	for _, m := range g.members {
		if !m.dropped {
			list = append(list, *m)
		}
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return list
}

// Forget drops a node that is missing, and its address. One that lives stays. It
// comes back as any other does.
func (g *Gossip) Forget(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.members[node]; m != nil && m.State != Alive {
		delete(g.members, node)
		delete(g.conflicts, node)
	}
}

// Drop is Forget, but its address is still tried, after those of the nodes that
// are missing: a network may be split for longer than anyone counts on the other
// side's nodes.
func (g *Gossip) Drop(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.members[node]; m != nil && m.State != Alive {
		m.dropped = true
	}
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
// ctx ends; then it says that this node leaves, and shuts down. It may take
// twice streamTimeout longer, where it was about to join who does not answer.
func (g *Gossip) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { g.spreadMeta(ctx) })
	wg.Go(func() { g.rejoin(ctx) })
	wg.Go(func() { g.retell(ctx) })
	<-ctx.Done()
	g.leave()
	wg.Wait()
	return g.Close()
}

// leave tells others that this node goes; they need not hear it.
func (g *Gossip) leave() {
	g.ending.Lock()
	defer g.ending.Unlock()
	if g.closed {
		return
	}
	if err := g.list.Leave(leaveTimeout); err != nil {
		g.cfg.Log.Debug("gossip: others may not have heard that this node leaves", "error", err)
	}
}

// Close ends it without a word to others. Run ends with its own ctx only.
func (g *Gossip) Close() error {
	g.ending.Lock()
	defer g.ending.Unlock()
	g.closed = true
	return g.list.Shutdown()
}

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

// Broadcast sends a datagram to all, as far as there is room and by and by;
// false says that there was none, or that it is too long. One that was sent
// before may be taken for that one.
func (g *Gossip) Broadcast(b []byte) bool {
	others := int(g.living.Load())
	if others == 0 && len(b) <= maxDatagram {
		return true // those are all
	}
	g.sent.first(b) // it comes round
	return g.sent.add(maxHops, b, 1+others)
}

// Stats counts what happened.
type Stats struct {
	Members   int   // that are alive, this node included
	Health    int   // memberlist's own score of this node: 0 is well
	Garbage   int64 // packets, streams, metas and datagrams that could not be read or taken
	Rejoins   int64 // times that somebody answered a join
	Sent      int64 // datagrams that went out, copies and others' included
	Dropped   int64 // datagrams that found no room, or too late
	Datagrams int   // waiting

	// Of Garbage: what is compressed, and what names another cluster.
	Compressed, Foreign int64
	Streams             int   // open, from others
	Refused             int64 // streams beyond their number, of Garbage too
	Unknown             int   // processes that are told of and that were not met: see Config.Known
	Forgotten           int64 // of them, for want of room
}

// Stats returns the counts so far.
func (g *Gossip) Stats() Stats {
	s := Stats{
		Members: 1 + int(g.living.Load()), Health: g.list.GetHealthScore(),
		Garbage: g.garbage.Load(), Rejoins: g.rejoins.Load(),
	}
	s.Sent, s.Dropped, s.Datagrams = g.sent.stats()
	s.Compressed, s.Foreign, s.Refused = g.filter.compressed.Load(), g.filter.foreign.Load(), g.filter.refused.Load()
	s.Streams = g.filter.streams()
	g.mu.Lock()
	defer g.mu.Unlock()
	s.Unknown, s.Forgotten = len(g.unknown.list), g.unknown.forgotten
	return s
}
