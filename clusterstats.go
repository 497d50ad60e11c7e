package cachesidecar

import "cmp"

// ClusterStats is the body of an answer to STATS with the option Cluster.
type ClusterStats struct {
	Nodes []Stats `json:"nodes"`
	// Hosts that did not answer.
	Missing []MissingStats `json:"missing"`
}

// MissingStats gives the reason why a host's statistics are missing.
type MissingStats struct {
	Node string `json:"node"`
	Why  string `json:"why"`
}

// ClusterState describes this host's part in the cluster.
type ClusterState struct {
	// No other host can join, and this one joins no other.
	Alone bool `json:"alone"`
	// Configured addresses at which it looks for other hosts.
	Join int `json:"join" sum:"-"`
	// The bound: no copy is served whose host was last heard longer ago.
	MaxStalenessMS int64 `json:"max_staleness_ms" metric:"max_staleness_seconds" sum:"-"`
	// Live members, this one included.
	Members int `json:"members" sum:"-"`
	// Names of the other hosts that should be there, if none of them answers. "" if one does, or if all
	// have left in order.
	Isolated string `json:"isolated"`
	// The setting alone_ok: this host is well although it is isolated.
	AloneOK bool `json:"alone_ok"`
	// This host may own partitions.
	In bool `json:"in"`
	// This host was drained, or is leaving, and owns nothing.
	Drained bool `json:"drained" metric:"drained"`
	// Partitions that this host owns.
	Owned int `json:"owned" metric:"partitions_owned"`
	// Ownerships that began.
	Begun int64 `json:"begun" metric:"holdings_total{event=begun}"`
	// Ownerships that ended.
	Ended int64 `json:"ended" metric:"holdings_total{event=ended}"`
	// Ownerships that the ring ended.
	Retired int64 `json:"retired" metric:"holdings_total{event=retired}"`
	// Times that it gave up its ownerships after it had not run.
	Pauses int64 `json:"pauses" metric:"pauses_total"`
	// Time in which it did not run, in gaps above a sixteenth of the bound.
	StoppedMS int64 `json:"stopped_ms" metric:"stopped_seconds_total"`
	// Polls sent.
	Polls int64 `json:"polls" metric:"polls_total{event=sent}"`
	// Polls without an answer.
	PollFailures int64 `json:"poll_failures" metric:"polls_total{event=failed}"`
	// Refused greetings, sent and received.
	Refused int64 `json:"refused" metric:"peers_refused_total"`
	// Reports of two processes of one name.
	Conflicts int64 `json:"conflicts" metric:"name_conflicts_total"`
	// Keys requested from owners.
	PeerReads int64 `json:"peer_reads" metric:"peer_reads_total{how=asked}"`
	// Reads that shared the request of another read.
	Joined int64 `json:"joined" metric:"peer_reads_total{how=shared}"`
	// Failed requests to owners.
	PeerErrors int64 `json:"peer_errors" metric:"peer_errors_total"`
	// Keys that other hosts requested here.
	Served int64 `json:"served" metric:"peer_served_total"`

	// Settings that change an answer and differ between this host and another one.
	Settings []SettingStats `json:"settings"`

	Links         LinkStats         `json:"links"`
	Gossip        GossipStats       `json:"gossip"`
	Handoff       HandoffStats      `json:"handoff"`
	Invalidations InvalidationStats `json:"invalidations"`
}

// LinkStats describes connections from other hosts, and from unknown clients on the peer
// port.
type LinkStats struct {
	// Open connections.
	Open int64 `json:"open"`
	// Open connections without a greeting yet.
	Ungreeted int64 `json:"ungreeted" metric:"peer_connections{state=ungreeted}"`
	// Open connections with a greeting.
	Greeted int64 `json:"greeted" metric:"peer_connections{state=greeted}"`
	// Connections accepted.
	Accepted int64 `json:"accepted" metric:"peer_connections_total{event=accepted}"`
	// Closed at once: above the limit of connections.
	Rejected int64 `json:"rejected" metric:"peer_connections_total{event=rejected}"`
	// Closed: too many were new, or without a greeting.
	Shed int64 `json:"shed" metric:"peer_connections_total{event=shed}"`
	// Closed: no greeting in time.
	Late int64 `json:"late" metric:"peer_connections_total{event=late}"`
	// Completed TLS handshakes.
	Handshakes int64 `json:"handshakes" metric:"peer_connections_total{event=handshake}"`
	// Failed TLS handshakes.
	Failed int64 `json:"handshake_failures" metric:"peer_connections_total{event=handshake_failed}"`
	// Closed: a frame that is too long, or empty.
	BadFrames int64 `json:"bad_frames" metric:"peer_connections_total{event=bad_frame}"`
}

