package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/benchmarks/member"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// sidecarNode is a sidecar in this process. Its socket answers which host owns a key, and
// whether the other hosts are there.
type sidecarNode struct {
	s    *sidecar.Sidecar
	name string
	app  *client.Client
}

// startSidecar starts an embedded sidecar with the product's defaults, with two
// exceptions. Its weight is minimal, so that other hosts own nearly all keys. Its room
// for copies is minimal, so that most reads ask the owner.
func startSidecar(ctx context.Context, c *config, log *slog.Logger) (member.Node, func(), error) {
	n := &sidecarNode{name: "embedded"}
	s, err := sidecar.New(sidecar.Config{
		Node: n.name, Socket: filepath.Join(c.dir, "embedded.sock"), Bind: c.self, Join: c.all,
		L1Size: 1 << 20, L2Size: sidecar.Size(c.limit), Weight: 1, Log: log,
	})
	if err != nil {
		return nil, nil, err
	}
	n.s = s
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(running) }() // ends with stop
	stop := func() {
		if n.app != nil {
			_ = n.app.Close()
		}
		end()
		<-ended
	}
	select {
	case <-s.Ready():
	case err := <-ended:
		end()
		return nil, nil, fmt.Errorf("the sidecar has ended: %w", err)
	}
	if n.app, err = client.Dial(ctx, client.Config{Socket: s.SocketPath()}); err == nil {
		err = n.in(ctx, len(c.all))
	}
	if err != nil {
		stop()
		return nil, nil, err
	}
	return n, stop, nil
}

// in waits until all hosts own partitions, and no handoff to this host is under way.
func (n *sidecarNode) in(ctx context.Context, hosts int) error {
	for end := time.Now().Add(formingTime); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(formingEvery) {
		members, err := n.app.Members(ctx)
		if err != nil {
			return err
		}
		in := 0
		for _, m := range members {
			if m.State == "in" && m.Partitions > 0 {
				in++
			}
		}
		st, err := n.app.Stats(ctx)
		if err != nil {
			return err
		}
		if in == hosts && st.Cluster.Owned > 0 && st.Cluster.Handoff.Pulling == 0 {
			return nil
		}
	}
	return errors.Join(fmt.Errorf("after %v the hosts are not one", formingTime), ctx.Err())
}

func (n *sidecarNode) Elsewhere(ctx context.Context, key string) (bool, error) {
	place, err := n.app.Ring(ctx, key)
	return place.AssignedOwner != n.name && place.Owner == place.AssignedOwner, err
}

func (n *sidecarNode) Set(ctx context.Context, key string, value []byte) error {
	_, err := n.s.Set(ctx, sidecar.DefaultNamespace, key, value, cachesidecar.SetOptions{})
	return err
}

func (n *sidecarNode) Get(ctx context.Context, key string) ([]byte, error) {
	v, err := n.s.Get(ctx, sidecar.DefaultNamespace, key, cachesidecar.GetOptions{})
	return v.Value, err
}
