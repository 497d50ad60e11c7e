package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/buraksezer/olric"
	olricconfig "github.com/buraksezer/olric/config"

	"github.com/cachesidecar/cachesidecar/benchmarks/member"
)

// olricNode is an embedded member of an olric cluster.
type olricNode struct {
	cfg    *olricconfig.Config
	dmap   olric.DMap
	routes olric.RoutingTable
}

const (
	olricMap     = "bench"
	formingTime  = 30 * time.Second
	formingEvery = 100 * time.Millisecond
)

// startOlric starts a member with olric's defaults: one copy of each entry, at its owner.
// The member that asks waits until both members own partitions.
func startOlric(ctx context.Context, c *config, _ *slog.Logger) (member.Node, func(), error) {
	host, port, err := net.SplitHostPort(c.self)
	if err != nil {
		return nil, nil, err
	}
	first, err := strconv.Atoi(port)
	if err != nil {
		return nil, nil, err
	}
	cfg := olricconfig.New("local")
	cfg.BindAddr, cfg.BindPort = host, first+1
	cfg.MemberlistConfig.BindAddr, cfg.MemberlistConfig.BindPort = host, first
	cfg.MemberlistConfig.AdvertiseAddr, cfg.MemberlistConfig.AdvertisePort = host, first
	cfg.LogLevel, cfg.LogVerbosity = "ERROR", 1
	for _, address := range c.all {
		if address != c.self && c.asks { // the owner starts first
			cfg.Peers = append(cfg.Peers, address)
		}
	}
	started := make(chan struct{})
	cfg.Started = func() { close(started) }
	db, err := olric.New(cfg)
	if err != nil {
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- db.Start() }() // ends with stop
	stop := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = db.Shutdown(ctx)
	}
	select {
	case <-started:
	case err := <-ended:
		return nil, nil, fmt.Errorf("olric has ended: %w", err)
	case <-ctx.Done():
		stop()
		return nil, nil, ctx.Err()
	}
	n := &olricNode{cfg: cfg}
	client := db.NewEmbeddedClient()
	if n.dmap, err = client.NewDMap(olricMap); err == nil && c.asks {
		n.routes, err = formed(ctx, client, len(c.all), cfg.PartitionCount)
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return n, stop, nil
}

// formed waits until all members own partitions, and no partition is being moved.
func formed(ctx context.Context, client *olric.EmbeddedClient, members int, partitions uint64) (olric.RoutingTable, error) {
	for end := time.Now().Add(formingTime); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(formingEvery) {
		table, err := client.RoutingTable(ctx)
		if err != nil || uint64(len(table)) != partitions {
			continue
		}
		owners, single := map[string]bool{}, true
		for _, r := range table {
			single = single && len(r.PrimaryOwners) == 1
			for _, o := range r.PrimaryOwners {
				owners[o] = true
			}
		}
		if single && len(owners) == members {
			return table, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("after %v the partitions are not those of %d members", formingTime, members), ctx.Err())
}

// Elsewhere finds a key's partition as olric does.
func (n *olricNode) Elsewhere(_ context.Context, key string) (bool, error) {
	owners := n.routes[n.cfg.Hasher.Sum64([]byte(olricMap+key))%n.cfg.PartitionCount].PrimaryOwners
	return owners[0] != net.JoinHostPort(n.cfg.BindAddr, strconv.Itoa(n.cfg.BindPort)), nil
}

func (n *olricNode) Set(ctx context.Context, key string, value []byte) error {
	return n.dmap.Put(ctx, key, value)
}

func (n *olricNode) Get(ctx context.Context, key string) ([]byte, error) {
	r, err := n.dmap.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return r.Byte()
}
