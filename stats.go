package cachesidecar

// Stats is the body of an answer to STATS. Sizes are in bytes, times in milliseconds;
// counts begin with the start of the sidecar.
//
// Each counter of the project is one field of this struct, or of one of its parts. Tags
// say where else it appears:
//
//	metric:"name{label=value},omitempty"  the series in /metrics, without its prefix. A star
//	                                      stands for the keys of a map. A time is in
//	                                      seconds there. omitempty leaves out zero.
//	label:"name"                          the field is a label of all series of its struct
//	if:"Field", if:"!Field"               the part has series only if its field is set, or
//	                                      is not set
//	sum:"-"                               totals leave the field out
//
// The help texts of the metrics are in internal/telemetry.
type Stats struct {
	// Name of the sidecar.
	Node string `json:"node"`
	// Version of the sidecar.
	Server string `json:"server"`
	// Why this host is not ready, in the words of /readyz; "": it is ready.
	NotReady string `json:"not_ready"`
	// Time since the start of the sidecar.
	UptimeMS    int64            `json:"uptime_ms" sum:"-"`
	Connections ConnectionStats  `json:"connections"`
	L1          L1Stats          `json:"l1" if:"Limit"`
	L2          L2Stats          `json:"l2"`
	Memory      MemoryStats      `json:"shared_memory" if:"Limit"`
	Cluster     ClusterState     `json:"cluster" if:"!Alone"`
	Namespaces  []NamespaceStats `json:"namespaces"`
	LeaseTokens TokenStats       `json:"leases"`
	Shares      []ShareStats     `json:"shares"`
	// Writes refused because their callers had given up.
	Overdue int64        `json:"overdue_writes" metric:"overdue_writes_total"`
	Process ProcessStats `json:"process" sum:"-"`

	// Hosts by state, as this host sees them, this one included: "in", "out", "drained",
	// "missing", "left", "refused" or "unknown".
	Members map[string]int64 `json:"members" metric:"members{state=*}"`
	HTTP    HTTPStats        `json:"http" if:"Limit"`
	// The endpoint for memcached's protocol.
	Memcached MemcachedStats `json:"memcached" if:"Limit"`
	// The feeds of changes.
	Changes []ChangesStats `json:"changes"`
	Log     LogStats       `json:"log" if:"Bounded"`
}

// L1Stats describes the copies of entries that other hosts own.
type L1Stats struct {
	// Copies.
	Entries int64 `json:"entries" metric:"entries{tier=l1}"`
	// Memory of the copies.
	Used int64 `json:"used" metric:"memory_bytes{tier=l1}"`
	// The most that may be used; zero if this host is alone.
	Limit int64 `json:"limit" metric:"memory_limit_bytes{tier=l1}"`
	// Lookups that found a copy, whether it was served or not.
	Hits int64 `json:"hits" metric:"copies_total{result=found}"`
	// Lookups that found no copy.
	Misses int64 `json:"misses" metric:"copies_total{result=absent}"`
	// Copies found, but outdated.
	Refused int64 `json:"refused" metric:"copies_total{result=outdated}"`
}

// MemoryStats describes the memory from which apps on this host read without asking.
type MemoryStats struct {
	// The size of all regions; zero if there is none.
	Limit int64 `json:"limit" metric:"memory_limit_bytes{tier=shared}"`
	// Values put there.
	Published int64 `json:"published" metric:"shared_memory_values_total{event=published}"`
	// Values taken away, since their keys changed.
	Withdrawn int64 `json:"withdrawn" metric:"shared_memory_values_total{event=withdrawn}"`
	// Values outdated when they were about to be put there.
	Outdated int64 `json:"outdated" metric:"shared_memory_values_total{event=outdated}"`
	// Values not put there, since another one was at that moment.
	Busy int64 `json:"busy" metric:"shared_memory_values_total{event=busy}"`
	// Reads that apps have answered from the shared memory, as they report.
	Hits int64 `json:"hits" metric:"shared_memory_hits_total"`
}

