package cachesidecar

// Stats is the body of an answer to STATS. Sizes are in bytes, times in milliseconds;
// counts begin with the start of the sidecar.
type Stats struct {
	Node        string           `msgpack:"node" json:"node"`
	Server      string           `msgpack:"server" json:"server"`
	UptimeMS    int64            `msgpack:"uptime_ms" json:"uptime_ms"`
	Connections ConnectionStats  `msgpack:"connections" json:"connections"`
	L1          L1Stats          `msgpack:"l1" json:"l1"`
	L2          L2Stats          `msgpack:"l2" json:"l2"`
	Cluster     ClusterState     `msgpack:"cluster" json:"cluster"`
	Namespaces  []NamespaceStats `msgpack:"namespaces" json:"namespaces"`
	Leases      TokenStats       `msgpack:"leases" json:"leases"`
	Shares      []ShareStats     `msgpack:"shares" json:"shares"`
	// Refused because their callers had given up.
	Overdue int64        `msgpack:"overdue_writes" json:"overdue_writes"`
	Process ProcessStats `msgpack:"process" json:"process"`
}

// ClusterStats is the body of an answer to STATS with the option Cluster.
type ClusterStats struct {
	Nodes   []Stats        `msgpack:"nodes" json:"nodes"`
	Missing []MissingStats `msgpack:"missing" json:"missing"` // hosts that did not answer
}

// MissingStats gives the reason why a host's statistics are missing.
type MissingStats struct {
	Node string `msgpack:"node" json:"node"`
	Why  string `msgpack:"why" json:"why"`
}

// L1Stats describes the copies of entries that other hosts own.
type L1Stats struct {
	Entries int64 `msgpack:"entries" json:"entries"`
	Used    int64 `msgpack:"used" json:"used"`
	Limit   int64 `msgpack:"limit" json:"limit"`
	Hits    int64 `msgpack:"hits" json:"hits"` // copies found, whether served or not
	Misses  int64 `msgpack:"misses" json:"misses"`
	Refused int64 `msgpack:"refused" json:"refused"` // found, but outdated
}

// ClusterState describes this host's part in the cluster. Counts are of partitions
// unless noted.
type ClusterState struct {
	// Configured addresses at which it looks for other hosts.
	Join    int   `msgpack:"join" json:"join"`
	Members int   `msgpack:"members" json:"members"` // live members, this one included
	In      bool  `msgpack:"in" json:"in"`           // this host may own partitions
	Owned   int   `msgpack:"held" json:"held"`
	Begun   int64 `msgpack:"begun" json:"begun"`
	Ended   int64 `msgpack:"ended" json:"ended"`
	Retired int64 `msgpack:"retired" json:"retired"`
	// Times that it gave up its ownerships because it had not run for too long.
	Pauses int64 `msgpack:"pauses" json:"pauses"`
	// Time in which it did not run, in gaps above a sixteenth of the bound.
	StoppedMS int64 `msgpack:"stopped_ms" json:"stopped_ms"`
	Polls     int64 `msgpack:"polls" json:"polls"` // sent
	// Polls without an answer.
	PollFailures int64 `msgpack:"poll_failures" json:"poll_failures"`
	// Refused greetings, sent and received.
	Refused   int64 `msgpack:"refused" json:"refused"`
	Conflicts int64 `msgpack:"conflicts" json:"conflicts"`   // two processes of one name
	PeerReads int64 `msgpack:"peer_reads" json:"peer_reads"` // keys requested from owners
	// Reads that shared the request of another read.
	Joined int64 `msgpack:"joined" json:"joined"`
	// Failed requests to owners.
	PeerErrors int64 `msgpack:"peer_errors" json:"peer_errors"`
	// Keys that other hosts requested here.
	Served int64 `msgpack:"served" json:"served"`

	Links         LinkStats         `msgpack:"links" json:"links"`
	Handoff       HandoffStats      `msgpack:"handoff" json:"handoff"`
	Invalidations InvalidationStats `msgpack:"invalidations" json:"invalidations"`
}

