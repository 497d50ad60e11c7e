package telemetry

import (
	"log/slog"
	"runtime"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/creds"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/httpd"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// MetricPrefix begins the name of every metric of this project.
const MetricPrefix = "cachesidecar_"

var (
	descRequests    = desc("requests_total", "Requests, by namespace, op, result and the tier that had the value.", "namespace", "op", "result", "tier")
	descConnections = desc("connections", "Connections on the socket.")
	descWaiting     = desc("connections_waiting", "Of the connections on the socket those that wait for their turn to begin.")
	descConnEvents  = desc("connections_total", "What happened to connections.", "event")
	descMemory      = desc("memory_bytes", "Memory in use, by tier.", "tier")
	descLimit       = desc("memory_limit_bytes", "Memory that a tier may use.", "tier")
	descEntries     = desc("entries", "Entries held, by tier.", "tier")
	descSplits      = desc("index_splits_refused_total", "New keys that came to a page of the L2's index that was due to split, and could not: hashes that were chosen.")
	descRemoved     = desc("evictions_total", "Entries removed, by tier and reason.", "tier", "reason")
	descRefused     = desc("requests_unauthorized_total", "Requests that were refused for want of a right, and HELLOs with a token that is not known.", "right")
	descRemade      = desc("socket_remade_total", "Times that the socket's file was gone and was made anew.")
	descBuffers     = desc("buffer_bytes", "Memory of what is under way on connections, by use: frames (requests coming in), requests (that wait), answers (that nobody has read yet), peers (answers of other hosts).", "use")
	descNoBuffer    = desc("buffers_refused_total", "Times that a connection was refused memory since it held more than its share, by use.", "use")
	descTaken       = desc("buffers_taken_total", "Connections that had to give what they held to others.")
	descDropped     = desc("frames_dropped_total", "Requests answered BUSY for want of memory before they had come.")
	descShared      = desc("shared_places", "Places taken of what all connections share.", "resource")
	descSharedMost  = desc("shared_places_limit", "Places that there are.", "resource")
	descNoPlace     = desc("shared_places_refused_total", "Times that a connection was refused a place since it, or its owner, had its share.", "resource")
	descInFlight    = desc("requests_in_flight", "Requests that wait for somebody.")
	descBytes       = desc("socket_bytes_total", "Bytes on the socket.", "direction")
	descNamespace   = desc("namespace_bytes", "Bytes of a namespace's entries on this host.", "namespace")
	descQuota       = desc("namespace_quota_bytes", "Quota of a namespace; absent where it has none.", "namespace")
	descMembers     = desc("members", "Hosts of the cluster as this one sees them, itself included, by state.", "state")
	descOwned       = desc("partitions_held", "Partitions that this host answers for, of 16,384.")
	descOwnerships  = desc("holdings_total", "Partitions that this host began, ended or ceased to answer for.", "event")
	descPauses      = desc("pauses_total", "Times that the process did not run for so long, at once or in several gaps, that it gave up all that it owned.")
	descStopped     = desc("stopped_seconds_total", "Time in which the process did not run, in gaps above a sixteenth of max_staleness.")
	descPolls       = desc("polls_total", "Polls of other hosts, by whether they were sent or failed.", "event")
	descStrangers   = desc("peers_refused_total", "Greetings that were refused, by this host or by another.")
	descLinks       = desc("peer_connections", "Connections from other hosts, by whether they have been greeted.", "state")
	descLinkEvents  = desc("peer_connections_total", "What happened to connections on the port for other hosts: accepted; rejected over the limit; shed since too many came; late with their greeting; bad_frame; TLS handshakes done and failed.", "event")
	descConflicts   = desc("name_conflicts_total", "Reports of two processes under one name.")
	descGossip      = desc("gossip_dropped_total", "What came to the gossip port and was dropped: compressed, of another cluster, streams beyond their number, other garbage.", "reason")
	descStreams     = desc("gossip_streams", "Streams that others have open to the gossip port.")
	descUnknown     = desc("gossip_unknown", "Processes of which gossip alone tells, and that count for nothing.")
	descUnknownGone = desc("gossip_unknown_forgotten_total", "Processes of which gossip alone had told, forgotten for want of room.")
	descMet         = desc("gossip_greetings_total", "Greetings of processes of which gossip alone had told.", "result")
	descPeerReads   = desc("peer_reads_total", "Reads of other hosts' keys: the owner was asked, or another read's answer shared.", "how")
	descPeerErrors  = desc("peer_errors_total", "Requests to owners of keys that failed.")
	descServed      = desc("peer_served_total", "Keys that other hosts have read or written here.")
	descCopies      = desc("copies_total", "Lookups of copies of other hosts' entries: found, absent, or found and outdated.", "result")
	descHandoff     = desc("handoff_entries_total", "Entries that moved after their partitions.", "event")
	descHandoffSize = desc("handoff_bytes_total", "Bytes of keys and values that have come in handoffs.")
	descHandoffs    = desc("handoffs", "Handoffs under way.", "direction")
	descHandoffFail = desc("handoff_failures_total", "Handoffs that ended early.")
	descEvents      = desc("invalidations_total", "Events of logs: appended here, applied from others, told and heard by gossip, without room there, dropped after a split.", "event")
	descLag         = desc("invalidation_lag_seconds", "How long the first event of the last batch had waited at its host.")
	descGaps        = desc("invalidation_gaps_total", "Times that another host's events did not follow on the last ones: a gap, or a reset since they were lost.", "kind")
	descLease       = desc("lease_remaining_seconds", "How long copies of a host's entries may be served yet if it is not heard again.", "peer")
	descLoads       = desc("loads_total", "Loads from a namespace's origin by what became of them: loaded, absent, failed, detached by a change meanwhile, shed, made aside for want of a holder; and reads that shared one.", "namespace", "result")
	descOriginCalls = desc("origin_calls_total", "Calls of a namespace's origin, retries included.", "namespace")
	descLoading     = desc("loads_under_way", "Loads from a namespace's origin under way.", "namespace")
	descBreaker     = desc("origin_breaker_open", "1 while the breaker before a namespace's origin is not closed.", "namespace")
	descKnown       = desc("known_reads_total", "Reads of a namespace with a filter of existing keys, by what it said: denied, passed, or blind for want of a filter.", "namespace", "result")
	descKnownKeys   = desc("known_keys", "Keys in a namespace's filter, about; 0 where none is in use.", "namespace")
	descKnownAge    = desc("known_age_seconds", "Age of a namespace's filter of existing keys.", "namespace")
	descKnownFailed = desc("known_failures_total", "Builds of a namespace's filter that failed.", "namespace")
	descUnsettled   = desc("origin_writes_unsettled", "Writes to a namespace's origin whose key's present owner has not yet dropped what it may have loaded before.", "namespace")
	descThrough     = desc("origin_writes_total", "Writes to a namespace's origin by what became of them: stored, refused, unknown, shed.", "namespace", "result")
	descWarmed      = desc("warmed_keys_total", "Keys loaded at the start: loaded, absent, failed.", "namespace", "result")
	descTokens      = desc("lease_tokens_total", "Tokens of apps that load themselves, by what became of them.", "event")
	descTokensOut   = desc("lease_tokens", "Tokens out, and reads that wait for their fills.", "state")
	descOverdue     = desc("overdue_writes_total", "Writes that were refused here, since they came after their callers had given them up.")
	descKeys        = desc("keys", "Cluster keys that are accepted, by the fingerprint of the one in use; absent without a key.", "first")
	descKeyReloads  = desc("key_reloads_total", "Changes of the cluster key's and the certificates' files, by whether they were taken or refused.", "result")
	descLog         = desc("log_lines_total", "Lines of the log: written, left out since they were too many, lost since stderr took none.", "event")
	descHTTP        = desc("http_connections", "Connections to the HTTP port.")
	descHTTPClosed  = desc("http_connections_closed_total", "Connections to the HTTP port that were closed, since there were too many.")
	descBuild       = desc("build_info", "Constant 1.", "version", "goversion", "protocol")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(MetricPrefix+name, help, labels, nil)
}

// Config is what is reported, and the facts that the package cannot find out itself.
type Config struct {
	Engine *engine.Engine
	Server *rpc.Server // of the socket
	Keys   *creds.Watch

	Node, Version string
	Join          int           // number of addresses
	Bound         time.Duration // of staleness
	Started       time.Duration // on the boot clock
	MemoryLimit   int64         // bytes, of the machine or its cgroup; zero is unknown
	Log           *slog.Logger

	HTTP         func() *httpd.Server // returns nil while there is none
	SocketRemade func() int64         // times that the socket's file was made anew
	Enter        func() (leave func(), ok bool)
}

// Telemetry reports on a host: its statistics and its metrics. Its methods may be called
// concurrently.
type Telemetry struct {
	Config
	Registry *prometheus.Registry
	batches  prometheus.Histogram
}

// New returns a Telemetry, and registers its metrics.
func New(c Config) *Telemetry {
	s := &Telemetry{
		Config:   c,
		Registry: prometheus.NewRegistry(),
		batches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    MetricPrefix + "batch_duration_seconds",
			Help:    "Time from the read of a batch of requests to the write of its answers; one batch in 16 is timed.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10),
		}),
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
	leave, there := s.Enter()
	if !there {
		return
	}
	defer leave()
	count := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	for name, ns := range s.Engine.Names.All() {
		collectRequests(ns, name, count)
		collectLoads(ns, name, count, gauge)
		collectKnown(ns, name, count, gauge)
		if ns.LoadTime != nil {
			ns.LoadTime.Collect(ch)
		}
		st := s.Engine.Store.NamespaceStats(ns.ID)
		gauge(descNamespace, st.Bytes, name)
		if st.Quota > 0 {
			gauge(descQuota, st.Quota, name)
		}
	}
	collectRequests(s.Engine.Names.None, "", count)
	count(descOverdue, s.Engine.Counts.Overdue.Load())
	if set := s.Keys.Present(); set != nil {
		gauge(descKeys, int64(set.Keys), set.Fingerprint)
		taken, refused := s.Keys.Changes()
		count(descKeyReloads, taken, "taken")
		count(descKeyReloads, refused, "refused")
	}
	if h := s.HTTP(); h != nil {
		open, closed := h.Stats()
		gauge(descHTTP, int64(open))
		count(descHTTPClosed, closed)
	}
	if l, ok := logs.StatsOf(s.Log); ok {
		count(descLog, l.Written, "written")
		count(descLog, l.LeftOut, "left_out")
		count(descLog, l.Lost, "lost")
	}
	t := s.TokenStats()
	count(descTokens, t.Issued, "issued")
	count(descTokens, t.HandedOver, "handed_over")
	count(descTokens, t.Expired, "expired")
	count(descTokens, t.Abandoned, "abandoned")
	count(descTokens, t.Filled, "filled")
	count(descTokens, t.NotStored, "not_stored")
	count(descTokens, t.Shed, "shed")
	gauge(descTokensOut, t.Out, "out")
	gauge(descTokensOut, t.Waiting, "waiting")

	c := s.ConnectionStats()
	gauge(descConnections, c.Open)
	gauge(descWaiting, c.Waiting)
	gauge(descInFlight, c.InFlight)
	count(descConnEvents, c.Accepted, "accepted")
	count(descConnEvents, c.Rejected, "rejected")
	for r := access.Read; r < access.Rights; r++ {
		count(descRefused, s.Engine.Access.Refused(r), r.String())
	}
	count(descRemade, s.SocketRemade())
	count(descRefused, s.Engine.Access.Refused(access.Nothing), "token")
	count(descConnEvents, c.SlowReaders, "slow_reader")
	count(descConnEvents, c.SlowFrames, "slow_frame")
	count(descConnEvents, c.BadFrames, "bad_frame")
	count(descConnEvents, c.OverBudget, "over_budget")
	count(descBytes, c.BytesIn, "in")
	count(descBytes, c.BytesOut, "out")
	s.collectShares(count, gauge)

	l2 := s.l2Stats()
	gauge(descMemory, l2.Memory.Used, "l2")
	gauge(descLimit, l2.Memory.Limit, "l2")
	gauge(descEntries, l2.Entries, "l2")
	count(descRemoved, l2.Evicted-l2.Collided-l2.CrowdedOut, "l2", "capacity")
	count(descRemoved, l2.Collided, "l2", "one_hash")
	count(descRemoved, l2.CrowdedOut, "l2", "full_page")
	count(descSplits, l2.SplitsRefused)
	count(descRemoved, l2.QuotaEvicted, "l2", "quota")
	count(descRemoved, l2.Expired, "l2", "expired")
	count(descRemoved, l2.Flushed, "l2", "flushed")
	if !s.Engine.Node.Alone() {
		ch <- prometheus.MustNewConstMetric(descStopped, prometheus.CounterValue, s.Engine.Node.Stats().Stopped.Seconds())
	}
	s.collectCluster(count, gauge, func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	})
	gauge(descBuild, 1, s.Version, runtime.Version(), strconv.Itoa(wire.Version))
}

