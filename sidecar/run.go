package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Run serves until ctx ends, answers the requests that have been accepted, and returns
// when all its goroutines have ended. It can be called once; a second call returns
// ErrClosed.
func (s *Sidecar) Run(ctx context.Context) error {
	s.use.Lock()
	again := s.ran
	s.ran = true
	s.use.Unlock()
	if again {
		return fmt.Errorf("Run was called before: %w", cachesidecar.ErrClosed)
	}
	err := s.run(ctx)
	s.use.Lock()
	s.closed = true // no call begins after this
	s.use.Unlock()
	s.inUse.Wait()
	err = errors.Join(err, s.engine.Close())
	if n := s.engine.Names.Unsettled(); n > 0 {
		s.cfg.Log.Warn("writes to origins ended after their keys had gone to other hosts, "+
			"which could not be told in time: old values may live there until their TTL ends", "writes", n)
	}
	return err
}

func (s *Sidecar) run(ctx context.Context) error {
	s.ending = ctx.Done()
	if err := s.engine.Names.CheckOrigins(ctx, s.cfg.Log); err != nil {
		return err
	}
	listener, err := s.listen()
	if err != nil {
		return err
	}
	if listener != nil {
		defer listener.Close()
	}
	s.files.Warn(s.cfg.Log)
	pages, err := s.listenHTTP()
	if err != nil {
		return err
	}

	// The order of the end: first the socket, so that the requests that it has accepted
	// are answered by tiers that still run; then the cluster, which hands over what this
	// host owns; then the layers below.
	back := newLayer(context.WithoutCancel(ctx))
	defer back.stop()
	s.startTiers(ctx, back, pages)
	cluster := newLayer(context.WithoutCancel(ctx))
	defer cluster.stop()
	cluster.Go(func() error { return s.engine.Node.Run(cluster.ctx) })
	select { // a port that is in use is reported before anything else
	case <-s.engine.Node.Listening():
	case <-cluster.ctx.Done():
	}
	front := newLayer(ctx)
	defer front.stop()
	// Requests that wait for others are answered before the socket ends.
	defer context.AfterFunc(front.ctx, s.engine.Watches.Stop)()
	defer context.AfterFunc(front.ctx, s.engine.Leases.Close)()
	s.startFront(front, listener, back, cluster)
	if cluster.ctx.Err() == nil {
		close(s.ready) // after the node's own lines
		s.cfg.Log.Info("serving", "socket", s.path, "node", s.cfg.Node, "l2", s.cfg.L2Size)
	}
	err = front.Wait()
	cluster.stop()
	// Cancelled writes to origins leave time to tell other hosts about their end.
	late := time.AfterFunc(s.engine.Node.LeaveTimeout()*3/4, s.engine.Names.EndWrites)
	defer late.Stop()
	err = joined(err, cluster.Wait())
	back.stop()
	return s.stopped(joined(err, back.Wait()))
}

// layer is a group of goroutines that end together. The first error ends all of them.
type layer struct {
	*errgroup.Group
	ctx  context.Context // ends with the layer
	stop context.CancelFunc
}

func newLayer(parent context.Context) *layer {
	ctx, stop := context.WithCancel(parent)
	group, ctx := errgroup.WithContext(ctx)
	return &layer{group, ctx, stop}
}

// run adds a function that has no error.
func (l *layer) run(f func(context.Context)) {
	l.Go(func() error { f(l.ctx); return nil })
}

// listen returns the listener of the socket, or nil if there is no socket.
func (s *Sidecar) listen() (*unixsock.Listener, error) {
	if s.cfg.NoSocket {
		return nil, nil
	}
	l, err := unixsock.Listen(unixsock.Config{
		Path: s.cfg.Socket, Mode: fs.FileMode(s.cfg.SocketMode), Group: s.cfg.SocketGroup,
	})
	if err == nil {
		s.path = l.Path()
	}
	return l, err
}

// startTiers starts what runs below the cluster. ctx is that of Run, which ends first.
func (s *Sidecar) startTiers(ctx context.Context, back *layer, pages *httpd.Server) {
	back.Go(func() error { return s.engine.Store.Run(back.ctx, s.engine.Clock) })
	if pages != nil {
		back.Go(func() error { return pages.Run(back.ctx) })
	}
	if s.cfg.ClusterKeyFile != "" {
		back.run(s.keys.Run)
	}
	if !s.engine.Node.Alone() {
		back.run(func(ctx context.Context) { s.engine.Handoff.Run(ctx, s.engine.Node) })
		if s.cfg.AdaptiveWeight {
			back.run(s.adapt)
		}
	}
	for _, k := range s.engine.Names.KeyFilters {
		if k != nil {
			back.run(k.Builder.Run)
		}
	}
	for _, ns := range s.engine.Names.All() {
		if ns.Warming != nil {
			back.run(func(context.Context) { s.engine.Warm(ctx, ns) })
		}
	}
}

// startFront serves the socket. A failure behind the front ends it too.
func (s *Sidecar) startFront(front *layer, l *unixsock.Listener, back, cluster *layer) {
	front.Go(func() error {
		select {
		case <-back.ctx.Done():
			return context.Cause(back.ctx)
		case <-cluster.ctx.Done():
			return context.Cause(cluster.ctx)
		case <-front.ctx.Done():
			return nil
		}
	})
	if l != nil {
		front.Go(func() error { return s.server.Serve(front.ctx, s.server.Sparing(l)) })
		front.run(func(ctx context.Context) { s.keepSocket(ctx, l) })
	}
}

// stopped logs the end and returns its error, which is nil if ctx of Run has ended.
func (s *Sidecar) stopped(err error) error {
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	reads, writes := s.engine.Names.Served()
	if err != nil {
		s.cfg.Log.Error("stopped, because of an error", "error", err, "reads", reads, "writes", writes)
	} else {
		s.cfg.Log.Info("stopped", "reads", reads, "writes", writes)
	}
	return err
}

// joined adds an error that is not in err yet.
func joined(err, more error) error {
	if more == nil || errors.Is(err, more) {
		return err
	}
	return errors.Join(err, more)
}
