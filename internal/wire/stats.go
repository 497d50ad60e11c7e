package wire

// Stats is the body of an answer to STATS. Bytes and milliseconds; counts are
// since the sidecar's start.
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
	Overdue     int64            `msgpack:"overdue_writes" json:"overdue_writes"` // refused here: their callers had given them up
	Process     ProcessStats     `msgpack:"process" json:"process"`
}

// ClusterStats is the body of an answer to STATS of the cluster.
type ClusterStats struct {
	Nodes   []Stats        `msgpack:"nodes" json:"nodes"`
	Missing []MissingStats `msgpack:"missing" json:"missing"` // hosts that did not answer
}

// MissingStats says why there are none of a host.
type MissingStats struct {
	Node string `msgpack:"node" json:"node"`
	Why  string `msgpack:"why" json:"why"`
}

// L1Stats tells of copies of other hosts' entries.
type L1Stats struct {
	Entries int64 `msgpack:"entries" json:"entries"`
	Used    int64 `msgpack:"used" json:"used"`
	Limit   int64 `msgpack:"limit" json:"limit"`
	Hits    int64 `msgpack:"hits" json:"hits"` // copies found, served or not
	Misses  int64 `msgpack:"misses" json:"misses"`
	Refused int64 `msgpack:"refused" json:"refused"` // found, and outdated
}

// ClusterState tells of this host's part in the cluster; counts are of
// partitions where nothing else is said.
type ClusterState struct {
	Join         int   `msgpack:"join" json:"join"`       // addresses that it looks for others at
	Members      int   `msgpack:"members" json:"members"` // that live, this one included
	In           bool  `msgpack:"in" json:"in"`           // this one may own partitions
	Owned         int   `msgpack:"held" json:"held"`
	Begun        int64 `msgpack:"begun" json:"begun"`
	Ended        int64 `msgpack:"ended" json:"ended"`
	Retired      int64 `msgpack:"retired" json:"retired"`
	Pauses       int64 `msgpack:"pauses" json:"pauses"`               // times that it did not run for so long that it gave up what it held
	StoppedMS    int64 `msgpack:"stopped_ms" json:"stopped_ms"`       // in which it did not run, in gaps above a sixteenth of the bound
	Polls        int64 `msgpack:"polls" json:"polls"`                 // sent
	PollFailures int64 `msgpack:"poll_failures" json:"poll_failures"` // not answered
	Refused      int64 `msgpack:"refused" json:"refused"`             // greetings, of and by others
	Conflicts    int64 `msgpack:"conflicts" json:"conflicts"`         // two processes of one name
	PeerReads    int64 `msgpack:"peer_reads" json:"peer_reads"`       // keys that owners were asked for
	Joined       int64 `msgpack:"joined" json:"joined"`               // reads that shared another's
	PeerErrors   int64 `msgpack:"peer_errors" json:"peer_errors"`     // requests to owners that failed
	Served       int64 `msgpack:"served" json:"served"`               // keys that others asked for here

	Links         LinkStats         `msgpack:"links" json:"links"`
	Handoff       HandoffStats      `msgpack:"handoff" json:"handoff"`
	Invalidations InvalidationStats `msgpack:"invalidations" json:"invalidations"`
}

// LinkStats tells of connections from other hosts, and from strangers on their port.
type LinkStats struct {
	Open       int64 `msgpack:"open" json:"open"`
	Ungreeted  int64 `msgpack:"ungreeted" json:"ungreeted"` // now, of all
	Accepted   int64 `msgpack:"accepted" json:"accepted"`
	Rejected   int64 `msgpack:"rejected" json:"rejected"`                     // over the limit of connections
	Shed       int64 `msgpack:"shed" json:"shed"`                             // too many came, or were not greeted
	Late       int64 `msgpack:"late" json:"late"`                             // not greeted in time
	Handshakes int64 `msgpack:"handshakes" json:"handshakes"`                 // of TLS, done
	Failed     int64 `msgpack:"handshake_failures" json:"handshake_failures"` // of TLS
	BadFrames  int64 `msgpack:"bad_frames" json:"bad_frames"`                 // closed: a frame too long, or empty
}