// ConnectionStats counts events on the client socket.
type ConnectionStats struct {
	// Open connections.
	Open int64 `json:"open" metric:"connections"`
	// Open connections that wait for their turn to begin.
	Waiting int64 `json:"waiting" metric:"connections_waiting"`
	// The most that may be open.
	Limit int64 `json:"limit" metric:"connections_limit"`
	// Connections accepted.
	Accepted int64 `json:"accepted" metric:"connections_total{event=accepted}"`
	// Closed at once: above the limit.
	Rejected int64 `json:"rejected" metric:"connections_total{event=rejected}"`
	// Closed: did not read their answers.
	SlowReaders int64 `json:"slow_readers" metric:"connections_total{event=slow_reader}"`
	// Closed: did not complete a frame.
	SlowFrames int64 `json:"slow_frames" metric:"connections_total{event=slow_frame}"`
	// Closed: a frame that is too long, or empty.
	BadFrames int64 `json:"bad_frames" metric:"connections_total{event=bad_frame}"`
	// Requests that wait for an answer from elsewhere.
	InFlight int64 `json:"in_flight" metric:"requests_in_flight"`
	// Requests that cannot be answered in place, and wait for their turn to begin.
	Queued int64 `json:"queued" metric:"requests_queued"`
	// Reads that returned requests.
	Batches int64 `json:"batches"`
	// Bytes read.
	BytesIn int64 `json:"bytes_in" metric:"socket_bytes_total{direction=in}"`
	// Bytes written.
	BytesOut int64 `json:"bytes_out" metric:"socket_bytes_total{direction=out}"`
	// Memory of pending requests and answers.
	BufferBytes int64 `json:"buffer_bytes" metric:"memory_bytes{tier=buffers}"`

	// Closed: above their share of memory, with unread answers.
	OverBudget int64 `json:"over_budget" metric:"connections_total{event=over_budget}"`
	// Requests answered BUSY unread, for lack of memory.
	Dropped int64       `json:"dropped" metric:"frames_dropped_total"`
	Buffers BufferStats `json:"buffers"`

	// Requests refused, by the missing right, "read", "write" or "admin"; "token": HELLOs with an unknown one.
	Denied map[string]int64 `json:"unauthorized" metric:"requests_unauthorized_total{right=*}"`
	// Times that the socket's file was gone and was made again.
	Remade int64 `json:"socket_remade" metric:"socket_remade_total"`
}

// BufferStats describes the memory of pending requests and answers, in bytes by use.
type BufferStats struct {
	// Limit of all uses together.
	Limit int64 `json:"limit" metric:"memory_limit_bytes{tier=buffers}"`
	// Requests that are incomplete, or long.
	Frames int64 `json:"frames" metric:"buffer_bytes{use=frames}"`
	// Requests that wait.
	Requests int64 `json:"requests" metric:"buffer_bytes{use=requests}"`
	// Answers that the client has not read yet.
	Answers int64 `json:"answers" metric:"buffer_bytes{use=answers}"`
	// Answers of other hosts and of origins.
	Peers int64 `json:"peers" metric:"buffer_bytes{use=peers}"`
	// Room for answers in the kernel's buffers.
	Sockets int64 `json:"sockets" metric:"buffer_bytes{use=sockets}"`
	// Times that memory was refused.
	Refused int64 `json:"refused"`
	// Times that memory was refused, by use: "frames", "requests", "answers" or "peers".
	RefusedFor map[string]int64 `json:"refused_for" metric:"buffers_refused_total{use=*}"`
	// Times that a connection had to give memory to others.
	Taken int64 `json:"taken" metric:"buffers_taken_total"`
	// Users and hosts that use memory.
	Tenants int64 `json:"tenants"`
	// The user or host that uses most.
	Most string `json:"most"`
	// What that user or host uses.
	MostBy int64 `json:"most_bytes"`
}

// Total returns the memory of all uses.
func (b BufferStats) Total() int64 { return b.Frames + b.Requests + b.Answers + b.Peers + b.Sockets }

