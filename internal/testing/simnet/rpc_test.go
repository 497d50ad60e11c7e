package simnet

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// answers answers every request with its key.
type answers struct{ server.Handler }

func (answers) Batch()      {}
func (answers) Served()     {}
func (answers) Gone()       {}
func (answers) Close(error) {}
func (answers) Serve(c *server.Conn, frames [][]byte) error {
	for _, f := range frames {
		var q wire.Request
		if err := wire.DecodeRequest(f, &q); err != nil {
			return err
		}
		c.Out = wire.AppendReply(c.Out, q.Op, &wire.Reply{ID: q.ID, Value: q.Key})
	}
	return nil
}

// TestRPC runs the connections of sidecars, which end and are woken by passed deadlines,
// over this network, in two bubbles in turn.
func TestRPC(t *testing.T) {
	for range 2 {
		// Package rpc has a pool of timers, and a timer belongs to its bubble. Two
		// collections empty the pool.
		runtime.GC()
		runtime.GC()
		bubble.Test(t, func(t *testing.T) {
			n := New(1)
			ln, err := n.Host(b).Listen(7)
			testenv.Must(t, err)
			s := server.New(server.Limits{}, slog.New(slog.DiscardHandler), func(net.Conn) (server.Handler, error) { return answers{}, nil })
			ctx, cancel := context.WithCancel(context.Background())
			served := make(chan error)
			go func() { served <- s.Serve(ctx, ln) }()
			nc, err := n.Host(a).Dial(ctx, b+":7")
			testenv.Must(t, err)
			c := rpc.NewClient(nc, rpc.ClientConfig{})
			call := func() error {
				got, err := c.Do(ctx, time.Second, &wire.Request{Op: wire.OpGet, Key: []byte("k")})
				defer c.Release(got)
				return err
			}
			if err := call(); err != nil {
				t.Error(err)
			}
			n.Cut(a, b)
			if d := took(func() { err = call() }); !errors.Is(err, rpc.ErrNoAnswer) || d != time.Second {
				t.Errorf("through a cut link: %v after %v", err, d)
			}
			n.Heal()
			if err := call(); err != nil {
				t.Errorf("when it is whole again: %v", err)
			}
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
			<-c.Done()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