// InvalidationStats tells of what keeps copies from being outdated. Counts are
// of events, where nothing else is said.
type InvalidationStats struct {
	Head       int64        `msgpack:"head" json:"head"`             // of this host's log
	Applied    int64        `msgpack:"applied" json:"applied"`       // of others' logs
	Gaps       int64        `msgpack:"gaps" json:"gaps"`             // answers that did not follow on the last
	Resets     int64        `msgpack:"resets" json:"resets"`         // times that a log had lost what came next
	Relayed    int64        `msgpack:"relayed" json:"relayed"`       // told by gossip too
	Unrelayed  int64        `msgpack:"unrelayed" json:"unrelayed"`   // for which gossip had no room
	Heard      int64        `msgpack:"heard" json:"heard"`           // by gossip
	Noted      int64        `msgpack:"noted" json:"noted"`           // in the ledger
	Collisions int64        `msgpack:"collisions" json:"collisions"` // that outdated other keys' copies too
	Strays     int64        `msgpack:"strays" json:"strays"`         // entries and partitions dropped after a split
	LagUS      int64        `msgpack:"lag_us" json:"lag_us"`         // how long the first of the last batch had waited
	Leases     []LeaseStats `msgpack:"leases" json:"leases"`         // by node
}

// LeaseStats is of the lease on one other host.
type LeaseStats struct {
	Node  string `msgpack:"node" json:"node"`
	AgeMS int64  `msgpack:"age_ms" json:"age_ms"` // everything from before that has been applied; -1 is no lease
}

// HandoffStats counts entries that move after their partitions.
type HandoffStats struct {
	Pulling  int64 `msgpack:"pulling" json:"pulling"`   // handoffs under way to here
	Offering int   `msgpack:"offering" json:"offering"` // and from here
	Pulled   int64 `msgpack:"pulled" json:"pulled"`
	Admitted int64 `msgpack:"admitted" json:"admitted"`
	Refused  int64 `msgpack:"refused" json:"refused"` // outdated, or there already
	Fetched  int64 `msgpack:"fetched" json:"fetched"` // asked for before their turn
	Given    int64 `msgpack:"given" json:"given"`
	Bytes    int64 `msgpack:"bytes" json:"bytes"` // pulled
	Failed   int64 `msgpack:"failed" json:"failed"`
}

// ConnectionStats counts what happened on the socket.
type ConnectionStats struct {
	Open        int64 `msgpack:"open" json:"open"`
	Waiting     int64 `msgpack:"waiting" json:"waiting"` // of those, for their turn to begin
	Limit       int64 `msgpack:"limit" json:"limit"`
	Accepted    int64 `msgpack:"accepted" json:"accepted"`
	Rejected    int64 `msgpack:"rejected" json:"rejected"`         // over the limit
	SlowReaders int64 `msgpack:"slow_readers" json:"slow_readers"` // closed: took no answers
	SlowFrames  int64 `msgpack:"slow_frames" json:"slow_frames"`   // closed: did not complete a frame
	BadFrames   int64 `msgpack:"bad_frames" json:"bad_frames"`     // closed: a frame too long, or empty
	InFlight    int64 `msgpack:"in_flight" json:"in_flight"`       // requests that wait
	Batches     int64 `msgpack:"batches" json:"batches"`           // reads that brought requests
	BytesIn     int64 `msgpack:"bytes_in" json:"bytes_in"`
	BytesOut    int64 `msgpack:"bytes_out" json:"bytes_out"`
	BufferBytes int64 `msgpack:"buffer_bytes" json:"buffer_bytes"` // of requests and answers under way, other hosts' too

	OverBudget int64       `msgpack:"over_budget" json:"over_budget"` // closed: held more than their share and took no answers
	Dropped    int64       `msgpack:"dropped" json:"dropped"`         // requests answered BUSY for want of memory before they had come
	Buffers    BufferStats `msgpack:"buffers" json:"buffers"`
}

// BufferStats tells of the memory of what is under way, in bytes by use.
type BufferStats struct {
	Limit    int64  `msgpack:"limit" json:"limit"`
	Frames   int64  `msgpack:"frames" json:"frames"`     // requests that have begun and are not complete, or are long
	Requests int64  `msgpack:"requests" json:"requests"` // that wait
	Answers  int64  `msgpack:"answers" json:"answers"`   // that nobody has read yet
	Peers    int64  `msgpack:"peers" json:"peers"`       // answers of other hosts
	Refused  int64  `msgpack:"refused" json:"refused"`   // times that somebody got none
	Taken    int64  `msgpack:"taken" json:"taken"`       // connections that had to give what they held
	Owners   int64  `msgpack:"owners" json:"owners"`     // users and hosts that hold some
	Most     string `msgpack:"most" json:"most"`         // who holds most
	MostBy   int64  `msgpack:"most_bytes" json:"most_bytes"`
}

// ShareStats tells of what connections share by number.
type ShareStats struct {
	Name    string `msgpack:"name" json:"name"`
	Used    int64  `msgpack:"used" json:"used"`
	Limit   int64  `msgpack:"limit" json:"limit"`
	Refused int64  `msgpack:"refused" json:"refused"` // times that somebody had too many
	Most    string `msgpack:"most" json:"most"`       // who holds most
	MostBy  int64  `msgpack:"most_by" json:"most_by"`
}

