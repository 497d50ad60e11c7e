package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Run serves until ctx ends. Then it hands over what this host owns while it goes on
// serving, tells apps to move on, answers the requests that have been accepted, and
// returns when all its goroutines have ended. It can be called once; a second call
// returns ErrClosed.
func (s *Sidecar) Run(ctx context.Context) error {
	s.use.Lock()
	again := s.ran
	s.ran = true
	s.use.Unlock()
	if again {
		return fmt.Errorf("Run was called before: %w", cachesidecar.ErrClosed)
	}
	ctx, stop := s.ending.starts(ctx)
	defer stop()
	if !s.cfg.KeepMemory && !s.cfg.NoSocket {
		s.passed = s.kept.takeMemory(&s.cfg, activation.Files(true))
	}
	s.kept.keep(s.engine, &s.cfg)
	err := s.run(ctx)
	s.use.Lock()
	s.closed = true // no call begins after this
	s.use.Unlock()
	s.inUse.Wait()
	err = errors.Join(err, s.engine.Close())
	if n := s.engine.Namespaces.Unsettled(); n > 0 {
		s.cfg.Log.Warn("writes to origins ended after their keys had gone to other hosts, "+
			"which could not be told in time: old values may live there until their TTL ends", "writes", n)
	}
	return err
}

func (s *Sidecar) run(ctx context.Context) error {
	if err := askServers(ctx, s); err != nil {
		return err
	}
	listener, err := s.listen()
	if err != nil {
		return err
	}
	if listener != nil {
		defer listener.Close()
		s.engine.Regions.MakeRoom(ctx, s.path, int64(max(s.cfg.SharedSize, 0)))
		defer endRegions(s)
	}
	if err := s.memcached.listen(&s.cfg); err != nil {
		return err
	}
	defer s.memcached.close()
	warnLimits(s)
	pages, err := s.listenHTTP()
	if err != nil {
		return err
	}

	// The order of the end: first this host hands over what it owns, while the socket
	// serves; then the socket, so that the requests that it has accepted are answered by
	// tiers that still run; then the cluster, which says goodbye; then the layers below.
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
	front := newLayer(context.WithoutCancel(ctx))
	defer front.stop()
	front.run(func(own context.Context) {
		select {
		case <-ctx.Done():
			s.ending.depart(own)
			front.stop()
		case <-own.Done():
		}
	})
	s.startFront(front, listener, back, cluster)
	if cluster.ctx.Err() == nil {
		close(s.ready) // after the node's own lines
		s.cfg.Log.Info("serving", "socket", s.path, "node", s.cfg.Node, "l2", s.cfg.L2Size)
	}
	err = front.Wait()
	s.ending.goaway() // without a socket it has not been said
	err = joined(err, s.ending.leave(cluster))
	s.setBack(nil)
	back.stop()
	return s.ending.stopped(joined(err, back.Wait()))
}

// askServers asks the servers of all origins and feeds once, if the sidecar is to start only if they agree.
func askServers(ctx context.Context, s *Sidecar) error {
	if !s.cfg.StrictOrigins {
		return nil
	}
	if err := s.engine.Namespaces.AskOrigins(ctx); err != nil {
		return err
	}
	feeds, err := s.cfg.AskFeeds(ctx)
	for _, a := range feeds {
		if a.Err != nil {
			err = errors.Join(err, fmt.Errorf("changes %s: %w", a.Feed, a.Err))
		}
	}
	return err
}

// listen returns the listener of the socket, or nil if there is no socket. Then what systemd has passed on
// is the embedding program's.
func (s *Sidecar) listen() (*unixsock.Listener, error) {
	if s.cfg.NoSocket {
		return nil, nil
	}
	passed, memcached, err := takePassed(&s.cfg, s.passed)
	if err != nil {
		return nil, err
	}
	s.memcached.passed = memcached
	l, err := unixsock.Listen(unixsock.Config{
		Path: s.cfg.Socket, Mode: fs.FileMode(s.cfg.SocketMode), Group: s.cfg.SocketGroup,
		Passed: passed,
	})
	if err != nil {
		return nil, err
	}
	s.path = l.Path()
	other := s.cfg.Socket != "" && s.cfg.Socket != s.path ||
		s.cfg.SocketMode != 0 && fs.FileMode(s.cfg.SocketMode) != unixsock.DefaultMode || s.cfg.SocketGroup != ""
	if passed != nil && other {
		s.cfg.Log.Warn("systemd has passed the socket on: socket, socket_mode and socket_group have no effect, "+
			"its unit has ListenStream=, SocketMode= and SocketGroup=", "socket", s.path)
	}
	return l, nil
}

// startTiers starts what runs below the cluster. ctx is that of Run, which ends first.
func (s *Sidecar) startTiers(ctx context.Context, back *layer, pages *httpd.Server) {
	back.Go(func() error { return s.engine.Store.Run(back.ctx, s.engine.Clock) })
	back.run(s.telemetry.Run)
	back.run(s.engine.Namespaces.Audits.CompareHits)
	for _, f := range s.followers {
		back.run(f.Run)
	}
	if pages != nil {
		back.Go(func() error { return pages.Run(back.ctx) })
	}
	if s.cfg.ClusterKeyFile != "" {
		back.run(s.keys.Run)
	}
	if !s.engine.Node.SingleNode() {
		back.run(func(ctx context.Context) { s.engine.Handoff.Run(ctx, s.engine.Node) })
		if s.cfg.AdaptiveWeight {
			back.run(func(ctx context.Context) { s.engine.Pressure.Adapt(ctx, s.weight.Load) })
		}
	}
	s.applying.Lock()
	s.setBack(back)
	for _, one := range s.engine.Namespaces.Runners() {
		back.run(one.Run)
	}
	s.applying.Unlock()
	for _, w := range s.engine.Namespaces.Warmings() {
		back.run(func(context.Context) { w.Run(ctx) })
	}
}

// setBack says where Apply starts goroutines; nil: it starts none any more.
func (s *Sidecar) setBack(back *layer) {
	s.use.Lock()
	defer s.use.Unlock()
	s.back = back
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
	s.engine.Serving()
	if l != nil {
		front.Go(func() error { return s.server.Serve(front.ctx, s.server.Sparing(l)) })
		front.run(func(ctx context.Context) { s.socket.keep(ctx, l, s.cfg.Log) })
	}
	s.memcached.serve(front)
}

// joined adds an error that is not in err yet.
func joined(err, more error) error {
	if more == nil || errors.Is(err, more) {
		return err
	}
	return errors.Join(err, more)
}

// endRegions ends the shared memory of a sidecar that has no connection any more.
func endRegions(s *Sidecar) {
	s.sessions.Close()
	s.engine.Regions.Close()
}

// warnLimits logs a warning if there are not descriptors, or not memory, for all connections.
func warnLimits(s *Sidecar) {
	s.files.warn(s.cfg.Log)
	c := &s.cfg
	for _, text := range c.Warnings() {
		c.Log.Warn("what is configured is allowed, and dangerous", "warning", text)
	}
	if n := c.connections(); n < c.MaxConnections {
		have, what := memoryLimit()
		c.Log.Warn("there is not memory for max_connections, so fewer apps can connect: "+
			"raise the limit of memory, or lower max_connections or the sizes",
			"max_connections", c.MaxConnections, "connections", n, "memory", fmt.Sprint(what, " ", Size(have)))
	}
}
