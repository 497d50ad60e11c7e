package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/holding"
)

// Node is this process's part in the cluster. It is safe for concurrent use.
type Node struct {
	cfg  Config
	id   *peer.Identity
	pool *peer.Pool

	// Read without the lock, changed under it.
	lastSeen atomic.Int64 // the boot clock when it was last read
	holdings [kv.Partitions]atomic.Uint32
	view     atomic.Pointer[View]
	known    atomic.Bool // another member has ever been known

	listening chan struct{} // closed when others can find this node

	mu      sync.Mutex
	machine *holding.Machine
	members map[kv.NodeID]*member
	owners  map[kv.Process]*Owner
	begun   uint32        // generations given out
	changed chan struct{} // closed, and replaced, when the view or a holding changes
	gossip  *gossip.Gossip
	running context.Context // of Run; nil before
	tasks   sync.WaitGroup  // begun under the lock while running
	address string          // of the peer server, as others use it

	counts counts
}

// counts of what has happened.
type counts struct {
	pauses, begun, ended, retired  atomic.Int64 // partitions, but for pauses
	polls, pollFailures, conflicts atomic.Int64
	refused                        atomic.Int64
}

// New makes a node. One that is alone holds everything at once; another does
// nothing until Run.
func New(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	now := cfg.Clock.Read()
	n := &Node{cfg: cfg, members: map[kv.NodeID]*member{}, owners: map[kv.Process]*Owner{}, changed: make(chan struct{}), listening: make(chan struct{})}
	n.id = &peer.Identity{
		Cluster: cfg.Cluster, Self: cfg.Self, Settings: cfg.settings(), MaxSkew: cfg.MaxSkew, Clock: cfg.Clock, Versions: cfg.Versions,
	}
	n.pool = peer.NewPool(peer.PoolConfig{Identity: n.id, Dial: cfg.Network.Dial, Greeted: n.greeted})
	n.machine = holding.New(holding.Config{
		Self: cfg.Self, Weight: cfg.Weight, Bound: cfg.Bound, Detection: cfg.Detection,
		Alone: len(cfg.Join) == 0, Table: cfg.Network.Table,
		Stamp: func() kv.Version { return cfg.Versions.Next(cfg.Clock.Read().Wall) },
		Rand:  rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}, now.Boot)
	n.lastSeen.Store(int64(now.Boot))
	n.view.Store(n.newView())
	if cfg.Bind == "" {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.machine.Tick(now.Boot)
		n.carryOut()
	}
	return n, nil
}

// Alone says whether there can never be another member.
func (n *Node) Alone() bool { return n.cfg.Bind == "" }

// Self is this process.
func (n *Node) Self() kv.Process { return n.cfg.Self }

// Bound is B.
func (n *Node) Bound() time.Duration { return n.cfg.Bound }

// View is the ring as it is now.
func (n *Node) View() *View { return n.view.Load() }

// Holds returns the generation of this node's holding of a partition, zero
// where it has none that serves. A generation never comes back.
func (n *Node) Holds(p uint16) uint32 { return n.holdings[p].Load() }

// Beat looks for a pause. Whoever has read the clock calls it before anything
// is answered from what this node holds, and again before a write is
// acknowledged: where the process did not run for as long as B, all holdings
// have ended when it returns.
func (n *Node) Beat(now time.Duration) {
	last := n.lastSeen.Load()
	switch gap := now - time.Duration(last); {
	case gap >= n.cfg.Bound:
		n.pause()
	case gap > n.cfg.Bound/64: // not each time: others read it
		n.lastSeen.CompareAndSwap(last, int64(now))
	}
}

// pause ends everything, unless another caller has already.
func (n *Node) pause() {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.cfg.Clock.Read().Boot
	if now-time.Duration(n.lastSeen.Load()) < n.cfg.Bound {
		return
	}
	if n.known.Load() { // somebody could have taken what we hold
		n.counts.pauses.Add(1)
		n.cfg.Log.Warn("the process did not run for a while: what it holds is given up", "bound", n.cfg.Bound)
		for _, o := range n.owners {
			o.leasedAt.Store(0)
		}
		n.machine.Pause(now)
		n.carryOut()
	}
	n.lastSeen.Store(int64(now))
}

// SetWeight changes this node's part of the keys, relative to others'.
func (n *Node) SetWeight(weight uint32) {
	n.step(func(m *holding.Machine, now time.Duration) { m.SetWeight(now, weight) })
}