// ShareStats describes a resource that connections share by number.
type ShareStats struct {
	// Name of the resource.
	Name string `json:"name" label:"resource"`
	// Places in use: "connections", "waiting" (requests, LEASEs), "lease_tokens", "watches", "descriptors",
	// "flushes" or "namespaces".
	Used int64 `json:"used" metric:"shared_places"`
	// The most that may be used.
	Limit int64 `json:"limit" metric:"shared_places_limit"`
	// Times that a request was refused because its client had too many.
	Refused int64 `json:"refused" metric:"shared_places_refused_total"`
	// The client that uses most.
	Most string `json:"most"`
	// What that client uses.
	MostBy int64 `json:"most_by"`
}

// TokenStats describes the lease tokens of apps that load values themselves.
type TokenStats struct {
	// Tokens that apps have, now.
	Out int64 `json:"out" metric:"lease_tokens{state=out}"`
	// Claims that wait for a fill, now.
	Waiting int64 `json:"waiting" metric:"lease_tokens{state=waiting}"`
	// Tokens issued.
	Issued int64 `json:"issued" metric:"lease_tokens_total{event=issued}"`
	// Of the issued tokens: given to a waiting claim.
	HandedOver int64 `json:"handed_over" metric:"lease_tokens_total{event=handed_over}"`
	// Tokens whose app took too long.
	Expired int64 `json:"expired" metric:"lease_tokens_total{event=expired}"`
	// Tokens that apps gave back.
	Abandoned int64 `json:"abandoned" metric:"lease_tokens_total{event=abandoned}"`
	// Fills stored.
	Filled int64 `json:"filled" metric:"lease_tokens_total{event=filled}"`
	// Fills refused.
	NotStored int64 `json:"not_stored" metric:"lease_tokens_total{event=not_stored}"`
	// Claims that waited for the fill of another claim.
	Collapsed int64 `json:"collapsed"`
	// Claims refused because of a limit.
	Shed int64 `json:"shed" metric:"lease_tokens_total{event=shed}"`
}

// L2Stats describes the store of the partitions that this host owns.
type L2Stats struct {
	// Entries, also expired ones that are not yet removed.
	Entries int64 `json:"entries" metric:"entries{tier=l2}"`
	// Memory beyond keys and values, for each entry.
	Overhead float64  `json:"overhead_bytes_per_entry" sum:"-"`
	Memory   L2Memory `json:"memory"`
	L2Counts
	// Segments in use.
	Segments int64 `json:"segments"`
	// Free segments.
	FreeSegments int64 `json:"free_segments"`
	// Shards of the store.
	Shards int64 `json:"shards"`
	// Share of the memory that is for new entries, as eviction has learnt it.
	Admission ShardShares `json:"admission_share" sum:"-"`

	// Of the evicted entries: for room.
	EvictedForRoom int64 `json:"evicted_for_room" metric:"evictions_total{tier=l2,reason=capacity}"`
	// Keys that came to a full page whose split was refused.
	SplitsRefused int64 `json:"splits_refused" metric:"index_splits_refused_total"`
	// What this process has taken over from the one before, with keep_memory.
	Kept *KeptStats `json:"kept,omitempty" sum:"-"`
}

// ShardShares are shares that each shard of the store has of its own.
type ShardShares struct {
	// In the shard with the least.
	Least float64 `json:"least" metric:"admission_share{of=least}"`
	// The median of the shards.
	Median float64 `json:"median" metric:"admission_share{of=median}"`
	// In the shard with the most.
	Most float64 `json:"most" metric:"admission_share{of=most}"`
}

