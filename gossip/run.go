package gossip

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/hashicorp/memberlist"
)

// New returns a Gossip that joins no node yet, but that others can find from now on.
// It must be closed, by Close or by Run.
func New(cfg Config) (*Gossip, error) {
	if cfg.Resolve == nil {
		cfg.Resolve = net.DefaultResolver.LookupHost
	}
	meta, err := cfg.Meta.encode()
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		cfg: cfg, meta: meta, members: map[string]*Member{}, conflicts: conflicts{self: cfg.Node},
		changed: make(chan struct{}, 1), metaChanged: make(chan struct{}, 1), restarted: make(chan string, 1),
		payloads: newPayloads(),
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
	g.filter = &filter{cluster: cfg.Cluster, keyed: c.EncryptionEnabled(), garbage: &g.garbage}
	t, err := newTransport(c, g.filter)
	if err == nil {
		c.Transport = t
		if g.list, err = memberlist.Create(c); err != nil {
			_ = t.Shutdown()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("gossip: bind %s, UDP and TCP: %w: give an address of this host and a port that is free",
			cfg.Bind, err)
	}
	g.takeAddress(g.list.LocalNode().Address())
	return g, nil
}

// Run joins, keeps joining what is missing, and spreads this node's meta, until ctx
// ends. Then it says that this node leaves, and shuts down. Run may take twice
// streamTimeout longer if it was about to join a node that does not answer.
func (g *Gossip) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { g.spreadMeta(ctx) })
	wg.Go(func() { g.rejoin(ctx) })
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
				g.cfg.Log.Debug("gossip: what has changed about this node is slow to spread", "error", err)
			}
		}
	}
}