// collectGossip reports what unknown senders do at the gossip port.
func (s *Telemetry) collectGossip(count, gauge func(*prometheus.Desc, int64, ...string)) {
	st := s.Engine.Node.Stats()
	g := &st.Gossip
	count(descGossip, g.Compressed, "compressed")
	count(descGossip, g.Foreign, "other_cluster")
	count(descGossip, g.Refused, "stream")
	count(descGossip, max(0, g.Garbage-g.Compressed-g.Foreign-g.Refused), "garbage")
	gauge(descStreams, int64(g.Streams))
	gauge(descUnknown, int64(g.Unknown))
	count(descUnknownGone, g.Forgotten)
	count(descMet, st.Met.Greeted, "greeted")
	count(descMet, st.Met.Failed, "failed")
}

// collectShares reports the use of what connections share.
func (s *Telemetry) collectShares(count, gauge func(*prometheus.Desc, int64, ...string)) {
	b := s.Engine.Budget.Stats()
	gauge(descMemory, b.Total(), "buffers")
	gauge(descLimit, b.Size, "buffers")
	for use := range rpc.Uses {
		gauge(descBuffers, b.Used[use], use.String())
		count(descNoBuffer, b.Refused[use], use.String())
	}
	count(descTaken, b.Taken)
	count(descDropped, s.Server.Stats().Dropped)
	for _, t := range s.Engine.Shares.Stats() {
		gauge(descShared, t.Used, t.Name)
		gauge(descSharedMost, t.Limit, t.Name)
		count(descNoPlace, t.Refused, t.Name)
	}
}