// GossipStats describes what unknown senders do at the gossip port.
type GossipStats struct {
	// Dropped messages: compressed.
	Compressed int64 `json:"compressed" metric:"gossip_dropped_total{reason=compressed}"`
	// Dropped messages: of another cluster.
	Foreign int64 `json:"other_cluster" metric:"gossip_dropped_total{reason=other_cluster}"`
	// Refused streams: too many were open.
	Refused int64 `json:"refused_streams" metric:"gossip_dropped_total{reason=stream}"`
	// Dropped messages: not readable, or refused for another reason.
	Garbage int64 `json:"garbage" metric:"gossip_dropped_total{reason=garbage}"`
	// Open streams from other processes.
	Streams int64 `json:"streams" metric:"gossip_streams"`
	// Processes that only gossip reports. They have no effect.
	Unknown int64 `json:"unknown" metric:"gossip_unknown"`
	// Such processes forgotten because there were too many.
	Forgotten int64 `json:"unknown_forgotten" metric:"gossip_unknown_forgotten_total"`
	// Such processes that answered a greeting.
	Greeted int64 `json:"greeted" metric:"gossip_greetings_total{result=greeted}"`
	// Greetings of such processes without an answer.
	GreetingsFailed int64 `json:"greetings_failed" metric:"gossip_greetings_total{result=failed}"`
}

// InvalidationStats describes the mechanisms that keep copies from being outdated.
type InvalidationStats struct {
	// Events in this host's log since its start.
	Head int64 `json:"head" metric:"invalidations_total{event=appended}"`
	// Events of other hosts' logs applied.
	Applied int64 `json:"applied" metric:"invalidations_total{event=applied}"`
	// Answers of other hosts that did not continue the last one.
	Gaps int64 `json:"gaps" metric:"invalidation_gaps_total{kind=gap}"`
	// Times that a host's log no longer had the next event.
	Resets int64 `json:"resets" metric:"invalidation_gaps_total{kind=reset}"`
	// Events that gossip sent too.
	Relayed int64 `json:"relayed" metric:"invalidations_total{event=relayed}"`
	// Events that gossip had no room for.
	Unrelayed int64 `json:"unrelayed" metric:"invalidations_total{event=unrelayed}"`
	// Events that gossip received.
	Heard int64 `json:"heard" metric:"invalidations_total{event=heard}"`
	// Events recorded in the ledger.
	Noted int64 `json:"noted"`
	// Events that also outdated the copies of other keys.
	Collisions int64 `json:"collisions"`
	// Entries and partitions dropped after a split.
	Strays int64 `json:"strays" metric:"invalidations_total{event=strayed}"`
	// Time that the first event of the last batch had waited at its host.
	LagUS int64 `json:"lag_us" metric:"invalidation_lag_seconds" sum:"-"`
	// One for each other host that has neither left nor is missing.
	Leases []LeaseStats `json:"leases"`
}

// SettingStats is a setting that changes an answer and differs between this host and another one.
type SettingStats struct {
	// Name of the other host.
	Node string `json:"node" label:"peer"`
	// The namespace of the setting; "": the host's own, or a feed's; "*": all that are not configured.
	Namespace string `json:"namespace" label:"namespace"`
	// Name of the setting, without its namespace.
	Setting string `json:"setting" label:"setting"`
	// True.
	Differs bool `json:"differs" metric:"setting_differs"`
}

// Name returns the setting as a configuration file has it.
func (s SettingStats) Name() string {
	if s.Namespace == "" {
		return s.Setting
	}
	return "namespaces." + s.Namespace + "." + s.Setting
}

// Compare orders settings by host, namespace and name.
func (s SettingStats) Compare(o SettingStats) int {
	return cmp.Or(cmp.Compare(s.Node, o.Node), cmp.Compare(s.Namespace, o.Namespace), cmp.Compare(s.Setting, o.Setting))
}

// LeaseStats describes the lease on one other host.
type LeaseStats struct {
	// Name of the host.
	Node string `json:"node" label:"peer"`
	// Time for which this host may lag behind that one; -1: no lease.
	AgeMS int64 `json:"age_ms" sum:"-"`
	// Time for which copies of the host's entries may still be served.
	RemainingMS int64 `json:"remaining_ms" metric:"lease_remaining_seconds" sum:"-"`
}

// HandoffStats counts the entries that move with their partitions.
type HandoffStats struct {
	// Handoffs to this host that are under way.
	Pulling int64 `json:"pulling" metric:"handoffs{direction=in}"`
	// Handoffs from this host that are under way.
	OpenOffers int `json:"offering" metric:"handoffs{direction=out}"`
	// Entries that came.
	Pulled int64 `json:"pulled" metric:"handoff_entries_total{event=pulled}"`
	// Entries that came and were stored.
	Admitted int64 `json:"admitted" metric:"handoff_entries_total{event=admitted}"`
	// Entries that came, and were outdated or already present.
	Refused int64 `json:"refused" metric:"handoff_entries_total{event=refused}"`
	// Entries requested before their turn.
	Fetched int64 `json:"fetched" metric:"handoff_entries_total{event=fetched}"`
	// Entries that went to another host.
	Sent int64 `json:"given" metric:"handoff_entries_total{event=given}"`
	// Bytes of keys and values that came.
	Bytes int64 `json:"bytes" metric:"handoff_bytes_total"`
	// Handoffs to this host that ended early.
	Failed int64 `json:"failed" metric:"handoff_failures_total"`
}
