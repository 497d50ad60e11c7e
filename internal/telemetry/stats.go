package telemetry

import (
	"math"
	"os"
	"runtime/metrics"

	"github.com/prometheus/procfs"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
)

// Stats returns what STATS answers.
func (s *Telemetry) Stats() cachesidecar.Stats {
	t := cachesidecar.Stats{
		Node:        s.Node,
		Server:      s.Version,
		UptimeMS:    (s.Engine.Clock.Read().Boot - s.Started).Milliseconds(),
		Connections: s.ConnectionStats(),
		L1:          s.L1Stats(),
		L2:          s.l2Stats(),
		Cluster:     s.ClusterState(),
		Namespaces:  s.Engine.Names.Stats(),
		Leases:      s.TokenStats(),
		Shares:      s.Engine.Shares.Stats(),
		Overdue:     s.Engine.Counts.Overdue.Load(),
		Process:     processStats(),
	}
	t.Process.MemoryLimit = s.MemoryLimit
	return t
}

// ConnectionStats returns the statistics of the socket's connections and their buffers.
func (s *Telemetry) ConnectionStats() cachesidecar.ConnectionStats {
	c, b := s.Server.Stats(), s.Engine.Budget.Stats()
	return cachesidecar.ConnectionStats{
		Open: c.Open, Waiting: c.Waiting, Limit: int64(s.Server.Limits().MaxConns), Accepted: c.Accepted, Rejected: c.Rejected,
		SlowReaders: c.SlowReaders, SlowFrames: c.SlowFrames, BadFrames: c.BadFrames,
		InFlight: c.InFlight, Batches: c.Batches, BytesIn: c.BytesIn, BytesOut: c.BytesOut,
		BufferBytes: b.Total(), OverBudget: c.OverBudget, Dropped: c.Dropped,
		Buffers: cachesidecar.BufferStats{
			Limit: b.Size, Frames: b.Used[rpc.ForFrames], Requests: b.Used[rpc.ForRequests], Answers: b.Used[rpc.ForAnswers],
			Peers: b.Used[rpc.ForPeers], Refused: b.AllRefused(), Taken: b.Taken, Owners: b.Owners, Most: b.Greedy, MostBy: b.GreedyBy,
		},
	}
}

// L1Stats returns the statistics of L1; zero if the host is alone.
func (s *Telemetry) L1Stats() cachesidecar.L1Stats {
	if s.Engine.L1 == nil {
		return cachesidecar.L1Stats{}
	}
	st := s.Engine.L1.Stats()
	return cachesidecar.L1Stats{
		Entries: st.Entries, Used: st.Bytes, Limit: st.Limit, Hits: st.Hits, Misses: st.Misses,
		Refused: s.Engine.Counts.CopiesRefused.Load(),
	}
}

// ClusterState returns the statistics of the cluster, its handoffs and invalidations.
func (s *Telemetry) ClusterState() cachesidecar.ClusterState {
	st := s.Engine.Node.Stats()
	h := &s.Engine.Handoff.Counts
	return cachesidecar.ClusterState{
		Join: s.Join, Members: st.Members, In: st.In, Owned: st.Owned, Begun: st.Begun, Ended: st.Ended, Retired: st.Retired,
		Pauses: st.Pauses, StoppedMS: st.Stopped.Milliseconds(), Polls: st.Polls, PollFailures: st.PollFailures, Refused: st.Refused, Conflicts: st.Conflicts,
		PeerReads: s.Engine.Counts.PeerReads.Load(), Joined: s.Engine.Counts.Joined.Load(), PeerErrors: s.Engine.Counts.PeerErrors.Load(),
		Served: s.Engine.Counts.Served.Load(),
		Links: cachesidecar.LinkStats{
			Open: st.Links.Open, Ungreeted: st.Links.Ungreeted, Accepted: st.Links.Accepted, Rejected: st.Links.Rejected, Shed: st.Links.Shed,
			Late: st.Links.Late, Handshakes: st.Links.Handshakes, Failed: st.Links.Failed, BadFrames: st.Links.BadFrames,
		},
		Handoff: cachesidecar.HandoffStats{
			Pulling: h.Pulling.Load(), Offering: s.Engine.Handoff.Offering(), Pulled: h.Pulled.Load(), Admitted: h.Admitted.Load(),
			Refused: h.Refused.Load(), Fetched: h.Fetched.Load(), Given: h.Given.Load(), Bytes: h.Bytes.Load(), Failed: h.Failed.Load(),
		},
		Invalidations: s.invalidationStats(&st),
	}
}

func (s *Telemetry) invalidationStats(st *cluster.Stats) cachesidecar.InvalidationStats {
	t := cachesidecar.InvalidationStats{Leases: []cachesidecar.LeaseStats{}}
	if s.Engine.Log == nil {
		return t
	}
	ledger := s.Engine.Ledger.Stats()
	t.Head, t.Applied, t.Gaps, t.Resets = int64(s.Engine.Log.Head()), st.Applied, st.Gaps, st.Resets
	t.Relayed, t.Unrelayed, t.Heard = st.Relayed, st.Unrelayed, st.Heard
	t.Noted, t.Collisions, t.Strays = ledger.Noted, ledger.Collisions, s.Engine.Counts.Strays.Load()
	t.LagUS = st.Lag.Microseconds()
	for _, l := range st.Leases {
		t.Leases = append(t.Leases, cachesidecar.LeaseStats{Node: string(l.Node), AgeMS: max(-1, l.Age.Milliseconds())})
	}
	return t
}

func (s *Telemetry) l2Stats() cachesidecar.L2Stats {
	st := s.Engine.Store.Stats()
	m := st.Memory
	return cachesidecar.L2Stats{
		Entries: st.Entries, Overhead: math.Round(st.Overhead()*10) / 10,
		Memory: cachesidecar.L2Memory{
			Limit: m.Limit, Used: m.Total, Payload: m.Payload, Headers: m.Headers, Alignment: m.Alignment,
			Dead: m.Dead, Open: m.Open, Tails: m.Tails, Index: m.Index, Ghosts: m.Ghosts, Quotas: m.Quotas,
		},
		Expired: st.Expired, Evicted: st.Evicted, Flushed: st.Flushed, QuotaEvicted: st.QuotaEvicted,
		Overwritten: st.Overwritten, Deleted: st.Deleted, NoRoom: st.NoRoom,
		Segments: st.Segments, FreeSegments: st.FreeSegments, Compactions: st.Compactions,
		Promoted: st.Promoted, GhostHits: st.GhostHits, Shards: int64(st.Shards),
		Collided: st.Collided, CrowdedOut: st.CrowdedOut, SplitsRefused: st.SplitsRefused,
	}
}

// TokenStats returns the statistics of lease tokens.
func (s *Telemetry) TokenStats() cachesidecar.TokenStats {
	l := s.Engine.Leases.Stats()
	return cachesidecar.TokenStats{
		Out: int64(l.Out), Waiting: int64(l.Waiting), Issued: int64(l.Issued), HandedOver: int64(l.HandedOver),
		Expired: int64(l.Expired), Abandoned: int64(l.Abandoned), Filled: int64(l.Filled), NotStored: int64(l.NotStored),
		Collapsed: int64(l.Collapsed), Shed: int64(l.Shed),
	}
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
