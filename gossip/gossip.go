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

// Config is the configuration of a Gossip. A zero field means its default.
type Config struct {
	Node    string // this node's name; unique in the cluster
	Cluster string // the cluster's name; packets of other clusters are dropped
	// Bind is ip:port for UDP and TCP, or localhost:port. Port 0 takes a free
	// port.
	Bind string
	// Advertise is the ip:port that other nodes use; port 0 is Bind's. Default:
	// Bind, which must then be one address.
	Advertise string
	// Join lists host:port of other nodes. A name may have several addresses, and
	// is looked up again each time.
	Join []string
	Meta Meta
	// Keys encrypt everything that is sent. The first key is in use, all are
	// accepted; a message that none of them has encrypted is dropped. 32 bytes
	// each; empty: plain text.
	Keys [][]byte

	// Receive takes a datagram. It must not block, and must not keep b.
	Receive func(b []byte)
	// Conflict is told of another process under this or another node's name, once
	// the conflict has lasted for conflictAfter, and again as long as it lasts.
	// It must not block.
	Conflict func(node, known, other string)
	// Known says whether a process has been met elsewhere than in gossip, which
	// strangers can send. Unknown lists processes that are not known. Known must
	// not block or call back. Default: all are known.
	Known func(node string, m Meta) bool

	// RejoinEvery is about how often nodes that cannot be heard are tried; at the
	// start they are tried more often. Default: 5 s.
	RejoinEvery time.Duration
	// Transport replaces UDP and TCP, and Resolve the system's resolver of names,
	// for tests.
	Transport memberlist.Transport
	Resolve   func(ctx context.Context, host string) ([]string, error)
	// Log takes memberlist's lines at debug level, and what the operator should
	// know.
	Log *slog.Logger
}

// The timing. The package comment lists the resulting delays.
const (
	probeInterval = 500 * time.Millisecond
	// An indirect probe may take as long again; both together are less than
	// probeInterval.
	probeTimeout   = 200 * time.Millisecond
	suspicionMult  = 3
	gossipInterval = 50 * time.Millisecond
	pushPull       = 15 * time.Second
	reclaimAfter   = time.Millisecond // new address of a name whose old one is dead
	rejoinEvery    = 5 * time.Second
	streamTimeout  = 2 * time.Second
	leaveTimeout   = 500 * time.Millisecond
	conflictAfter  = 15 * time.Second // longer than the detection of a dead node
	conflictGap    = time.Minute      // after it, a new conflict
)

// maxMembers bounds the members, living and gone. Beyond it, the members that have
// been gone longest are forgotten, and an additional living one is refused.
const maxMembers = 2048

// State is a member's state, as gossip has it.
type State int

// The states.
const (
	Alive   State = iota
	Missing       // considered dead, or it said that it leaves
)

// Member is another node.
type Member struct {
	Node    string
	Address string // of its gossip
	Meta    Meta
	State   State
	since   time.Time
	dropped bool // still tried, but not listed: see Drop
}

// Gossip is this node's part in the gossip. It is safe for concurrent use.
type Gossip struct {
	cfg    Config
	list   *memberlist.Memberlist
	ring   *memberlist.Keyring // nil without keys
	filter *filter
	sent   *datagrams

	changed     chan struct{} // has one when members may have changed
	metaChanged chan struct{}
	another     chan string // an address of another process than the known one

	mu        sync.Mutex
	address   string
	meta      []byte
	members   map[string]*Member // never this node
	conflicts map[string]*conflict
	unknown   unknown

	living    atomic.Int64 // other living members; written under mu
	contested atomic.Bool  // others know this node's name at another address
	garbage   atomic.Int64
	rejoins   atomic.Int64

	keys     sync.Mutex // for changes of the ring, and for keysTold
	keysTold time.Time

	ending sync.Mutex // held while the node leaves or closes
	closed bool
}

// New returns a Gossip that joins no node yet, but that others can find from now on.
// It must be closed, by Close or by Run.
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
	c.Keyring = g.ring // with it memberlist verifies all messages
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

// Address returns the address at which other nodes find this node.
func (g *Gossip) Address() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.address
}

// Changed returns a channel that has one element when members may have changed.
func (g *Gossip) Changed() <-chan struct{} { return g.changed }

// Members returns the other nodes by name. It includes nodes that are gone, for as
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

// Forget drops a node that is missing, and its address. A living node stays. A
// forgotten node comes back as any other does.
func (g *Gossip) Forget(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.members[node]; m != nil && m.State != Alive {
		delete(g.members, node)
		delete(g.conflicts, node)
	}
}

// Drop is Forget, but the node's address is still tried, after those of missing
// nodes: a network may be split for longer than any node counts on the other side's
// nodes.
func (g *Gossip) Drop(node string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m := g.members[node]; m != nil && m.State != Alive {
		m.dropped = true
	}
}

// SetMeta changes what this node tells about itself. Other nodes learn it soon.
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

// Run joins, keeps joining what is missing, and spreads this node's meta, until ctx
// ends. Then it says that this node leaves, and shuts down. Run may take twice
// streamTimeout longer if it was about to join a node that does not answer.
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

// leave tells other nodes that this node goes. They need not hear it.
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

// Close ends the gossip without telling other nodes. Run ends only with its own ctx.
func (g *Gossip) Close() error {
	g.ending.Lock()
	defer g.ending.Unlock()
	g.closed = true
	return g.list.Shutdown()
}

// spreadMeta tells other nodes about changes of meta. It has a goroutine of its own,
// since memberlist blocks until the change is out.
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

// Broadcast sends a datagram to all members, gradually, if there is room. It returns
// false if there is no room or the datagram is too long. A datagram equal to an
// earlier one may be taken for that one.
func (g *Gossip) Broadcast(b []byte) bool {
	others := int(g.living.Load())
	if others == 0 && len(b) <= maxDatagram {
		return true // there is no other member
	}
	g.sent.first(b) // this node gets it back from others
	return g.sent.add(maxHops, b, 1+others)
}

// Stats counts what happened.
type Stats struct {
	Members   int   // alive, this node included
	Health    int   // memberlist's own score of this node: 0 is healthy
	Garbage   int64 // unreadable or refused packets, streams, metas and datagrams
	Rejoins   int64 // joins that a node answered
	Sent      int64 // datagrams that went out, copies and others' included
	Dropped   int64 // datagrams without room, or too late
	Datagrams int   // waiting to go out

	// Parts of Garbage: compressed messages, and messages that name another
	// cluster.
	Compressed, Foreign int64
	Streams             int   // open, from others
	Refused             int64 // streams beyond their number, also part of Garbage
	Unknown             int   // processes told of and not met: see Config.Known
	Forgotten           int64 // those of them that were dropped for lack of room
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