// LinkStats describes connections from other hosts, and from unknown clients on the peer
// port.
type LinkStats struct {
	Open      int64 `msgpack:"open" json:"open"`
	Ungreeted int64 `msgpack:"ungreeted" json:"ungreeted"` // open, without a greeting yet
	Accepted  int64 `msgpack:"accepted" json:"accepted"`
	Rejected  int64 `msgpack:"rejected" json:"rejected"` // above the limit of connections
	// Closed because of too many new connections, or of too many without a greeting.
	Shed int64 `msgpack:"shed" json:"shed"`
	Late int64 `msgpack:"late" json:"late"` // no greeting in time
	// Completed TLS handshakes.
	Handshakes int64 `msgpack:"handshakes" json:"handshakes"`
	// Failed TLS handshakes.
	Failed int64 `msgpack:"handshake_failures" json:"handshake_failures"`
	// Closed: a frame that is too long, or empty.
	BadFrames int64 `msgpack:"bad_frames" json:"bad_frames"`
}

// InvalidationStats describes the mechanisms that keep copies from being outdated.
// Counts are of events unless noted.
type InvalidationStats struct {
	Head    int64 `msgpack:"head" json:"head"`       // end of this host's log
	Applied int64 `msgpack:"applied" json:"applied"` // from other hosts' logs
	// Answers that did not continue the last one.
	Gaps int64 `msgpack:"gaps" json:"gaps"`
	// Times that a log no longer had the next event.
	Resets  int64 `msgpack:"resets" json:"resets"`
	Relayed int64 `msgpack:"relayed" json:"relayed"` // also sent by gossip
	// Not sent by gossip because there was no room.
	Unrelayed int64 `msgpack:"unrelayed" json:"unrelayed"`
	Heard     int64 `msgpack:"heard" json:"heard"` // received by gossip
	Noted     int64 `msgpack:"noted" json:"noted"` // recorded in the ledger
	// Events that also outdated the copies of other keys.
	Collisions int64 `msgpack:"collisions" json:"collisions"`
	// Entries and partitions dropped after a split.
	Strays int64 `msgpack:"strays" json:"strays"`
	// Wait of the first event of the last batch, microseconds.
	LagUS  int64        `msgpack:"lag_us" json:"lag_us"`
	Leases []LeaseStats `msgpack:"leases" json:"leases"` // one per node
}

// LeaseStats describes the lease on one other host.
type LeaseStats struct {
	Node string `msgpack:"node" json:"node"`
	// Everything older than this has been applied; -1: no lease.
	AgeMS int64 `msgpack:"age_ms" json:"age_ms"`
}

// HandoffStats counts the entries that move with their partitions.
type HandoffStats struct {
	Pulling  int64 `msgpack:"pulling" json:"pulling"`   // handoffs to this host, now
	Offering int   `msgpack:"offering" json:"offering"` // handoffs from this host, now
	Pulled   int64 `msgpack:"pulled" json:"pulled"`
	Admitted int64 `msgpack:"admitted" json:"admitted"`
	Refused  int64 `msgpack:"refused" json:"refused"` // outdated, or already present
	Fetched  int64 `msgpack:"fetched" json:"fetched"` // requested before their turn
	Given    int64 `msgpack:"given" json:"given"`
	Bytes    int64 `msgpack:"bytes" json:"bytes"` // pulled
	Failed   int64 `msgpack:"failed" json:"failed"`
}