// L2Counts counts what has happened in the store.
type L2Counts struct {
	// Entries removed because they had expired.
	Expired int64 `json:"expired" metric:"evictions_total{tier=l2,reason=expired}"`
	// Entries removed for other entries.
	Evicted int64 `json:"evicted"`
	// Entries removed by a flush.
	Flushed int64 `json:"flushed" metric:"evictions_total{tier=l2,reason=flushed}"`
	// Entries removed because this host no longer owned them.
	Moved int64 `json:"moved" metric:"evictions_total{tier=l2,reason=moved}"`
	// Entries removed for a quota.
	QuotaEvicted int64 `json:"quota_evicted" metric:"evictions_total{tier=l2,reason=quota}"`
	// Entries overwritten.
	Overwritten int64 `json:"overwritten"`
	// Entries deleted.
	Deleted int64 `json:"deleted"`
	// Writes refused because there was no room.
	NoRoom int64 `json:"no_room" metric:"no_room_total"`
	// Segments compacted.
	Compactions int64 `json:"compactions"`
	// Entries that moved to the main queue because they were read.
	Promoted int64 `json:"promoted"`
	// New entries whose key had been evicted not long ago.
	GhostHits int64 `json:"ghost_hits"`
	// Of the evicted entries: for a key of the same hash.
	Collided int64 `json:"collided" metric:"evictions_total{tier=l2,reason=one_hash}"`
	// Of the evicted entries: from a full page of the index.
	CrowdedOut int64 `json:"crowded_out" metric:"evictions_total{tier=l2,reason=full_page}"`
}

// KeptStats says what a process has taken over from the one before.
type KeptStats struct {
	// Entries taken over.
	Entries int64 `json:"entries"`
	// How long no process ran.
	DownMS int64 `json:"down_ms"`
	// In a cluster: partitions whose entries were kept, those whose entries are served again, and those of
	// which that is not decided yet; and kept entries whose keys another host has changed meanwhile.
	Partitions int   `json:"partitions,omitempty"`
	Again      int   `json:"again,omitempty"`
	Waiting    int   `json:"waiting,omitempty"`
	Changed    int64 `json:"changed,omitempty"`
	// Why nothing was taken over.
	Cold string `json:"cold,omitempty"`
}

// L2Memory divides the memory of the store by use. All fields except Limit add up to
// Used.
type L2Memory struct {
	// The most that may be used.
	Limit int64 `json:"limit" metric:"memory_limit_bytes{tier=l2}"`
	// Sum of all uses.
	Used int64 `json:"used" metric:"memory_bytes{tier=l2}"`
	// Keys and values.
	Payload int64 `json:"payload"`
	// Headers of entries.
	Headers int64 `json:"headers"`
	// Padding of entries.
	Alignment int64 `json:"alignment"`
	// Entries that were overwritten or have expired.
	Dead int64 `json:"dead"`
	// Parts of open segments that are not yet written.
	Open int64 `json:"open"`
	// Unusable ends of full segments.
	Tails int64 `json:"tails"`
	// Index of the entries.
	Index int64 `json:"index"`
	// Hashes of keys evicted not long ago.
	Ghosts int64 `json:"ghosts"`
	// Queues of namespaces with a quota.
	Quotas int64 `json:"quotas"`
}

// HTTPStats describes the connections to the HTTP port. It is zero without one.
type HTTPStats struct {
	// Open connections.
	Open int64 `json:"open" metric:"http_connections"`
	// The most that may be open.
	Limit int64 `json:"limit" metric:"http_connections_limit"`
	// Connections closed because there were too many.
	Closed int64 `json:"closed" metric:"http_connections_closed_total"`
}

// MemcachedStats describes the endpoint for clients of memcached's protocol. It is zero without
// one.
type MemcachedStats struct {
	// Open connections.
	Open int64 `json:"open" metric:"memcached_connections"`
	// The most that may be open.
	Limit int64 `json:"limit" metric:"memcached_connections_limit"`
	// Connections accepted.
	Accepted int64 `json:"accepted" metric:"memcached_connections_total{event=accepted}"`
	// Closed at once: above the limit.
	Rejected int64 `json:"rejected" metric:"memcached_connections_total{event=rejected}"`
	// Closed: did not read their answers.
	SlowReaders int64 `json:"slow_readers" metric:"memcached_connections_total{event=slow_reader}"`
	// Closed: did not complete a command.
	SlowCommands int64 `json:"slow_commands" metric:"memcached_connections_total{event=slow_frame}"`
	// Closed: a line without an end, or the binary protocol.
	BadCommands int64 `json:"bad_commands" metric:"memcached_connections_total{event=bad_frame}"`
	// Closed: above their share of memory, with unread answers.
	OverBudget int64 `json:"over_budget" metric:"memcached_connections_total{event=over_budget}"`
	// Values not taken, for lack of memory.
	Dropped int64 `json:"dropped" metric:"memcached_values_dropped_total"`
	// Commands that wait.
	InFlight int64 `json:"in_flight" metric:"memcached_commands_in_flight"`
	// Bytes read.
	BytesIn int64 `json:"bytes_in" metric:"memcached_bytes_total{direction=in}"`
	// Bytes written.
	BytesOut int64 `json:"bytes_out" metric:"memcached_bytes_total{direction=out}"`
	// Commands and their outcomes, by the name in memcached's stats, such as "cmd_get" and "get_hits".
	Commands map[string]int64 `json:"commands" metric:"memcached_commands_total{count=*}"`
}

