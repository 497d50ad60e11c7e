package sidecar

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/creds"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/machine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l1"
	"github.com/cachesidecar/cachesidecar/l2/segment"
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
	files     machine.Files                // shares of the file descriptors
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
			Config: engine.Config{
				Node: cfg.Node, MaxValue: int(cfg.MaxValue), RequestTimeout: cfg.RequestTimeout,
				Policy: cfg.PartitionPolicy, Log: cfg.Log,
			},
			Clock: cfg.clock, HLC: hlc, Self: []byte(cfg.Node),
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
	s.files = shareFiles(&cfg, machine.FileLimit())
	s.engine.Shares = newPlaces(&cfg)
	s.engine.Budget = rpc.NewBudget(int64(cfg.BufferSize))
	s.engine.Watches.Answers = make(chan struct{}, engine.WatchedAtOnce)
	s.engine.Watches.Ctx, s.engine.Watches.Stop = context.WithCancel(context.Background())
	w := creds.WatchConfig{Paths: cfg.paths(), Node: cfg.Node, Now: cfg.now, Log: cfg.Log}
	if err := s.keys.Open(w); err != nil {
		return nil, err
	}
	s.cfg.seed = s.keys.Seed()
	s.engine.Config.Seed = s.cfg.seed
	if err := s.newTiers(); err != nil {
		return nil, errors.Join(err, s.release())
	}
	s.keys.Renew = s.engine.Node.Renew
	s.server = rpc.NewServer(rpc.Limits{
		MaxConns: s.files.Apps,
		NewRate:  rpc.PerProcessor(newConnections),
		MaxFrame: int(cfg.MaxValue) + wire.FrameSlack,
		Budget:   s.engine.Budget,
	}, cfg.Log, s.doors.App)
	limit, _ := machine.Memory()
	s.telemetry = telemetry.New(telemetry.Config{
		Engine: &s.engine, Server: s.server, Keys: &s.keys,
		Node: cfg.Node, Version: cfg.Version, Join: len(cfg.Join), Bound: cfg.MaxStaleness,
		Started: s.started, MemoryLimit: limit, Log: cfg.Log,
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
	sc := segment.Config{
		Size: int64(cfg.L2Size), MaxValue: int(cfg.MaxValue), Versions: s.engine.HLC,
		Changed: s.engine.Changed, Overdue: s.engine.OverdueInStore,
	}
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
	s.engine.Names, err = namespaces.New(
		cfg.namespaces(), s.engine.Access, s.engine.Store, s.engine.Ledger, s.engine.CaughtUp)
	if err != nil {
		return err
	}
	s.engine.Names.Leases, s.engine.Names.Detach = s.engine.Leases, s.engine.DetachSlot
	s.engine.Names.Flushes = s.engine.Shares.Join("other hosts")
	s.engine.Handoff = handoff.New(handoff.Config{
		Store: s.engine.Store, Ledger: s.engine.Ledger, Names: s.engine.Names,
		Clock: s.engine.Clock, Log: cfg.Log, Host: &s.engine,
	})
	cc := cfg.clusterConfig()
	cc.MaxConns = s.files.Peers
	cc.Self.Epoch = engine.NewEpoch(s.engine.Clock.Read().Wall)
	cc.Versions, cc.Tiers, cc.Events = s.engine.HLC, s.tiers(), s.engine.Log
	if cc.Keys, cc.Credentials = s.keys.Sources(); cc.Keys != nil {
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