// L2Stats tells of the store of this host's partitions.
type L2Stats struct {
	Entries      int64    `msgpack:"entries" json:"entries"`
	Overhead     float64  `msgpack:"overhead_bytes_per_entry" json:"overhead_bytes_per_entry"`
	Memory       L2Memory `msgpack:"memory" json:"memory"`
	Expired      int64    `msgpack:"expired" json:"expired"` // entries, as the next five
	Evicted      int64    `msgpack:"evicted" json:"evicted"`
	Flushed      int64    `msgpack:"flushed" json:"flushed"`
	QuotaEvicted int64    `msgpack:"quota_evicted" json:"quota_evicted"`
	Overwritten  int64    `msgpack:"overwritten" json:"overwritten"`
	Deleted      int64    `msgpack:"deleted" json:"deleted"`
	NoRoom       int64    `msgpack:"no_room" json:"no_room"` // writes refused
	Segments     int64    `msgpack:"segments" json:"segments"`
	FreeSegments int64    `msgpack:"free_segments" json:"free_segments"`
	Compactions  int64    `msgpack:"compactions" json:"compactions"`
	Promoted     int64    `msgpack:"promoted" json:"promoted"`
	GhostHits    int64    `msgpack:"ghost_hits" json:"ghost_hits"`
	Shards       int64    `msgpack:"shards" json:"shards"`

	Collided      int64 `msgpack:"collided" json:"collided"`             // of those evicted: replaced by a key of the same hash
	CrowdedOut    int64 `msgpack:"crowded_out" json:"crowded_out"`       // and by one in a full page of the index
	SplitsRefused int64 `msgpack:"splits_refused" json:"splits_refused"` // keys that came to a page that was due to split, and could not
}

// L2Memory says where the store's bytes are; all but the limit add up to Used.
type L2Memory struct {
	Limit     int64 `msgpack:"limit" json:"limit"`
	Used      int64 `msgpack:"used" json:"used"`
	Payload   int64 `msgpack:"payload" json:"payload"` // keys and values
	Headers   int64 `msgpack:"headers" json:"headers"`
	Alignment int64 `msgpack:"alignment" json:"alignment"`
	Dead      int64 `msgpack:"dead" json:"dead"` // overwritten or expired, not yet reused
	Open      int64 `msgpack:"open" json:"open"` // not yet written, of segments being filled
	Tails     int64 `msgpack:"tails" json:"tails"`
	Index     int64 `msgpack:"index" json:"index"`
	Ghosts    int64 `msgpack:"ghosts" json:"ghosts"`
	Quotas    int64 `msgpack:"quotas" json:"quotas"`
}

// NamespaceStats tells of one namespace.
type NamespaceStats struct {
	Name    string `msgpack:"name" json:"name"`
	Entries int64  `msgpack:"entries" json:"entries"`
	Bytes   int64  `msgpack:"bytes" json:"bytes"`
	Quota   int64  `msgpack:"quota" json:"quota"` // bytes; zero is none
	Hits    int64  `msgpack:"hits" json:"hits"`
	Misses  int64  `msgpack:"misses" json:"misses"`
	Writes  int64  `msgpack:"writes" json:"writes"` // stored
	Deletes int64  `msgpack:"deletes" json:"deletes"`
	Refused int64  `msgpack:"refused" json:"refused"` // conditions not met
	Errors  int64  `msgpack:"errors" json:"errors"`
	Stale   int64  `msgpack:"stale" json:"stale"` // reads that got a stale value

	Loads   LoadStats    `msgpack:"loads" json:"loads"`
	Known   KnownStats   `msgpack:"known" json:"known"`
	Through ThroughStats `msgpack:"write_through" json:"write_through"`
	Warm    WarmStats    `msgpack:"warm_on_start" json:"warm_on_start"`
}

// WarmStats tells of the keys of a namespace that this host has loaded at its start.
type WarmStats struct {
	State  string `msgpack:"state" json:"state"` // waiting, running, done or failed; "" is nothing to be loaded
	Loaded int64  `msgpack:"loaded" json:"loaded"`
	Absent int64  `msgpack:"absent" json:"absent"`
	Failed int64  `msgpack:"failed" json:"failed"` // loads
}