// ConnectionStats counts events on the client socket.
type ConnectionStats struct {
	Open int64 `msgpack:"open" json:"open"`
	// Open connections that wait for their turn to begin.
	Waiting  int64 `msgpack:"waiting" json:"waiting"`
	Limit    int64 `msgpack:"limit" json:"limit"`
	Accepted int64 `msgpack:"accepted" json:"accepted"`
	Rejected int64 `msgpack:"rejected" json:"rejected"` // above the limit
	// Closed: did not read their answers.
	SlowReaders int64 `msgpack:"slow_readers" json:"slow_readers"`
	// Closed: did not complete a frame.
	SlowFrames int64 `msgpack:"slow_frames" json:"slow_frames"`
	// Closed: a frame that is too long, or empty.
	BadFrames int64 `msgpack:"bad_frames" json:"bad_frames"`
	InFlight  int64 `msgpack:"in_flight" json:"in_flight"` // requests that wait
	Batches   int64 `msgpack:"batches" json:"batches"`     // reads that returned requests
	BytesIn   int64 `msgpack:"bytes_in" json:"bytes_in"`
	BytesOut  int64 `msgpack:"bytes_out" json:"bytes_out"`
	// Memory of pending requests and answers, those of other hosts included.
	BufferBytes int64 `msgpack:"buffer_bytes" json:"buffer_bytes"`

	// Closed: used more than their share of memory and did not read their answers.
	OverBudget int64 `msgpack:"over_budget" json:"over_budget"`
	// Requests answered BUSY before they were read completely, for lack of memory.
	Dropped int64       `msgpack:"dropped" json:"dropped"`
	Buffers BufferStats `msgpack:"buffers" json:"buffers"`
}

// BufferStats describes the memory of pending requests and answers, in bytes by use.
type BufferStats struct {
	Limit int64 `msgpack:"limit" json:"limit"`
	// Requests that are incomplete, or long.
	Frames   int64 `msgpack:"frames" json:"frames"`
	Requests int64 `msgpack:"requests" json:"requests"` // that wait
	// Answers that the client has not read yet.
	Answers int64 `msgpack:"answers" json:"answers"`
	Peers   int64 `msgpack:"peers" json:"peers"`     // answers of other hosts
	Refused int64 `msgpack:"refused" json:"refused"` // times that memory was refused
	// Times that a connection had to give memory to others.
	Taken  int64  `msgpack:"taken" json:"taken"`
	Owners int64  `msgpack:"owners" json:"owners"` // users and hosts that use memory
	Most   string `msgpack:"most" json:"most"`     // the user or host that uses most
	MostBy int64  `msgpack:"most_bytes" json:"most_bytes"`
}

// ShareStats describes a resource that connections share by number.
type ShareStats struct {
	Name  string `msgpack:"name" json:"name"`
	Used  int64  `msgpack:"used" json:"used"`
	Limit int64  `msgpack:"limit" json:"limit"`
	// Times that a request was refused because its client had too many.
	Refused int64  `msgpack:"refused" json:"refused"`
	Most    string `msgpack:"most" json:"most"` // the client that uses most
	MostBy  int64  `msgpack:"most_by" json:"most_by"`
}

// L2Stats describes the store of the partitions that this host owns.
type L2Stats struct {
	Entries  int64    `msgpack:"entries" json:"entries"`
	Overhead float64  `msgpack:"overhead_bytes_per_entry" json:"overhead_bytes_per_entry"`
	Memory   L2Memory `msgpack:"memory" json:"memory"`
	// Entries, like the next five.
	Expired      int64 `msgpack:"expired" json:"expired"`
	Evicted      int64 `msgpack:"evicted" json:"evicted"`
	Flushed      int64 `msgpack:"flushed" json:"flushed"`
	QuotaEvicted int64 `msgpack:"quota_evicted" json:"quota_evicted"`
	Overwritten  int64 `msgpack:"overwritten" json:"overwritten"`
	Deleted      int64 `msgpack:"deleted" json:"deleted"`
	NoRoom       int64 `msgpack:"no_room" json:"no_room"` // writes refused
	Segments     int64 `msgpack:"segments" json:"segments"`
	FreeSegments int64 `msgpack:"free_segments" json:"free_segments"`
	Compactions  int64 `msgpack:"compactions" json:"compactions"`
	Promoted     int64 `msgpack:"promoted" json:"promoted"`
	GhostHits    int64 `msgpack:"ghost_hits" json:"ghost_hits"`
	Shards       int64 `msgpack:"shards" json:"shards"`

	// Of the evicted entries: replaced by a key with the same hash.
	Collided int64 `msgpack:"collided" json:"collided"`
	// Of the evicted entries: replaced in a full page of the index.
	CrowdedOut int64 `msgpack:"crowded_out" json:"crowded_out"`
	// Keys that came to a full page whose split was refused.
	SplitsRefused int64 `msgpack:"splits_refused" json:"splits_refused"`
}