// collectCluster reports the cluster; for a host that is alone, only its members.
func (s *Telemetry) collectCluster(count, gauge func(*prometheus.Desc, int64, ...string), seconds func(*prometheus.Desc, float64, ...string)) {
	states := map[string]int64{cluster.StateIn: 0, cluster.StateOut: 0, cluster.StateMissing: 0, cluster.StateRefused: 0, cluster.StateLeft: 0, cluster.StateUnknown: 0}
	for _, m := range s.Engine.Node.Members() {
		states[m.State]++
	}
	for state, n := range states {
		gauge(descMembers, n, state)
	}
	if s.Engine.Node.Alone() {
		return
	}
	c := s.ClusterState()
	gauge(descOwned, int64(c.Owned))
	count(descOwnerships, c.Begun, "begun")
	count(descOwnerships, c.Ended, "ended")
	count(descOwnerships, c.Retired, "retired")
	count(descPauses, c.Pauses)
	count(descPolls, c.Polls, "sent")
	count(descPolls, c.PollFailures, "failed")
	count(descStrangers, c.Refused)
	count(descConflicts, c.Conflicts)
	links := &c.Links
	gauge(descLinks, max(0, links.Open-links.Ungreeted), "greeted")
	gauge(descLinks, links.Ungreeted, "ungreeted")
	count(descLinkEvents, links.Accepted, "accepted")
	count(descLinkEvents, links.Rejected, "rejected")
	count(descLinkEvents, links.Shed, "shed")
	count(descLinkEvents, links.Late, "late")
	count(descLinkEvents, links.BadFrames, "bad_frame")
	count(descLinkEvents, links.Handshakes, "handshake")
	count(descLinkEvents, links.Failed, "handshake_failed")
	s.collectGossip(count, gauge)
	count(descPeerReads, c.PeerReads, "asked")
	count(descPeerReads, c.Joined, "shared")
	count(descPeerErrors, c.PeerErrors)
	count(descServed, c.Served)

	l1 := s.L1Stats()
	gauge(descMemory, l1.Used, "l1")
	gauge(descLimit, l1.Limit, "l1")
	gauge(descEntries, l1.Entries, "l1")
	count(descCopies, l1.Hits, "found")
	count(descCopies, l1.Misses, "absent")
	count(descCopies, l1.Refused, "outdated")

	i := c.Invalidations
	count(descEvents, i.Head, "appended")
	count(descEvents, i.Applied, "applied")
	count(descEvents, i.Relayed, "relayed")
	count(descEvents, i.Unrelayed, "unrelayed")
	count(descEvents, i.Heard, "heard")
	count(descEvents, i.Strays, "strayed")
	count(descGaps, i.Gaps, "gap")
	count(descGaps, i.Resets, "reset")
	seconds(descLag, float64(i.LagUS)/1e6)
	for _, l := range i.Leases {
		left := time.Duration(0)
		if l.AgeMS >= 0 {
			left = max(0, s.Bound-time.Duration(l.AgeMS)*time.Millisecond)
		}
		seconds(descLease, left.Seconds(), l.Node)
	}

	h := c.Handoff
	count(descHandoff, h.Pulled, "pulled")
	count(descHandoff, h.Admitted, "admitted")
	count(descHandoff, h.Refused, "refused")
	count(descHandoff, h.Fetched, "fetched")
	count(descHandoff, h.Given, "given")
	count(descHandoffSize, h.Bytes)
	count(descHandoffFail, h.Failed)
	gauge(descHandoffs, h.Pulling, "in")
	gauge(descHandoffs, int64(h.Offering), "out")
}

