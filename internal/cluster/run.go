package cluster

import (
	"context"
	"errors"
	"fmt"
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
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Listening returns a channel that is closed once Run has its ports, if it needs any.
func (n *Node) Listening() <-chan struct{} { return n.listening }

// Run takes part in the cluster until ctx ends. Then it hands over what this node owns
// and says goodbye. It returns when all its goroutines have ended. A node that is alone
// has nothing to do. Call Run once.
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
	// The goroutines outlive ctx, for the leave.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, inner := errgroup.WithContext(inner)
	n.mu.Lock()
	n.gossip, n.running = g, inner
	n.mu.Unlock()
	n.renewGossip() // the keys may have changed since gossipConfig read them
	close(n.listening)
	n.cfg.Log.Info("taking part in a cluster", "cluster", n.cfg.Cluster, "gossip", g.Address(), "peers", n.address, "join", n.cfg.Join)
	group.Go(func() error { return n.server.Serve(inner, ln) })
	group.Go(func() error { return g.Run(inner) })
	group.Go(func() error { n.watch(inner); return nil })
	group.Go(func() error { n.meet(inner); return nil })
	group.Go(func() error { n.tick(inner); return nil })
	group.Go(func() error { n.look(inner); return nil })
	group.Go(func() error { n.gather(inner); return nil })
	group.Go(func() error { n.heartbeats(inner); return nil })
	group.Go(func() error { n.relay(inner); return nil })
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

// advertised returns the address of the peer server, as other nodes use it.
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
	return rpc.Limits{MaxConns: n.cfg.MaxConns, MaxFrame: 64 << 20, Budget: n.cfg.Budget}
}

func (n *Node) gossipConfig() gossip.Config {
	c := gossip.Config{
		Node: string(n.cfg.Self.Node), Cluster: n.cfg.Cluster, Bind: n.cfg.Bind, Join: n.cfg.Join,
		Meta: n.meta(), Known: n.isKnown, Conflict: n.conflict, Receive: n.relayed, Log: n.cfg.Log,
	}
	if n.cfg.Advertise != "" {
		_, port, _ := splitAddress(n.cfg.Bind)
		c.Advertise = net.JoinHostPort(n.cfg.Advertise, strconv.Itoa(port))
	}
	if n.cfg.Keys != nil {
		c.Keys = n.cfg.Keys()
	}
	if n.cfg.Network.Transport != nil {
		c.Transport = n.cfg.Network.Transport(n.cfg.Bind)
	}
	return c
}

// Renew takes changed keys and credentials. It replaces the connections to other
// sidecars, and closes connections from sidecars that are not accepted any more. No
// call fails. Before Run there is nothing to replace, and Run takes the present ones.
func (n *Node) Renew() {
	n.renewGossip()
	n.pool.Renew()
	n.server.Renew()
}

// renewGossip gives gossip the present keys.
func (n *Node) renewGossip() {
	n.mu.Lock()
	g := n.gossip
	n.mu.Unlock()
	if g == nil || n.cfg.Keys == nil {
		return
	}
	if err := g.SetKeys(n.cfg.Keys()); err != nil {
		n.cfg.Log.Error("gossip does not take the keys", "error", err)
	}
}

func (n *Node) meta() gossip.Meta {
	return gossip.Meta{
		Address: n.address, Epoch: uint64(n.cfg.Self.Epoch), Weight: n.machine.Weight(),
		MinVersion: 1, MaxVersion: wire.PeerVersion, In: n.machine.In(), State: n.machine.State(),
	}
}

// tellMeta gossips what has changed about this node. n.mu is held.
func (n *Node) tellMeta() {
	if n.gossip != nil {
		if err := n.gossip.SetMeta(n.meta()); err != nil {
			n.cfg.Log.Error("gossip takes no news of this node", "error", err)
		}
	}
}

// tick advances the machine's time every B/16.
func (n *Node) tick(ctx context.Context) {
	t := time.NewTicker(n.cfg.Bound / 16)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			n.step(func(m *ownership.Machine, now time.Duration) {
				n.rumours(m, now)
				n.goneOut(m, now)
				m.Tick(now)
				n.sweep(m, now)
			})
		}
	}
}

// look finds the gaps in which this process did not run, even when little else happens.
// It takes no lock until it has found a gap, so that a busy lock does not hide one.
func (n *Node) look(ctx context.Context) {
	t := time.NewTicker(n.cfg.Bound / ownership.LookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			n.seen(n.cfg.Clock.Read().Boot)
		}
	}
}

// spare waits until the other voters can do without this one. A voter that was started
// lately does not vote yet. spare does not wait for voters that do not answer.
func (n *Node) spare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.LeaveTimeout)
	defer cancel()
	for slices.Contains(n.cfg.Voters, string(n.cfg.Self.Node)) {
		var ids []kv.Process
		n.step(func(m *ownership.Machine, _ time.Duration) { ids = m.Live() })
		var answer, vote atomic.Int32
		var wg sync.WaitGroup
		for _, id := range ids {
			if id == n.cfg.Self || !slices.Contains(n.cfg.Voters, string(id.Node)) {
				continue
			}
			wg.Go(func() {
				a, err := n.tellFloor(ctx, id, wire.Floor{}) // tells nothing
				if err != nil {
					return
				}
				if answer.Add(1); a.Voter {
					vote.Add(1)
				}
			})
		}
		wg.Wait()
		need := int32(n.majority())
		if answer.Load() < need || vote.Load() >= need || !kv.Sleep(ctx, n.cfg.Bound/16) {
			return
		}
	}
}

// leave hands over what this node owns, as far as other nodes take it in time. It lets
// the tiers finish what other nodes wait for, and says goodbye.
func (n *Node) leave(ctx context.Context) {
	n.spare(ctx)
	begun, owned := n.cfg.Clock.Read().Boot, n.Owned().Len()
	n.step((*ownership.Machine).Leave)
	ctx, cancel := context.WithTimeout(ctx, n.cfg.LeaveTimeout)
	defer cancel()
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for ctx.Err() == nil && n.others() > 0 {
		n.mu.Lock()
		unended := n.machine.Unended()
		n.mu.Unlock()
		if unended == 0 && !n.cfg.Tiers.Awaited() {
			break
		}
		select {
		case <-ctx.Done():
		case <-t.C:
		}
	}
	n.mu.Lock()
	kept := n.machine.Unended()
	n.mu.Unlock()
	n.sayLeft(owned, kept, n.cfg.Clock.Read().Boot-begun)
	n.goodbye()
}

// sayLeft logs what became of the partitions that this node owned.
func (n *Node) sayLeft(owned, kept int, took time.Duration) {
	took = took.Round(time.Millisecond)
	switch {
	case kept == 0:
		n.cfg.Log.Info("this host has left: others own what it owned", "partitions", owned, "took", took)
	case n.others() == 0:
		n.cfg.Log.Info("this host has left: there is no other that could take over", "partitions", owned)
	default:
		n.cfg.Log.Warn("this host has left, and others have not taken over all in time", "partitions", owned, "not_taken", kept, "took", took)
	}
}

// others returns the number of live members, without this node.
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

// goodbye tells all members that this process owns nothing and is gone.
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
