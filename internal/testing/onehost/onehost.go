// Package onehost makes an engine of one host, for the tests of the packages that answer
// requests. The store, the namespaces and the node are real; the node is alone, so it owns
// all partitions from the start.
//
// Input is the settings that a test is about; the others have the defaults of package
// sidecar. Output is a Host, which answers requests as apps and other sidecars make them.
//
// New starts nothing. Run starts what a sidecar runs behind an engine. All goroutines end
// with the test. The package makes no connection: the tests of package session do.
package onehost

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Config has what a test may be about. Zero means the default.
type Config struct {
	Clock          kv.Clock                       // default: a Clock
	L2Size         int64                          // default: 8 MiB
	MaxValue       int                            // default: 1/16 of L2Size
	RequestTimeout time.Duration                  // default: 1 minute
	MaxNamespaces  int                            // default: kv.MaxNamespaces
	Namespaces     map[string]namespaces.Settings // default: the namespace default
	Access         access.Config                  // default: all may do everything
	BufferSize     int64                          // of requests and answers; default: quota.DefaultBudget
	Log            *slog.Logger                   // default: none
}

// Host is an engine that lives as long as its test.
type Host struct {
	*engine.Engine
	t testing.TB

	ctx     context.Context // of what Run starts
	stop    context.CancelFunc
	running sync.WaitGroup
}

// New returns the engine of a host named "host". The end of the test closes it.
func New(t testing.TB, cfg Config) *Host {
	t.Helper()
	if cfg.Clock == nil {
		cfg.Clock = NewClock()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	rules, err := access.New(cfg.Access)
	testenv.Must(t, err)
	e, err := engine.New(cfg.engine(rules))
	testenv.Must(t, err)
	h := &Host{Engine: e, t: t}
	h.ctx, h.stop = context.WithCancel(context.Background())
	t.Cleanup(h.close)
	return h
}

// engine returns the settings of the engine, with every default filled in.
func (c *Config) engine(rules *access.Rules) engine.Config {
	size := cmp.Or(c.L2Size, 8<<20)
	value := cmp.Or(c.MaxValue, int(size)/16)
	names := c.names(value)
	budget := quota.NewBudget(c.BufferSize)
	budget.SetTotals([quota.Resources]int64{
		quota.LeaseTokens: engine.MaxLeases, quota.Watches: engine.MaxWatches, quota.Waiting: 1 << 16,
		quota.Namespaces: int64(names.Max - len(names.Configured)), quota.Connections: 1 << 14,
		quota.Flushes: namespaces.MaxFlushed, quota.Descriptors: 16,
	})
	return engine.Config{
		Node: "host", MaxValue: value, RequestTimeout: cmp.Or(c.RequestTimeout, time.Minute), L2Size: size,
		Namespaces: names,
		Cluster: cluster.Config{
			Self: kv.Process{Node: "host"}, Weight: cluster.WeightOf(size), Bound: cluster.DefaultBound,
			PollEvery: cluster.DefaultBound / 4, Clock: c.Clock, Log: c.Log,
		},
		Clock: c.Clock, Log: c.Log, Access: rules, Budget: budget,
	}
}

// names returns the settings of the namespaces.
func (c *Config) names(value int) namespaces.Config {
	all := map[string]namespaces.Settings{namespaces.Default: Settings()}
	maps.Copy(all, c.Namespaces)
	return namespaces.Config{
		Max: cmp.Or(c.MaxNamespaces, kv.MaxNamespaces), Bound: cluster.DefaultBound, MaxValue: value,
		Clock: c.Clock, Log: c.Log, Node: "host", Configured: all, Others: Settings(),
	}
}

// Settings returns the settings of a namespace without any of its own.
func Settings() namespaces.Settings {
	return namespaces.Settings{
		TTL: time.Hour, StaleLimit: time.Minute, LeaseTime: 10 * time.Second, Jitter: 0.1,
		Policy: namespaces.Policy{NegativeTTL: 5 * time.Second, Beta: 1},
	}
}

// One returns namespaces of which the default one has changed settings.
func One(change func(*namespaces.Settings)) map[string]namespaces.Settings {
	s := Settings()
	change(&s)
	return map[string]namespaces.Settings{namespaces.Default: s}
}

// Run starts what a sidecar runs behind an engine: its store, its audit and its key filters. Then it
// warms the namespaces up.
func (h *Host) Run() {
	h.running.Go(func() { _ = h.Store.Run(h.ctx, h.Clock) })
	h.running.Go(func() { h.Namespaces.Audits.CompareHits(h.ctx) })
	for filter := range h.Namespaces.KeyFilters() {
		h.running.Go(func() { filter.Run(h.ctx) })
	}
	for _, w := range h.Namespaces.Warmings() {
		h.running.Go(func() { w.Run(h.ctx) })
	}
}

func (h *Host) close() {
	h.stop()
	h.running.Wait()
	if err := h.Engine.Close(); err != nil {
		h.t.Error(err)
	}
}
