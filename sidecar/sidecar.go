package sidecar

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/creds"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l1"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Sidecar is one host's part of the cache.
type Sidecar struct {
	engine    engine.Engine
	cfg       Config
	keys      creds.Watch
	server    *rpc.Server // of the socket
	telemetry *telemetry.Telemetry
	batches   meanTime      // time of the batches since the last reading
	started   time.Duration // on the boot clock
	doors     *session.Doors
	ready     chan struct{} // closed when the socket and HTTP are served
	path      string        // of the socket; set before ready is closed
	socket    socketState
	files     files                        // shares of the file descriptors
	http      atomic.Pointer[httpd.Server] // nil: HTTP is off

	use       sync.RWMutex   // guards the fields below; never held during a wait
	inUse     sync.WaitGroup // calls that use the store, except Run
	verifying atomic.Bool
	ending    <-chan struct{} // closed when Run is to end
	closed    bool
	ran       bool
}

// New returns a sidecar with the given configuration. It starts nothing and does not
// listen before Run. The calls of the embedding program work at once.
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
	s := &Sidecar{
		cfg: cfg,
		engine: engine.Engine{
			Config: engine.Config{Node: cfg.Node, MaxValue: int(cfg.MaxValue), RequestTimeout: cfg.RequestTimeout, Policy: cfg.PartitionPolicy, Log: cfg.Log},
			Clock:  cfg.clock, HLC: hlc, Self: []byte(cfg.Node),
		},
		started: cfg.clock.Read().Boot,
		ready:   make(chan struct{}),
	}
	s.doors = &session.Doors{
		Engine: &s.engine, Host: thisHost{s}, Version: cfg.Version, BootClock: kv.BootClockID(),
		Limits: func() rpc.Limits { return s.server.Limits() },
	}
	if s.engine.Access, err = cfg.rules(); err != nil {
		return nil, err
	}
	s.files = shareFiles(&cfg, fileLimit())
	s.engine.Shares = newPlaces(&cfg)
	s.engine.Budget = rpc.NewBudget(int64(cfg.BufferSize))
	s.engine.Watches.Answers = make(chan struct{}, engine.WatchedAtOnce)
	s.engine.Watches.Ctx, s.engine.Watches.Stop = context.WithCancel(context.Background())
	if err := s.keys.Open(creds.WatchConfig{Paths: cfg.paths(), Node: cfg.Node, Now: cfg.now, Log: cfg.Log}); err != nil {
		return nil, err
	}
	s.cfg.seed = s.keys.Seed()
	s.engine.Config.Seed = s.cfg.seed
	if err := s.newTiers(); err != nil {
		return nil, errors.Join(err, s.release())
	}
	s.keys.Renew = s.engine.Node.Renew
	s.server = rpc.NewServer(rpc.Limits{
		MaxConns: s.files.apps,
		NewRate:  rpc.PerProcessor(newConnections),
		MaxFrame: int(cfg.MaxValue) + wire.FrameSlack,
		Budget:   s.engine.Budget,
	}, cfg.Log, s.doors.App)
	limit, _ := memoryLimit()
	s.telemetry = telemetry.New(telemetry.Config{
		Engine: &s.engine, Server: s.server, Keys: &s.keys, Node: cfg.Node, Version: cfg.Version, Join: len(cfg.Join), Bound: cfg.MaxStaleness,
		Started: s.started, MemoryLimit: int64(limit), Log: cfg.Log,
		HTTP: s.http.Load, SocketRemade: s.socket.remade.Load, Enter: thisHost{s}.Enter,
	})
	return s, nil
}

// newConnections is how many connections of one user are begun each second, for each
// processor that Go uses. The others wait, and do not delay other users.
const newConnections = 250

// newTiers makes the parts that store entries, and the parts that decide which.
func (s *Sidecar) newTiers() (err error) {
	cfg := s.cfg
	sc := segment.Config{Size: int64(cfg.L2Size), MaxValue: int(cfg.MaxValue), Versions: s.engine.HLC, Changed: s.engine.Changed, Overdue: s.engine.OverdueInStore}
	if s.engine.Ledger, err = invalidation.NewLedger(invalidation.DefaultSlots); err != nil {
		return err
	}
	if s.engine.Leases, err = flight.NewLeases(flight.LeasesConfig{MaxLeases: engine.MaxLeases}); err != nil {
		return err
	}
	if cfg.Bind != "" { // other hosts may have copies
		if s.engine.Log, err = invalidation.NewLog(cmp.Or(cfg.events, invalidation.DefaultEvents)); err != nil {
			return err
		}
		if s.engine.L1, err = l1.New(l1.Config{Bytes: int64(cfg.L1Size)}); err != nil {
			return err
		}
	}
	if s.engine.Store, err = segment.New(sc); err != nil {
		return err
	}
	if s.engine.Barriers.Keys, err = invalidation.NewBarriers(invalidation.DefaultBarriers); err != nil {
		return err
	}
	if s.engine.Names, err = namespaces.New(cfg.namespaces(), s.engine.Access, s.engine.Store, s.engine.Ledger, s.engine.CaughtUp); err != nil {
		return err
	}
	s.engine.Names.Leases, s.engine.Names.Detach, s.engine.Names.Flushes = s.engine.Leases, s.engine.DetachSlot, s.engine.Shares.Join("other hosts")
	s.engine.Handoff = handoff.New(handoff.Config{Store: s.engine.Store, Ledger: s.engine.Ledger, Names: s.engine.Names, Clock: s.engine.Clock, Log: cfg.Log, Host: &s.engine})
	cc := cfg.clusterConfig()
	cc.MaxConns = s.files.peers
	cc.Self.Epoch, cc.Versions, cc.Tiers, cc.Events = engine.NewEpoch(s.engine.Clock.Read().Wall), s.engine.HLC, s.tiers(), s.engine.Log
	if s.keys.Present() != nil {
		cc.Keys, cc.Credentials = s.keys.Gossip, s.keys.Credentials
		cc.Settings[namespaces.SeedSetting] = creds.SeedDigest(cfg.seed)
	}
	cc.Budget = s.engine.Budget
	s.engine.Node, err = cluster.New(cc)
	s.engine.Handoff.Node = s.engine.Node
	return err
}