// L2Memory divides the memory of the store by use. All fields except Limit add up to
// Used.
type L2Memory struct {
	Limit     int64 `msgpack:"limit" json:"limit"`
	Used      int64 `msgpack:"used" json:"used"`
	Payload   int64 `msgpack:"payload" json:"payload"` // keys and values
	Headers   int64 `msgpack:"headers" json:"headers"`
	Alignment int64 `msgpack:"alignment" json:"alignment"`
	Dead      int64 `msgpack:"dead" json:"dead"` // overwritten or expired, not yet reused
	// Not yet written, in segments being filled.
	Open   int64 `msgpack:"open" json:"open"`
	Tails  int64 `msgpack:"tails" json:"tails"`
	Index  int64 `msgpack:"index" json:"index"`
	Ghosts int64 `msgpack:"ghosts" json:"ghosts"`
	Quotas int64 `msgpack:"quotas" json:"quotas"`
}

// NamespaceStats describes one namespace.
type NamespaceStats struct {
	Name    string `msgpack:"name" json:"name"`
	Entries int64  `msgpack:"entries" json:"entries"`
	Bytes   int64  `msgpack:"bytes" json:"bytes"`
	Quota   int64  `msgpack:"quota" json:"quota"` // bytes; zero: none
	Hits    int64  `msgpack:"hits" json:"hits"`
	Misses  int64  `msgpack:"misses" json:"misses"`
	Writes  int64  `msgpack:"writes" json:"writes"` // stored
	Deletes int64  `msgpack:"deletes" json:"deletes"`
	// Writes whose condition was not met.
	Refused int64 `msgpack:"refused" json:"refused"`
	Errors  int64 `msgpack:"errors" json:"errors"`
	Stale   int64 `msgpack:"stale" json:"stale"` // reads answered with a stale value

	Loads   LoadStats    `msgpack:"loads" json:"loads"`
	Known   KnownStats   `msgpack:"known" json:"known"`
	Through ThroughStats `msgpack:"write_through" json:"write_through"`
	Warm    WarmStats    `msgpack:"warm_on_start" json:"warm_on_start"`
}

// WarmStats describes the keys of a namespace that this host loads at its start.
type WarmStats struct {
	// Waiting, running, done or failed; "": nothing to load.
	State  string `msgpack:"state" json:"state"`
	Loaded int64  `msgpack:"loaded" json:"loaded"`
	Absent int64  `msgpack:"absent" json:"absent"`
	Failed int64  `msgpack:"failed" json:"failed"` // failed loads
}

// KnownStats describes a namespace's key filter on this host.
type KnownStats struct {
	InUse bool  `msgpack:"in_use" json:"in_use"`
	Keys  int64 `msgpack:"keys" json:"keys"` // in the filter, approximately
	// Since the query of the filter began.
	AgeMS    int64 `msgpack:"age_ms" json:"age_ms"`
	Building bool  `msgpack:"building" json:"building"` // a query is under way
	// Duration of the last query that completed.
	TookMS   int64  `msgpack:"took_ms" json:"took_ms"`
	Builds   int64  `msgpack:"builds" json:"builds"`
	Failures int64  `msgpack:"failures" json:"failures"` // failed builds
	Error    string `msgpack:"error" json:"error"`       // of the last build; "": none
	// Reads of keys that do not exist.
	Denied int64 `msgpack:"denied" json:"denied"`
	// Reads that the filter let pass to the origin.
	Passed int64 `msgpack:"passed" json:"passed"`
	// Reads that passed because no filter was usable.
	Blind int64 `msgpack:"blind" json:"blind"`
}