// Changed is closed when the view or a holding changes. Whoever waits takes it
// first, and looks at what it waits for then.
func (n *Node) Changed() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.changed
}

// Do sends a request to another process and waits for its answer; see
// peer.Pool.Do.
func (n *Node) Do(ctx context.Context, to kv.Process, timeout time.Duration, q *wire.Request, a *peer.Answer) error {
	return n.pool.Do(ctx, to, peer.Call, timeout, q, a)
}

// carryOut does what the machine wants done. The lock is held.
func (n *Node) carryOut() {
	changed := false
	for _, a := range n.machine.Take() {
		switch a := a.(type) {
		case holding.Ended:
			n.stop(a.Partitions)
			// Stamped after the holdings have ended: every write that was
			// acknowledged has found its holding alive after it was stamped.
			asOf := n.cfg.Versions.Next(n.cfg.Clock.Read().Wall)
			n.cfg.Tiers.Ended(a.Partitions, asOf)
			n.counts.ended.Add(int64(a.Partitions.Len()))
			n.cfg.Log.Debug("holdings ended", "partitions", a.Partitions.Len(), "reason", a.Why)
			changed = true
		case holding.Retired:
			n.stop(a.Partitions)
			n.counts.retired.Add(int64(a.Partitions.Len()))
			n.cfg.Log.Debug("holdings retired", "partitions", a.Partitions.Len(), "reason", a.Why)
			changed = true
		case holding.Begun:
			n.cfg.Tiers.Begin(a)
			for p := range a.Partitions.All() {
				n.begun = max(n.begun+1, 1)
				n.holdings[p].Store(n.begun)
			}
			n.counts.begun.Add(int64(a.Partitions.Len()))
			n.cfg.Log.Debug("holdings begun", "partitions", a.Partitions.Len())
			changed = true
		case holding.Send:
			n.send(a)
		case holding.RingChanged:
			v := n.newView()
			n.view.Store(v)
			n.cfg.Log.Info("the ring has changed", "members", len(v.owners))
			changed = true
		case holding.StateChanged:
			n.cfg.Log.Info("this node's state", "in", a.In, "reason", a.Why)
			n.tellMeta()
		}
	}
	if changed {
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// newView is the machine's ring. The lock is held.
func (n *Node) newView() *View {
	v := &View{Table: n.machine.Table(), self: n.cfg.Self.Node}
	for i, m := range v.Table.Members() {
		id := n.machine.Entered()[i] // both are by name
		if m.Node != id.Node {
			panic("cluster: the ring's table and its processes differ")
		}
		v.owners = append(v.owners, n.owner(id))
	}
	for id := range n.owners { // forget who is gone
		if m := n.members[id.Node]; id != n.cfg.Self && (m == nil || m.id != id) {
			delete(n.owners, id)
		}
	}
	return v
}

// owner is the Owner of a process. The lock is held.
func (n *Node) owner(id kv.Process) *Owner {
	o := n.owners[id]
	if o == nil {
		o = &Owner{Process: id}
		n.owners[id] = o
	}
	return o
}

// answered notes when a poll was sent that a process has answered. The lock is
// held.
func (n *Node) answered(id kv.Process, sent time.Duration) {
	if o := n.owner(id); int64(sent) > o.leasedAt.Load() {
		o.leasedAt.Store(int64(sent))
	}
}

func (n *Node) stop(set kv.PartitionSet) {
	for p := range set.All() {
		n.holdings[p].Store(0)
	}
}

// step feeds the machine under the lock and carries out what comes of it.
func (n *Node) step(f func(m *holding.Machine, now time.Duration)) {
	now := n.cfg.Clock.Read().Boot
	n.Beat(now)
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.machine, now)
	n.carryOut()
}

// Listening is closed once Run has its ports, where it needs any.
func (n *Node) Listening() <-chan struct{} { return n.listening }

// Run takes part in the cluster until ctx ends, then hands over what it holds
// and says goodbye, and returns when all its goroutines have ended. A node that
// is alone has nothing to do.
func (n *Node) Run(ctx context.Context) error {
	if n.cfg.Bind == "" {
		close(n.listening)
		<-ctx.Done()
		return nil
	}
	ln, err := n.cfg.Network.Listen(n.cfg.PeerBind)
	if err != nil {
		return fmt.Errorf("peer_bind %s: %w: give an address of this host and a port that is free", n.cfg.PeerBind, err)
	}
	if n.address, err = n.advertised(ln.Addr()); err != nil {
		return errors.Join(err, ln.Close())
	}
	g, err := gossip.New(n.gossipConfig())
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	// All of it outlives ctx by the leave.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, inner := errgroup.WithContext(inner)
	n.mu.Lock()
	n.gossip, n.running = g, inner
	n.mu.Unlock()
	close(n.listening)
	n.cfg.Log.Info("taking part in a cluster", "cluster", n.cfg.Cluster, "gossip", g.Address(), "peers", n.address, "join", n.cfg.Join)
	server := peer.NewServer(n.id, n.limits(), n.cfg.Log, n.handler, n.refused)
	group.Go(func() error { return server.Serve(inner, ln) })
	group.Go(func() error { return g.Run(inner) })
	group.Go(func() error { n.watch(inner); return nil })
	group.Go(func() error { n.tick(inner); return nil })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			n.leave(inner)
		case <-inner.Done():
		}
		stop()
		return nil
	})
	err = group.Wait()
	n.mu.Lock()
	n.running = nil // no task begins any more
	n.mu.Unlock()
	n.pool.Close()
	n.tasks.Wait()
	return err
}

