package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Listening returns a channel that is closed once Run has its ports, if it needs any.
func (n *Node) Listening() <-chan struct{} { return n.listening }

// Run takes part in the cluster until ctx ends. Then it hands over what this node owns
// and says goodbye. It returns when all its goroutines have ended. A node that is alone
// only tells the mirror that it runs. Call Run once.
func (n *Node) Run(ctx context.Context) error {
	if n.SingleNode() {
		close(n.listening)
		n.driver.lookForStalls(ctx)
		return nil
	}
	ln, err := n.cfg.Network.Listen(n.cfg.PeerBind)
	if err != nil {
		return fmt.Errorf("peer_bind %s: %w: give an address of this host and a port that is free", n.cfg.PeerBind, err)
	}
	address, err := n.cfg.advertised(ln.Addr())
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	d := n.driver
	d.withState(func(s *state) { s.running.address = address })
	g, err := gossip.New(n.gossipConfig())
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	// The goroutines outlive ctx, for the leave.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, inner := errgroup.WithContext(inner)
	d.withState(func(s *state) { s.running.gossip, s.running.ctx = g, inner })
	n.renewGossip() // the keys may have changed since gossipConfig read them
	close(n.listening)
	n.cfg.Log.Info("taking part in a cluster",
		"cluster", n.cfg.Cluster, "gossip", g.Address(), "peers", address, "join", n.cfg.Join)
	group.Go(func() error { return n.server.Serve(inner, ln) })
	group.Go(func() error { return g.Run(inner) })
	for _, run := range []func(context.Context){
		func(ctx context.Context) { n.watcher.watch(ctx, g) },
		func(ctx context.Context) { n.acquaintances.run(ctx, g) },
		func(ctx context.Context) { n.relay.run(ctx, g) },
		n.tick, d.lookForStalls, n.followers.run, n.followers.runHeartbeats, n.Agreement.run,
	} {
		group.Go(func() error { run(inner); return nil })
	}
	group.Go(func() error {
		select {
		case <-ctx.Done():
			n.departure.leave(inner)
		case <-inner.Done():
		}
		stop()
		return nil
	})
	err = group.Wait()
	var tasks *sync.WaitGroup
	d.withState(func(s *state) { s.running.ctx, tasks = nil, &s.running.tasks }) // no task begins any more
	n.pool.Close()
	tasks.Wait()
	return err
}

// tick advances the machine's time every B/16.
func (n *Node) tick(ctx context.Context) {
	for range kv.Every(ctx, n.cfg.Bound/16) {
		n.driver.step(func(s *state, now time.Duration) {
			n.watcher.tick(s, now)
			n.watcher.sweep(s, now)
		})
	}
}

func (n *Node) gossipConfig() gossip.Config {
	c := gossip.Config{
		Node: string(n.cfg.Self.Node), Cluster: n.cfg.Cluster, Bind: n.cfg.Bind, Join: n.cfg.Join,
		Known: n.acquaintances.known, Conflict: n.watcher.conflict, Receive: n.relay.receive,
		Resolve: n.cfg.Network.Resolve, Log: n.cfg.Log, Advertise: n.cfg.Advertise,
	}
	if n.cfg.Credentials != nil {
		c.Keys = n.cfg.Credentials().Gossip
	}
	if n.cfg.Network.Transport != nil {
		c.Transport = n.cfg.Network.Transport(n.cfg.Bind)
	}
	n.driver.withState(func(s *state) { c.Meta = s.meta() })
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
	g := n.driver.gossip()
	if g == nil || n.cfg.Credentials == nil {
		return
	}
	if err := g.SetKeys(n.cfg.Credentials().Gossip); err != nil {
		n.cfg.Log.Error("gossip does not take the keys", "error", err)
	}
}
