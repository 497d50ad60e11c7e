package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/groupcache/groupcache-go/v3"
	"github.com/groupcache/groupcache-go/v3/transport"
	"github.com/groupcache/groupcache-go/v3/transport/peer"

	"github.com/cachesidecar/cachesidecar/benchmarks/member"
)

// groupcacheNode is a groupcache node.
type groupcacheNode struct {
	instance *groupcache.Instance
	group    transport.Group
}

// startGroupcache starts a node that knows all nodes. The node that asks has a cache of
// no bytes, so that it keeps no copies. The node that owns loads each value once, from
// memory.
func startGroupcache(ctx context.Context, c *config, log *slog.Logger) (member.Node, func(), error) {
	// Go's default keeps two idle connections to a host. It would make a new connection
	// for most of 16 concurrent requests.
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 0, 1024
	d, err := groupcache.ListenAndServe(ctx, c.self, groupcache.Options{
		Logger:    log,
		Transport: transport.NewHttpTransport(transport.HttpTransportOptions{Logger: log, Client: &http.Client{Transport: t}}),
	})
	if err != nil {
		return nil, nil, err
	}
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = d.Shutdown(ctx)
	}
	var peers []peer.Info
	for _, address := range c.all {
		peers = append(peers, peer.Info{Address: address})
	}
	if err := d.SetPeers(ctx, peers); err != nil {
		stop()
		return nil, nil, err
	}
	limit, value := c.limit, c.Value()
	loader := func(_ context.Context, _ string, dest transport.Sink) error {
		return dest.SetBytes(value, time.Time{})
	}
	switch {
	case c.from != "":
		loader = func(ctx context.Context, key string, dest transport.Sink) error {
			value, err := member.Load(ctx, &http.Client{Transport: t}, c.from, key)
			if err != nil {
				return err
			}
			return dest.SetBytes(value, time.Time{})
		}
	case c.asks:
		limit = 0
		loader = func(context.Context, string, transport.Sink) error {
			return errors.New("this node asks, and loads nothing itself")
		}
	}
	g, err := d.NewGroup("bench", limit, groupcache.GetterFunc(loader))
	if err != nil {
		stop()
		return nil, nil, err
	}
	return &groupcacheNode{d.GetInstance(), g}, stop, nil
}

func (n *groupcacheNode) Elsewhere(_ context.Context, key string) (bool, error) {
	_, remote := n.instance.PickPeer(key)
	return remote, nil
}

// Set does nothing: the first Get of a key loads it.
func (n *groupcacheNode) Set(context.Context, string, []byte) error { return nil }

func (n *groupcacheNode) Get(ctx context.Context, key string) (value []byte, err error) {
	err = n.group.Get(ctx, key, transport.AllocatingByteSliceSink(&value))
	return value, err
}