// resultLabels has the labels result and tier of each outcome.
var resultLabels = [namespaces.Outcomes][2]string{
	namespaces.HitL1: {"hit", "l1"}, namespaces.HitL2: {"hit", "l2"}, namespaces.HitPeer: {"hit", "peer"}, namespaces.HitOrigin: {"hit", "origin"},
	namespaces.Done: {"ok", ""}, namespaces.Miss: {"miss", ""}, namespaces.Stale: {"stale", ""}, namespaces.Refused: {"refused", ""}, namespaces.Failed: {"error", ""},
}

// collectRequests reports the requests of one namespace. It leaves out zero counts.
func collectRequests(ns *namespaces.Namespace, name string, count func(*prometheus.Desc, int64, ...string)) {
	for op := range ns.Counts {
		for o := range ns.Counts[op] {
			if n := ns.Counts[op][o].Load(); n > 0 {
				count(descRequests, n, name, wire.Op(op).String(), resultLabels[o][0], resultLabels[o][1])
			}
		}
	}
}

// collectLoads reports the loads of one namespace, if it has an origin.
func collectLoads(ns *namespaces.Namespace, name string, count, gauge func(*prometheus.Desc, int64, ...string)) {
	if ns.Origin == nil {
		return
	}
	l := ns.LoadStats()
	count(descLoads, l.Loads-l.Absent-l.Failed-l.UnderWay, name, "loaded")
	count(descLoads, l.Absent, name, "absent")
	count(descLoads, l.Failed, name, "failed")
	count(descLoads, l.Detached, name, "detached")
	count(descLoads, l.Shed, name, "shed")
	count(descLoads, l.Aside, name, "aside")
	count(descLoads, l.Collapsed, name, "collapsed")
	count(descOriginCalls, l.Calls, name)
	gauge(descLoading, l.UnderWay, name)
	open := int64(0)
	if l.Breaker != "closed" {
		open = 1
	}
	gauge(descBreaker, open, name)
	if ns.Warming != nil {
		w := ns.WarmStats()
		count(descWarmed, w.Loaded, name, "loaded")
		count(descWarmed, w.Absent, name, "absent")
		count(descWarmed, w.Failed, name, "failed")
	}
	if ns.WriteThrough != nil {
		t := ns.WriteThroughStats()
		count(descThrough, t.Stored, name, "stored")
		count(descThrough, t.Refused, name, "refused")
		count(descThrough, t.Unknown, name, "unknown")
		count(descThrough, t.Shed, name, "shed")
		gauge(descUnsettled, t.Unsettled, name)
	}
}

// collectKnown reports the key filter of one namespace, if it has one.
func collectKnown(ns *namespaces.Namespace, name string, count, gauge func(*prometheus.Desc, int64, ...string)) {
	if ns.KeyFilter == nil {
		return
	}
	k := ns.KeyFilterStats()
	count(descKnown, k.Denied, name, "denied")
	count(descKnown, k.Passed, name, "passed")
	count(descKnown, k.Blind, name, "blind")
	count(descKnownFailed, k.Failures, name)
	keys := int64(0)
	if k.InUse {
		keys = k.Keys
	}
	gauge(descKnownKeys, keys, name)
	gauge(descKnownAge, k.AgeMS/1000, name)
}