// KnownStats tells of a namespace's filter of existing keys on this host.
type KnownStats struct {
	InUse    bool   `msgpack:"in_use" json:"in_use"`
	Keys     int64  `msgpack:"keys" json:"keys"`         // in it, about
	AgeMS    int64  `msgpack:"age_ms" json:"age_ms"`     // since its query began
	Building bool   `msgpack:"building" json:"building"` // a query is under way
	TookMS   int64  `msgpack:"took_ms" json:"took_ms"`   // the last query that was done
	Builds   int64  `msgpack:"builds" json:"builds"`
	Failures int64  `msgpack:"failures" json:"failures"` // of builds
	Error    string `msgpack:"error" json:"error"`       // of the last build; "" is none
	Denied   int64  `msgpack:"denied" json:"denied"`     // reads of keys that there are not
	Passed   int64  `msgpack:"passed" json:"passed"`     // reads that the filter let through to the origin
	Blind    int64  `msgpack:"blind" json:"blind"`       // the same where no filter counted
}

// ThroughStats tells of what this host has written to a namespace's origin.
type ThroughStats struct {
	UnderWay int64 `msgpack:"under_way" json:"under_way"` // now
	Waiting  int64 `msgpack:"waiting" json:"waiting"`     // for a place, now
	Stored   int64 `msgpack:"stored" json:"stored"`       // or deleted
	Refused  int64 `msgpack:"refused" json:"refused"`     // by the origin, which has changed nothing
	Unknown  int64 `msgpack:"unknown" json:"unknown"`     // the origin may have done it
	Shed     int64 `msgpack:"shed" json:"shed"`           // had no turn or place in time

	// Ended after their key had gone to another host, which has not acknowledged
	// yet that it has dropped what it may have loaded before; now.
	Unsettled int64 `msgpack:"unsettled" json:"unsettled"`
}

// LoadStats tells of loads from a namespace's origin by this host.
type LoadStats struct {
	Origin    string `msgpack:"origin" json:"origin"`       // its kind; "" is none
	UnderWay  int64  `msgpack:"under_way" json:"under_way"` // now
	Waiting   int64  `msgpack:"waiting" json:"waiting"`     // reads, now
	Loads     int64  `msgpack:"loads" json:"loads"`
	Collapsed int64  `msgpack:"collapsed" json:"collapsed"` // reads that shared another's load
	Absent    int64  `msgpack:"absent" json:"absent"`       // loads that found none
	Failed    int64  `msgpack:"failed" json:"failed"`
	Detached  int64  `msgpack:"detached" json:"detached"` // loads whose key changed meanwhile
	Aside     int64  `msgpack:"aside" json:"aside"`       // reads without a holder: loaded here, and not kept
	Shed      int64  `msgpack:"shed" json:"shed"`         // refused to spare the origin
	Calls     int64  `msgpack:"calls" json:"calls"`       // of the origin, retries included
	Retries   int64  `msgpack:"retries" json:"retries"`
	Breaker   string `msgpack:"breaker" json:"breaker"` // closed, open or half-open
	MeanUS    int64  `msgpack:"mean_us" json:"mean_us"` // a load's time of late
}

// TokenStats tells of the tokens of apps that load themselves.
type TokenStats struct {
	Out        int64 `msgpack:"out" json:"out"`         // now
	Waiting    int64 `msgpack:"waiting" json:"waiting"` // for others' fills, now
	Issued     int64 `msgpack:"issued" json:"issued"`
	HandedOver int64 `msgpack:"handed_over" json:"handed_over"` // of those, to who waited
	Expired    int64 `msgpack:"expired" json:"expired"`
	Abandoned  int64 `msgpack:"abandoned" json:"abandoned"`
	Filled     int64 `msgpack:"filled" json:"filled"`
	NotStored  int64 `msgpack:"not_stored" json:"not_stored"` // fills refused
	Collapsed  int64 `msgpack:"collapsed" json:"collapsed"`   // claims that waited
	Shed       int64 `msgpack:"shed" json:"shed"`             // claims refused because of a bound
}

// ProcessStats tells of the sidecar's process.
type ProcessStats struct {
	PID           int64   `msgpack:"pid" json:"pid"`
	ResidentBytes int64   `msgpack:"resident_bytes" json:"resident_bytes"`
	HeapBytes     int64   `msgpack:"heap_bytes" json:"heap_bytes"`
	Goroutines    int64   `msgpack:"goroutines" json:"goroutines"`
	GCRuns        int64   `msgpack:"gc_runs" json:"gc_runs"`
	GCCPUShare    float64 `msgpack:"gc_cpu_share" json:"gc_cpu_share"` // of all CPU time used, 0 to 1
	GCPauseMaxUS  int64   `msgpack:"gc_pause_max_us" json:"gc_pause_max_us"`
	MemoryLimit   int64   `msgpack:"memory_limit" json:"memory_limit"` // of the machine or its cgroup; zero is unknown
}
