package sidecar

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Sidecar is one host's part of the cache.
type Sidecar struct {
	core
	server        *rpc.Server // of the socket
	metrics       *prometheus.Registry
	batchDuration prometheus.Histogram
	started       time.Duration // on the boot clock
	ready         chan struct{} // closed when everything is served
	path          string        // of the socket, once ready

	use    sync.RWMutex // held for reading by calls of the embedding program
	closed bool
	ran    bool
}

// ErrClosed: Run has returned.
var ErrClosed = errors.New("the sidecar is closed")

// New makes a sidecar out of a configuration. It starts nothing and listens
// nowhere until Run; the calls of the embedding program work at once.
func New(cfg Config) (*Sidecar, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := checkMemory(cfg); err != nil {
		return nil, err
	}
	var tag [2]byte
	_, _ = rand.Read(tag[:]) // never fails
	hlc := kv.NewHLC(binary.BigEndian.Uint16(tag[:]))
	store, err := segment.New(segment.Config{Size: int64(cfg.L2Size), MaxValue: int(cfg.MaxValue), Versions: hlc})
	if err != nil {
		return nil, err
	}
	s := &Sidecar{
		core:    core{cfg: cfg, clock: cfg.Clock, hlc: hlc, store: store, names: newNamespaces(cfg, store)},
		started: cfg.Clock.Read().Boot,
		ready:   make(chan struct{}),
	}
	s.server = rpc.NewServer(rpc.Limits{
		MaxConns: cfg.MaxConnections,
		MaxFrame: int(cfg.MaxValue) + wire.FrameSlack,
	}, cfg.Log, s.newSession)
	s.newMetrics()
	return s, nil
}

// Ready is closed once the socket and HTTP are served.
func (s *Sidecar) Ready() <-chan struct{} { return s.ready }

// SocketPath is where apps connect, once Ready.
func (s *Sidecar) SocketPath() string { return s.path }

// Run serves until ctx ends, answers the requests that have been accepted, and
// returns when all its goroutines have. It can be called once.
func (s *Sidecar) Run(ctx context.Context) error {
	s.use.Lock()
	again := s.ran
	s.ran = true
	s.use.Unlock()
	if again {
		return fmt.Errorf("Run was called before: %w", ErrClosed)
	}
	err := s.run(ctx)
	s.use.Lock() // calls under way have ended, and none begins
	defer s.use.Unlock()
	s.closed = true
	return errors.Join(err, s.store.Close())
}

func (s *Sidecar) run(ctx context.Context) error {
	var listener *unixsock.Listener
	if !s.cfg.NoSocket {
		var err error
		listener, err = unixsock.Listen(unixsock.Config{Path: s.cfg.Socket, Mode: fs.FileMode(s.cfg.SocketMode), Group: s.cfg.SocketGroup})
		if err != nil {
			return err
		}
		defer listener.Close()
		s.path = listener.Path()
	}
	admin, err := s.newAdmin()
	if err != nil {
		return err
	}

	// The socket goes first, so that what it has accepted is answered by tiers
	// that still run.
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	back, background := errgroup.WithContext(background)
	back.Go(func() error { return s.store.Run(background, s.clock) })
	if admin != nil {
		back.Go(func() error { return admin.run(background) })
	}
	front, ctx := errgroup.WithContext(ctx)
	front.Go(func() error { // a failure behind ends the front
		select {
		case <-background.Done():
			return context.Cause(background)
		case <-ctx.Done():
			return nil
		}
	})
	if listener != nil {
		front.Go(func() error { return s.server.Serve(ctx, listener) })
	}
	close(s.ready)
	s.cfg.Log.Info("serving", "socket", s.path, "node", s.cfg.Node, "l2", s.cfg.L2Size) // after what it says
	err = front.Wait()
	stop()
	if e := back.Wait(); e != nil && !errors.Is(err, e) {
		err = errors.Join(err, e)
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	reads, writes := s.names.served()
	s.cfg.Log.Info("stopped", "reads", reads, "writes", writes, "error", err)
	return err
}