// ThroughStats describes write-through from this host to a namespace's origin.
type ThroughStats struct {
	UnderWay int64 `msgpack:"under_way" json:"under_way"` // now
	Waiting  int64 `msgpack:"waiting" json:"waiting"`     // for a free place, now
	Stored   int64 `msgpack:"stored" json:"stored"`       // stored or deleted
	// Refused by the origin, which has changed nothing.
	Refused int64 `msgpack:"refused" json:"refused"`
	// Outcome unknown: the origin may have applied the write.
	Unknown int64 `msgpack:"unknown" json:"unknown"`
	Shed    int64 `msgpack:"shed" json:"shed"` // no turn or free place in time

	// Writes that ended after their key had moved to another host, now. That host has
	// not yet confirmed that it dropped what it may have loaded before the write.
	Unsettled int64 `msgpack:"unsettled" json:"unsettled"`
}

// LoadStats describes the loads of this host from a namespace's origin.
type LoadStats struct {
	Origin   string `msgpack:"origin" json:"origin"`       // kind of the origin; "": none
	UnderWay int64  `msgpack:"under_way" json:"under_way"` // now
	Waiting  int64  `msgpack:"waiting" json:"waiting"`     // reads, now
	Loads    int64  `msgpack:"loads" json:"loads"`
	// Reads that shared the load of another read.
	Collapsed int64 `msgpack:"collapsed" json:"collapsed"`
	// Loads of keys that the origin does not have.
	Absent int64 `msgpack:"absent" json:"absent"`
	Failed int64 `msgpack:"failed" json:"failed"`
	// Loads whose key changed during the load.
	Detached int64 `msgpack:"detached" json:"detached"`
	// Reads of keys without an owner: loaded here, not kept.
	Aside   int64  `msgpack:"aside" json:"aside"`
	Shed    int64  `msgpack:"shed" json:"shed"`   // refused to protect the origin
	Calls   int64  `msgpack:"calls" json:"calls"` // calls of the origin, retries included
	Retries int64  `msgpack:"retries" json:"retries"`
	Breaker string `msgpack:"breaker" json:"breaker"` // closed, open or half-open
	// Recent mean duration of a load, microseconds.
	MeanUS int64 `msgpack:"mean_us" json:"mean_us"`
}

// TokenStats describes the lease tokens of apps that load values themselves.
type TokenStats struct {
	Out     int64 `msgpack:"out" json:"out"`         // now
	Waiting int64 `msgpack:"waiting" json:"waiting"` // claims that wait for a fill, now
	Issued  int64 `msgpack:"issued" json:"issued"`
	// Of the issued tokens: given to a waiting claim.
	HandedOver int64 `msgpack:"handed_over" json:"handed_over"`
	Expired    int64 `msgpack:"expired" json:"expired"`
	Abandoned  int64 `msgpack:"abandoned" json:"abandoned"`
	Filled     int64 `msgpack:"filled" json:"filled"`
	NotStored  int64 `msgpack:"not_stored" json:"not_stored"` // refused fills
	Collapsed  int64 `msgpack:"collapsed" json:"collapsed"`   // claims that waited
	// Claims refused because of a limit.
	Shed int64 `msgpack:"shed" json:"shed"`
}

// ProcessStats describes the process of the sidecar.
type ProcessStats struct {
	PID           int64 `msgpack:"pid" json:"pid"`
	ResidentBytes int64 `msgpack:"resident_bytes" json:"resident_bytes"`
	HeapBytes     int64 `msgpack:"heap_bytes" json:"heap_bytes"`
	Goroutines    int64 `msgpack:"goroutines" json:"goroutines"`
	GCRuns        int64 `msgpack:"gc_runs" json:"gc_runs"`
	// Of all CPU time used, 0 to 1.
	GCCPUShare   float64 `msgpack:"gc_cpu_share" json:"gc_cpu_share"`
	GCPauseMaxUS int64   `msgpack:"gc_pause_max_us" json:"gc_pause_max_us"`
	// Of the machine or its cgroup; zero: unknown.
	MemoryLimit int64 `msgpack:"memory_limit" json:"memory_limit"`
}
