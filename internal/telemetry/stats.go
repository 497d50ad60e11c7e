package telemetry

import (
	"math"
	"os"
	"runtime/metrics"

	"github.com/prometheus/procfs"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// Stats returns what STATS answers.
func (s *Telemetry) Stats() cachesidecar.Stats {
	e := s.Engine
	t := cachesidecar.Stats{
		Node:        s.Node,
		Server:      s.Version,
		NotReady:    s.NotReady(),
		UptimeMS:    (e.Clock.Read().Boot - s.Started).Milliseconds(),
		Connections: s.Server.Stats(),
		L1:          s.L1Stats(),
		L2:          e.Store.Stats().L2Stats,
		Memory:      e.SharedMemory.Stats(),
		Cluster:     s.ClusterState(),
		Namespaces:  e.Namespaces.Stats(),
		LeaseTokens: e.LeaseTokens.Stats(),
		Shares:      e.Budget.Shares(),
		Overdue:     e.Counts.Overdue.Load(),
		Process:     processStats(),
		Members:     map[string]int64{},
		HTTP:        s.HTTP(),
		Memcached:   s.Memcached(),
		Changes:     s.Changes(),
		Log:         logs.StatsOf(s.Log),
	}
	t.L2.Kept = e.Kept()
	now, counts := e.Clock.Read().Boot, s.requestCounts()
	for i := range t.Namespaces {
		ns := &t.Namespaces[i]
		ns.Recent = s.recent.stats(ns.Name, now, counts[ns.Name])
	}
	t.Connections.Queued = int64(e.Work.Waiting())
	t.Connections.Denied, t.Connections.Remade = e.Access.Refusals(), s.SocketRemade()
	t.Process.MemoryLimit = s.MemoryLimit()
	for _, state := range cluster.States {
		t.Members[state] = 0
	}
	for _, m := range e.Node.Members() {
		t.Members[m.State]++
	}
	return t
}

// L1Stats returns the statistics of L1; zero if the host is alone.
func (s *Telemetry) L1Stats() cachesidecar.L1Stats {
	if s.Engine.L1 == nil {
		return cachesidecar.L1Stats{}
	}
	t := s.Engine.L1.Stats().L1Stats
	t.Refused = s.Engine.Counts.CopiesRefused.Load()
	return t
}

// ClusterState returns the statistics of the cluster, its handoffs and invalidations.
func (s *Telemetry) ClusterState() cachesidecar.ClusterState {
	e, c := s.Engine, s.Engine.Counts
	t := e.Node.Stats()
	t.Join, t.AloneOK = s.Join, s.AloneOK()
	t.MaxStalenessMS, t.Handoff = s.MaxStaleness.Milliseconds(), e.Handoff.Stats()
	t.PeerReads, t.Joined = c.PeerReads.Load(), c.Joined.Load()
	t.PeerErrors, t.Served = c.PeerErrors.Load(), c.Served.Load()
	if e.Log != nil {
		i, ledger := &t.Invalidations, e.Ledger.Stats()
		i.Head, i.Strays = int64(e.Log.Head()), c.Strays.Load()
		i.Noted, i.Collisions = ledger.Noted, ledger.Collisions
	}
	return t
}

// processStats reads the Go runtime and, on Linux, procfs.
func processStats() cachesidecar.ProcessStats {
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/sched/goroutines:goroutines"},
		{Name: "/gc/cycles/total:gc-cycles"},
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
		{Name: "/cpu/classes/idle:cpu-seconds"},
		{Name: "/cpu/classes/total:cpu-seconds"},
		{Name: "/sched/pauses/total/gc:seconds"},
	}
	metrics.Read(samples)
	p := cachesidecar.ProcessStats{
		PID:        int64(os.Getpid()),
		HeapBytes:  int64(samples[0].Value.Uint64()),
		Goroutines: int64(samples[1].Value.Uint64()),
		GCRuns:     int64(samples[2].Value.Uint64()),
	}
	if used := samples[5].Value.Float64() - samples[4].Value.Float64(); used > 0 {
		p.GCCPUShare = samples[3].Value.Float64() / used
	}
	p.GCPauseMaxUS = int64(highest(samples[6].Value.Float64Histogram()) * 1e6)
	if proc, err := procfs.Self(); err == nil {
		if st, err := proc.Stat(); err == nil {
			p.ResidentBytes = int64(st.ResidentMemory())
		}
	}
	return p
}

// highest returns the lower end of a histogram's last bucket that is not empty.
func highest(h *metrics.Float64Histogram) float64 {
	for i := len(h.Counts) - 1; i >= 0; i-- {
		if h.Counts[i] > 0 && !math.IsInf(h.Buckets[i], 0) {
			return h.Buckets[i]
		}
	}
	return 0
}