// tiers returns what the cluster's node calls about ownerships and about other hosts'
// logs.
func (s *Sidecar) tiers() engine.Tiers { return s.engine.Tiers(s.doors.Peer) }

// Ready returns a channel that is closed when the socket and HTTP are served.
func (s *Sidecar) Ready() <-chan struct{} { return s.ready }

// SocketPath returns the path at which apps connect. It is valid once Ready is closed.
func (s *Sidecar) SocketPath() string { return s.path }

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
	s.engine.Leases.Close()
	err = errors.Join(err, s.release())
	if n := s.engine.Names.Unsettled(); n > 0 {
		s.cfg.Log.Warn("writes to origins ended after their keys had gone to other hosts, which could not be told in time: "+
			"old values may live there until their TTL ends", "writes", n)
	}
	return err
}

// release closes the tiers. After a failed New some of them do not exist.
func (s *Sidecar) release() (err error) {
	if s.engine.Names != nil {
		s.engine.Names.Close()
	}
	if s.engine.L1 != nil {
		s.engine.L1.Close()
	}
	if s.engine.Store != nil {
		err = s.engine.Store.Close()
	}
	return err
}

func (s *Sidecar) run(ctx context.Context) error {
	s.ending = ctx.Done()
	if err := s.engine.Names.CheckOrigins(ctx, s.cfg.Log); err != nil {
		return err
	}
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
	s.files.warn(s.cfg.Log)
	pages, err := s.listenHTTP()
	if err != nil {
		return err
	}

	// The order of the end: first the socket, so that the requests that it has accepted
	// are answered by tiers that still run; then the cluster, which hands over what this
	// host owns; then the layers below.
	base := context.WithoutCancel(ctx)
	below, stopBelow := context.WithCancel(base)
	defer stopBelow()
	middle, stopMiddle := context.WithCancel(base)
	defer stopMiddle()
	back, below := errgroup.WithContext(below)
	back.Go(func() error { return s.engine.Store.Run(below, s.engine.Clock) })
	if pages != nil {
		back.Go(func() error { return pages.Run(below) })
	}
	if s.cfg.ClusterKeyFile != "" {
		back.Go(func() error { s.keys.Run(below); return nil })
	}
	if s.cfg.AdaptiveWeight && !s.engine.Node.Alone() {
		back.Go(func() error { s.adapt(below); return nil })
	}
	if !s.engine.Node.Alone() {
		back.Go(func() error { s.engine.Handoff.Run(below); return nil })
	}
	for _, k := range s.engine.Names.KeyFilters {
		if k != nil {
			back.Go(func() error { k.Builder.Run(below); return nil })
		}
	}
	warm := ctx // ctx of Run, which ends first
	for _, ns := range s.engine.Names.All() {
		if ns.Warming != nil {
			back.Go(func() error { s.engine.Warm(warm, ns); return nil })
		}
	}
	cluster, middle := errgroup.WithContext(middle)
	cluster.Go(func() error { return s.engine.Node.Run(middle) })
	select { // a port that is in use is reported before anything else
	case <-s.engine.Node.Listening():
	case <-middle.Done():
	}
	front, ctx := errgroup.WithContext(ctx)
	// Requests that wait for others are answered before the socket ends.
	defer context.AfterFunc(ctx, s.engine.Watches.Stop)()
	defer context.AfterFunc(ctx, s.engine.Leases.Close)()
	front.Go(func() error { // a failure behind ends the front
		select {
		case <-below.Done():
			return context.Cause(below)
		case <-middle.Done():
			return context.Cause(middle)
		case <-ctx.Done():
			return nil
		}
	})
	if listener != nil {
		front.Go(func() error { return s.server.Serve(ctx, s.server.Sparing(listener)) })
		front.Go(func() error { s.keepSocket(ctx, listener); return nil })
	}
	if middle.Err() == nil {
		close(s.ready)
		s.cfg.Log.Info("serving", "socket", s.path, "node", s.cfg.Node, "l2", s.cfg.L2Size) // after the node's own lines
	}
	err = front.Wait()
	stopMiddle()
	late := time.AfterFunc(s.engine.Node.LeaveTimeout()*3/4, s.engine.Names.EndWrites) // so that other hosts are told the end
	defer late.Stop()
	err = joined(err, cluster.Wait())
	stopBelow()
	err = joined(err, back.Wait())
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
