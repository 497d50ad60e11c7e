package telemetry

import (
	"log/slog"
	"reflect"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Config is what is reported, and the facts that the package cannot find out itself.
type Config struct {
	Engine *engine.Engine
	Server *server.Server // of the socket
	Keys   *peer.KeyWatch

	Node, Version string
	Join          int // number of addresses
	AloneOK       func() bool
	MaxStaleness  time.Duration
	Started       time.Duration // on the boot clock
	MemoryLimit   func() int64  // bytes, of the machine or its cgroup; zero is unknown
	Log           *slog.Logger

	HTTP         func() cachesidecar.HTTPStats      // zero: it is not served
	Memcached    func() cachesidecar.MemcachedStats // zero: there is no endpoint
	SocketRemade func() int64                       // times that the socket's file was made anew
	NotReady     func() string                      // why this host is not ready; "": it is
	Changes      func() []cachesidecar.ChangesStats
	Enter        func() (leave func(), ok bool)
}

// Telemetry reports on a host: its statistics and its metrics. Its methods may be called
// concurrently.
type Telemetry struct {
	Config
	Registry *prometheus.Registry
	batches  prometheus.Histogram
	plan     *plan // of page
	recent   recent
}

// New returns a Telemetry, and registers its metrics.
func New(c Config) *Telemetry {
	s := &Telemetry{
		Config:   c,
		Registry: prometheus.NewRegistry(),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    MetricPrefix + "batch_duration_seconds",
			Help:    batchHelp,
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10),
		}),
		plan:   newPlan(reflect.TypeFor[page](), nil),
		recent: recent{steps: []step{{began: c.Started}}},
	}
	s.Registry.MustRegister(s, s.batches,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s
}

// Batch notes how long a batch took.
func (s *Telemetry) Batch(took time.Duration) { s.batches.Observe(took.Seconds()) }

// Describe implements prometheus.Collector.
func (s *Telemetry) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(s, ch) }

// Collect implements prometheus.Collector. It reports nothing once the store is closed.
func (s *Telemetry) Collect(ch chan<- prometheus.Metric) {
	leave, ok := s.Enter()
	if !ok {
		return
	}
	defer leave()
	s.plan.collect(reflect.ValueOf(s.page()), nil, ch)
	for _, ns := range s.Engine.Namespaces.All() {
		if ns.LoadTime != nil {
			ns.LoadTime.Collect(ch)
		}
	}
}

// page has everything that is in /metrics, except histograms, with the tags of
// cachesidecar.Stats. STATS has the requests of a namespace in fewer counts. Any app may
// read STATS, so it does not have the fingerprint of the cluster key.
type page struct {
	Stats    cachesidecar.Stats
	Requests []requests
	Keys     keys `if:"Accepted"`
	Build    build
	// This host serves, and has joined the others.
	Ready bool `metric:"ready"`
}

// requests counts the requests with one outcome. Namespace is "" for requests for names
// without a slot.
type requests struct {
	Namespace string `label:"namespace"`
	Op        string `label:"op"`
	Result    string `label:"result"`
	Tier      string `label:"tier"`
	Requests  int64  `metric:"requests_total"`
}

// keys describes the cluster key and the certificates.
type keys struct {
	Accepted map[string]int64 `metric:"keys{first=*}"`
	// Time at which the certificate in use ends.
	NotAfter int64 `metric:"certificate_expires_timestamp_seconds"`
	// Changes that are in use.
	Taken int64 `metric:"key_reloads_total{result=taken}"`
	// Changes that were not accepted.
	Refused int64 `metric:"key_reloads_total{result=refused}"`
}

type build struct {
	Version  string `label:"version"`
	Go       string `label:"goversion"`
	Protocol string `label:"protocol"`
	One      int64  `metric:"build_info"`
}

// page reads all counters.
func (s *Telemetry) page() page {
	p := page{
		Stats: s.Stats(),
		Build: build{Version: s.Version, Go: runtime.Version(), Protocol: strconv.Itoa(wire.Version), One: 1},
	}
	p.Ready = p.Stats.NotReady == ""
	for name, ns := range s.Engine.Namespaces.All() {
		p.Requests = appendRequests(p.Requests, name, ns)
	}
	p.Requests = appendRequests(p.Requests, "", s.Engine.Namespaces.None)
	if set := s.Keys.Present(); set != nil {
		p.Keys.Accepted = map[string]int64{set.Fingerprint: int64(set.Keys)}
		if leaf := set.Certificate.Leaf; leaf != nil {
			p.Keys.NotAfter = leaf.NotAfter.Unix()
		}
		p.Keys.Taken, p.Keys.Refused = s.Keys.Changes()
	}
	return p
}

// resultLabels has the labels result and tier of each outcome.
var resultLabels = [namespaces.Outcomes][2]string{
	namespaces.HitL1: {"hit", "l1"}, namespaces.HitL2: {"hit", "l2"},
	namespaces.HitPeer: {"hit", "peer"}, namespaces.HitShared: {"hit", "shared"},
	namespaces.HitNear: {"hit", "near"}, namespaces.MissShared: {"miss", "shared"},
	namespaces.Loaded: {"loaded", "origin"},
	namespaces.Done:   {"ok", ""}, namespaces.Miss: {"miss", ""}, namespaces.Stale: {"stale", ""},
	namespaces.Refused: {"refused", ""}, namespaces.Failed: {"error", ""},
}

// appendRequests appends the requests of one namespace. It leaves out zero counts.
func appendRequests(list []requests, name string, ns *namespaces.Namespace) []requests {
	for op := range ns.Counts {
		for o := range ns.Counts[op] {
			if n := ns.Counts[op][o].Load(); n > 0 {
				list = append(list, requests{name, wire.Op(op).String(), resultLabels[o][0], resultLabels[o][1], n})
			}
		}
	}
	return list
}