// advertised is the address of the peer server, as others use it.
func (n *Node) advertised(a net.Addr) (string, error) {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return "", fmt.Errorf("peer_bind: %w", err)
	}
	if ip := net.ParseIP(host); n.cfg.Advertise != "" {
		host = n.cfg.Advertise
	} else if ip != nil && ip.IsUnspecified() {
		return "", fmt.Errorf("peer_bind %s is every address of this host, and others must know one: set advertise", n.cfg.PeerBind)
	}
	return net.JoinHostPort(host, port), nil
}

func (n *Node) limits() rpc.Limits {
	return rpc.Limits{MaxConns: 4096, MaxFrame: 64 << 20}
}

func (n *Node) gossipConfig() gossip.Config {
	c := gossip.Config{
		Node: string(n.cfg.Self.Node), Cluster: n.cfg.Cluster, Bind: n.cfg.Bind, Join: n.cfg.Join,
		Meta: n.meta(), Conflict: n.conflict, Log: n.cfg.Log,
	}
	if n.cfg.Advertise != "" {
		_, port, _ := splitAddress(n.cfg.Bind)
		c.Advertise = net.JoinHostPort(n.cfg.Advertise, strconv.Itoa(port))
	}
	if n.cfg.Network.Transport != nil {
		c.Transport = n.cfg.Network.Transport(n.cfg.Bind)
	}
	return c
}

func (n *Node) meta() gossip.Meta {
	return gossip.Meta{
		Address: n.address, Epoch: uint64(n.cfg.Self.Epoch), Weight: n.machine.Weight(),
		MinVersion: 1, MaxVersion: wire.PeerVersion, In: n.machine.In(), State: n.machine.State(),
	}
}

// tellMeta tells all what has changed of this node. The lock is held.
func (n *Node) tellMeta() {
	if n.gossip != nil {
		if err := n.gossip.SetMeta(n.meta()); err != nil {
			n.cfg.Log.Error("gossip takes no news of this node", "error", err)
		}
	}
}

// tick lets time pass.
func (n *Node) tick(ctx context.Context) {
	t := time.NewTicker(n.cfg.Bound / 16)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			n.step((*holding.Machine).Tick)
		}
	}
}

