package sidecar

import (
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

// Sidecar is one host's part of the cache.
type Sidecar struct {
	engine    *engine.Engine
	cfg       Config // of the start
	keys      peer.KeyWatch
	server    *server.Server // of the socket
	telemetry *telemetry.Telemetry
	words     readyWords
	batches   meanTime      // time of the batches since the last reading
	started   time.Duration // on the boot clock
	sessions  *session.Sessions
	ready     chan struct{} // closed when the socket and HTTP are served
	path      string        // of the socket; set before ready is closed
	socket    socketState
	memory    memory
	passed    []*os.File // by systemd: listeners
	kept      keptMemory
	memcached memcachedDoor
	files     fileShares                   // shares of the file descriptors
	http      atomic.Pointer[httpd.Server] // nil: HTTP is off
	ending    *ending
	followers followers

	applying sync.Mutex    // one Apply at a time; guards present
	present  Config        // in effect: cfg, with what Apply has changed
	weight   atomic.Uint32 // present.Weight
	aloneOK  atomic.Bool   // present.AloneOK

	use       sync.RWMutex   // guards the fields below; never held during a wait
	inUse     sync.WaitGroup // calls that use the store, except Run
	verifying atomic.Bool
	back      *layer // of Run, while it takes more goroutines
	closed    bool
	ran       bool
}

// meanTime is a mean that starts anew each time it is taken.
type meanTime struct{ n, sum atomic.Int64 }

func (m *meanTime) add(d time.Duration) {
	m.n.Add(1)
	m.sum.Add(int64(d))
}

func (m *meanTime) take() time.Duration {
	n, sum := m.n.Swap(0), m.sum.Swap(0)
	if n == 0 {
		return 0
	}
	return time.Duration(sum / n)
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
	rules, err := cfg.rules()
	if err != nil {
		return nil, err
	}
	feeds, err := cfg.openFeeds()
	if err != nil {
		return nil, err
	}
	s := &Sidecar{cfg: cfg, started: cfg.clock.Read().Boot, ready: make(chan struct{})}
	s.files = shareFiles(&cfg, fileLimit())
	w := peer.KeyWatchConfig{Paths: cfg.paths(), Node: cfg.Node, Now: cfg.now, Log: cfg.Log}
	if err := s.keys.Open(w); err != nil {
		return nil, err
	}
	s.cfg.seed = s.keys.Seed()
	if cfg.KeepMemory { // else Run takes what is passed on
		s.passed = s.kept.take(&cfg, append(activation.Files(true), cfg.passed...))
	}
	for _, f := range feeds {
		s.kept.fed = append(s.kept.fed, f.Namespaces()...)
	}
	engineConfig := s.engineConfig(rules)
	engineConfig.Cluster.Feeds = certifiedFeeds(&cfg, feeds)
	if s.engine, err = engine.New(engineConfig); err != nil {
		return nil, err
	}
	s.present, s.memory.engine = s.cfg, s.engine
	s.weight.Store(cfg.Weight)
	s.aloneOK.Store(cfg.AloneOK)
	s.keys.Renew = s.engine.Node.Renew
	s.sessions = session.New(session.Config{
		Engine: s.engine, Host: thisHost{s}, Version: cfg.Version, BootClock: kv.BootClockID(),
		Limits: func() server.Limits { return s.server.Limits() }, Memory: &s.memory,
	})
	s.server = server.New(appLimits(&cfg, s.files.apps, s.engine.Budget), cfg.Log, s.sessions.App)
	s.ending = &ending{engine: s.engine, sessions: s.sessions, log: cfg.Log, begun: make(chan struct{})}
	s.server.Leaving = s.ending.goaway
	openMemcached(&s.memcached, &s.cfg, s.files.apps, s.sessions)
	s.followers = newFollowers(s, feeds)
	s.telemetry = telemetry.New(telemetry.Config{
		Engine: s.engine, Server: s.server, Keys: &s.keys,
		Node: cfg.Node, Version: cfg.Version, Join: len(cfg.Join), AloneOK: s.aloneOK.Load,
		MaxStaleness: cfg.MaxStaleness, Started: s.started, Log: cfg.Log,
		MemoryLimit: func() int64 { limit, _ := memoryLimit(); return limit },
		HTTP:        httpStats(s), Memcached: s.memcached.stats,
		SocketRemade: s.socket.remade.Load, Enter: thisHost{s}.Enter,
		NotReady: func() string { return notReady(s) },
		Changes:  func() []cachesidecar.ChangesStats { return feedStats(s) },
	})
	return s, nil
}

// engineConfig returns what the engine needs of the sidecar.
func (s *Sidecar) engineConfig(rules *access.Rules) engine.Config {
	cfg := &s.cfg
	node := cfg.clusterConfig()
	node.MaxConns = s.files.peers
	if node.Credentials = s.keys.Source(); node.Credentials != nil {
		node.Settings[namespaces.SeedSetting] = peer.SeedDigest(cfg.seed)
	}
	return engine.Config{
		Node: cfg.Node, Seed: cfg.seed, MaxValue: int(cfg.MaxValue), RequestTimeout: cfg.RequestTimeout,
		ReadPatience: cfg.readPatience,
		L1Size:       int64(cfg.L1Size), L2Size: int64(cfg.L2Size), Events: cfg.events,
		Namespaces: cfg.namespaces(), Cluster: node,
		Clock: cfg.clock, Log: cfg.Log, Access: rules, Places: newPlaces(cfg, &s.files),
		Budget: quota.NewBudget(int64(cfg.BufferSize)), Keep: s.kept.config(cfg),
		Peer: func(from kv.Process) server.Handler { return s.sessions.Peer(from) },
	}
}

// Ready returns a channel that is closed when the socket and HTTP are served.
func (s *Sidecar) Ready() <-chan struct{} { return s.ready }

// Ending returns a channel that is closed when Run begins to end: its context has ended,
// or a drain was to end it.
func (s *Sidecar) Ending() <-chan struct{} { return s.ending.begun }

// SocketPath returns the path at which apps connect. It is valid once Ready is closed.
func (s *Sidecar) SocketPath() string { return s.path }