// LogStats counts the lines of the log.
type LogStats struct {
	// The log is bounded and counted. Otherwise the counts are zero.
	Bounded bool `json:"bounded"`
	// Lines written.
	Written int64 `json:"written" metric:"log_lines_total{event=written}"`
	// Lines left out because there were too many.
	LeftOut int64 `json:"left_out" metric:"log_lines_total{event=left_out}"`
	// Lines lost because stderr did not take them.
	Lost int64 `json:"lost" metric:"log_lines_total{event=lost}"`
}

// ProcessStats describes the process of the sidecar.
type ProcessStats struct {
	// Number of the process.
	PID int64 `json:"pid"`
	// Resident memory.
	ResidentBytes int64 `json:"resident_bytes"`
	// Objects in the Go heap.
	HeapBytes int64 `json:"heap_bytes"`
	// Goroutines.
	Goroutines int64 `json:"goroutines"`
	// Garbage collections.
	GCRuns int64 `json:"gc_runs"`
	// Share of garbage collection in the CPU time of the process, 0 to 1.
	GCCPUShare float64 `json:"gc_cpu_share"`
	// The longest pause of a garbage collection.
	GCPauseMaxUS int64 `json:"gc_pause_max_us"`
	// Memory of the machine or its cgroup; zero: unknown.
	MemoryLimit int64 `json:"memory_limit"`
}

// ChangesStats describes a feed of changes on this host.
type ChangesStats struct {
	// Name of the feed.
	Name string `json:"name" label:"feed"`
	// Following, starting, failed (it is tried again) or elsewhere: another host follows the feed.
	State string `json:"state"`
	// This host follows the feed.
	Following bool `json:"following" metric:"changes_following"`
	// Why it has failed, without the server's own words; "": it has not.
	Error string `json:"error"`
	// Time until the keys of the last commit within a minute were deleted, that of the oldest under way, or
	// the time without anything of the server's log: the longest.
	LagMS int64 `json:"lag_ms" metric:"changes_lag_seconds" sum:"-"`
	// The bound of the lag; 0: there is none.
	MaxLagMS int64 `json:"max_lag_ms"`
	// Age of the last certificate; 0: there is none.
	CertifiedMS int64 `json:"certified_ms" metric:"changes_age_seconds" sum:"-"`
	// That is above the bound: no loaded values of the feed's namespaces are served.
	Late bool `json:"late" metric:"changes_late"`
	// Transactions whose keys are not deleted yet, now.
	UnderWay int64 `json:"under_way" metric:"changes_under_way"`
	// Bytes of the log that the server keeps for the feed.
	KeptBytes int64 `json:"kept_bytes" metric:"changes_kept_bytes"`
	// Rows, truncations and messages that came.
	Rows int64 `json:"rows" metric:"changes_rows_total"`
	// Keys that were deleted.
	Deletions int64 `json:"deletions" metric:"changes_deletions_total"`
	// Flushes of namespaces.
	Flushes int64 `json:"flushes" metric:"changes_flushes_total"`
	// Beginnings with a flush, since changes may have been missed.
	Gaps int64 `json:"gaps" metric:"changes_gaps_total"`
	// Why the last one was; "": there was none.
	LastGap string `json:"last_gap"`
	// Times that following ended with an error.
	Failures int64 `json:"failures" metric:"changes_failures_total"`
}