// leave hands over what this node holds, as far as somebody takes it in time,
// and says goodbye.
func (n *Node) leave(ctx context.Context) {
	n.step((*holding.Machine).Leave)
	ctx, cancel := context.WithTimeout(ctx, n.cfg.LeaveTimeout)
	defer cancel()
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for ctx.Err() == nil && n.others() > 0 {
		n.mu.Lock()
		holding := n.machine.Holding()
		n.mu.Unlock()
		if !holding && !n.cfg.Tiers.Offering() {
			break
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	n.goodbye()
}

// others counts the members that live.
func (n *Node) others() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	living := 0
	for _, m := range n.members {
		if m.alive {
			living++
		}
	}
	return living
}

// goodbye tells all that this process holds nothing and is gone.
func (n *Node) goodbye() {
	n.mu.Lock()
	n.machine.Stop(n.cfg.Clock.Read().Boot)
	n.carryOut()
	var to []kv.Process
	for _, m := range n.members {
		if m.alive {
			to = append(to, m.id)
		}
	}
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, id := range to {
		wg.Go(func() {
			body, err := wire.MarshalBody(&wire.Goodbye{From: toProcess(n.cfg.Self)})
			if err != nil {
				return
			}
			var a peer.Answer
			defer a.Release()
			if err := n.pool.Do(ctx, id, peer.Poll, goodbyeTimeout, &wire.Request{Op: wire.OpGoodbye, Body: body}, &a); err != nil {
				n.cfg.Log.Debug("no goodbye", "to", id.Node, "error", err)
			}
		})
	}
	wg.Wait()
}

const goodbyeTimeout = 500 * time.Millisecond

// conflict is gossip's word of two processes under one name.
func (n *Node) conflict(node, known, other string) {
	n.counts.conflicts.Add(1)
	n.cfg.Log.Warn("two processes call themselves by one name: names must be unique, set node", "node", node, "known", known, "other", other)
}

// greeted and refused tell of greetings, this node's and others'.
func (n *Node) greeted(node kv.NodeID, answered kv.Process, err error) {
	switch {
	case err == nil:
		n.trouble(node, "")
	case answered == (kv.Process{}) && n.troubled(node):
		n.counts.refused.Add(1) // what it says does not replace what this one has found
	default:
		n.refused(node, err)
	}
}

func (n *Node) refused(node kv.NodeID, err error) {
	n.counts.refused.Add(1)
	if n.trouble(node, err.Error()) {
		n.cfg.Log.Warn("a node is not talked to", "node", node, "reason", err)
	}
}

func (n *Node) troubled(node kv.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[node]
	return m != nil && m.trouble != ""
}

// trouble notes why a node is not talked to, and says whether that is news.
func (n *Node) trouble(node kv.NodeID, why string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[node]
	if m == nil || m.trouble == why {
		return false
	}
	m.trouble = why
	return true
}

// Stats counts what has happened; Begun, Ended and Retired are of partitions.
type Stats struct {
	Members               int // that live, this one included
	In                    bool
	Held                  int
	Begun, Ended, Retired int64
	Pauses                int64
	Polls, PollFailures   int64
	Refused, Conflicts    int64
}

// Stats returns the counts so far.
func (n *Node) Stats() Stats {
	c := &n.counts
	s := Stats{
		Members: 1 + n.others(), Begun: c.begun.Load(), Ended: c.ended.Load(), Retired: c.retired.Load(), Pauses: c.pauses.Load(),
		Polls: c.polls.Load(), PollFailures: c.pollFailures.Load(), Refused: c.refused.Load(), Conflicts: c.conflicts.Load(),
	}
	for p := range n.holdings {
		if n.holdings[p].Load() != 0 {
			s.Held++
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s.In = n.machine.In()
	return s
}

// Member is what this node knows of another, or of itself.
type Member struct {
	ID      kv.Process
	Address string
	State   string // one of the below
	Why     string
	Weight  uint32
	Held    int // partitions that the ring gives it
}

// States of a member.
const (
	StateIn      = "in"      // it owns partitions
	StateOut     = "out"     // it lives, and owns none
	StateMissing = "missing" // gossip holds it for dead
	StateLeft    = "left"    // it has said goodbye
	StateRefused = "refused" // it is not talked to: Why says why
)

// Members lists this node and the others, by name.
func (n *Node) Members() []Member {
	v := n.View()
	share := map[kv.NodeID]int{}
	for i, c := range v.Table.Counts() {
		share[v.Table.Members()[i].Node] = c
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	self := Member{ID: n.cfg.Self, Address: n.address, State: state(n.machine.In()), Weight: n.machine.Weight(), Held: share[n.cfg.Self.Node], Why: n.machine.Refused()}
	list := []Member{self}
	for name, m := range n.members {
		o := Member{ID: m.id, Address: m.address, Weight: m.weight, Held: share[name], State: state(m.in), Why: m.trouble}
		switch {
		case m.left == m.id:
			o.State, o.Why = StateLeft, ""
		case !m.alive:
			o.State = StateMissing
			if o.Why == "" {
				o.Why = "gossip does not hear it any more"
			}
		case m.trouble != "":
			o.State = StateRefused
		}
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b Member) int { return a.ID.Compare(b.ID) })
	return list
}

func state(in bool) string {
	if in {
		return StateIn
	}
	return StateOut
}

// GossipAddress is where others can join, once Run has begun; "" before.
func (n *Node) GossipAddress() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gossip == nil {
		return ""
	}
	return n.gossip.Address()
}
