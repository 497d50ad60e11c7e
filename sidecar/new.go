package sidecar

import (
	"github.com/coreos/go-systemd/v22/activation"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

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
	s.ending = &ending{log: cfg.Log, begun: make(chan struct{})}
	s.files = shareFiles(&cfg, fileLimit())
	w := peer.KeyWatchConfig{Paths: cfg.paths(), Node: cfg.Node, Now: cfg.now, Log: cfg.Log}
	if err := s.keys.Open(w); err != nil {
		return nil, err
	}
	s.cfg.seed = s.keys.Seed()
	if cfg.KeepMemory { // else Run takes what is passed on
		s.passed = s.kept.takeMemory(&cfg, append(activation.Files(true), cfg.passed...))
	}
	for _, f := range feeds {
		s.kept.fed = append(s.kept.fed, f.Namespaces()...)
	}
	engineConfig := s.engineConfig(rules)
	engineConfig.Cluster.Feeds = certifiedFeeds(&cfg, feeds)
	if s.engine, err = engine.New(engineConfig); err != nil {
		return nil, err
	}
	s.present = s.cfg
	s.weight.Store(cfg.Weight)
	s.aloneOK.Store(cfg.AloneOK)
	s.keys.Renew = s.engine.Node.Renew
	s.sessions = session.New(session.Config{
		Engine: s.engine, Host: thisHost{s}, Version: cfg.Version, BootClock: kv.BootClockID(),
		Limits: func() server.Limits { return s.server.Limits() },
	})
	s.server = server.New(appLimits(&cfg, s.files.apps, s.engine.Budget), cfg.Log, s.sessions.App)
	s.ending.engine, s.ending.sessions = s.engine, s.sessions
	s.server.Leaving = s.ending.goaway
	s.memcached.open(&s.cfg, appLimits(&cfg, s.files.apps, s.engine.Budget), s.sessions)
	s.followers = newFollowers(&s.cfg, s.engine, feeds)
	s.telemetry = telemetry.New(telemetry.Config{
		Engine: s.engine, Server: s.server, Keys: &s.keys,
		Node: cfg.Node, Version: cfg.Version, Join: len(cfg.Join), AloneOK: s.aloneOK.Load,
		MaxStaleness: cfg.MaxStaleness, Started: s.started, Log: cfg.Log,
		MemoryLimit: func() int64 { limit, _ := memoryLimit(); return limit },
		HTTP:        httpStats(s), Memcached: s.memcached.stats,
		SocketRemade: s.socket.remade.Load, Enter: thisHost{s}.Enter,
		NotReady: func() string { return notReady(s) },
		Changes:  func() []cachesidecar.ChangesStats { return s.followers.stats(&s.cfg, s.engine.Node) },
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
		Clock: cfg.clock, Log: cfg.Log, Access: rules, Budget: newBudget(cfg, &s.files),
		Keep: s.kept.config(cfg),
		Peer: func(from kv.Process) server.Handler { return s.sessions.Peer(from) },
		Program: engine.Program{
			Stats: func() cachesidecar.Stats { return s.telemetry.Stats() }, Reload: cfg.Reload,
			Stop: s.ending.stopRun, Ending: s.ending.begun, AloneOK: s.aloneOK.Load,
		},
	}
}
