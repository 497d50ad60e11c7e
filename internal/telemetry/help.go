package telemetry

// MetricPrefix begins the name of every metric of this project.
const MetricPrefix = "cachesidecar_"

// batchHelp is the help text of the histogram of batches.
const batchHelp = "Time in seconds from the read of a batch of requests to the write of its answers. " +
	"One batch in 16 is timed."

// helpOf has the help text of each other metric. The tags of cachesidecar.Stats, and of page,
// say where its values come from.
var helpOf = map[string]string{
	"ready": "1 if this host is ready: /readyz is 200.",
	"requests_total": "Requests, by namespace, op, result and where the value was. Reads " +
		"in apps are among them as GET: tier shared is the shared memory, near is a near cache.",
	"requests_in_flight":          "Requests that wait for an answer from elsewhere.",
	"requests_unauthorized_total": "Requests refused, by the missing right; by token: unknown tokens.",
	"overdue_writes_total":        "Writes refused because their callers had given up.",

	"connections":                 "Open connections on the socket.",
	"connections_limit":           "The most connections on the socket that may be open.",
	"connections_waiting":         "Open connections on the socket that wait for their turn to begin.",
	"connections_total":           "Connections on the socket, by event.",
	"socket_bytes_total":          "Bytes on the socket, by direction.",
	"socket_remade_total":         "Times that the file of the socket was missing and was made again.",
	"frames_dropped_total":        "Requests answered BUSY unread, for lack of memory.",
	"buffer_bytes":                "Memory of pending requests and answers in bytes, by use.",
	"buffers_refused_total":       "Times that a connection got no memory because it used more than its share, by use.",
	"buffers_taken_total":         "Times that a connection had to give memory to others.",
	"shared_places":               "Places in use of the resources that all connections share, by resource.",
	"shared_places_limit":         "Places that a shared resource has, by resource.",
	"shared_places_refused_total": "Times that a connection got no place because it or its user had too many.",

	"memory_bytes":               "Memory in use in bytes, by tier.",
	"memory_limit_bytes":         "Memory that a tier may use in bytes, by tier.",
	"entries":                    "Entries, by tier.",
	"evictions_total":            "Entries removed, by tier and reason.",
	"no_room_total":              "Writes refused because there was no room.",
	"index_splits_refused_total": "New keys that came to a full page of the index that could not be split.",
	"copies_total":               "Lookups of copies of entries that other hosts own, by result.",
	"shared_memory_values_total": "Values in the memory that apps on this host share, by event.",
	"shared_memory_hits_total":   "Reads that apps have answered from the memory that they share, as they report.",
	"namespace_bytes":            "Size of the entries of a namespace on this host in bytes.",
	"namespace_quota_bytes":      "Quota of a namespace in bytes. A namespace without a quota has no value.",

	"members":                "Hosts of the cluster as this host sees them, this one included, by state.",
	"max_staleness_seconds":  "The bound: no copy is served whose host was last heard longer ago.",
	"partitions_held":        "Partitions that this host owns, of 16,384.",
	"drained":                "This host was drained, or is leaving: it owns nothing, and serves through others.",
	"holdings_total":         "Ownerships of partitions on this host, by event.",
	"pauses_total":           "Times that the process gave up its ownerships because it had not run for too long.",
	"stopped_seconds_total":  "Seconds in which the process did not run, in gaps above a sixteenth of max_staleness.",
	"polls_total":            "Polls of other hosts, by event.",
	"peers_refused_total":    "Greetings between hosts refused, by this host or by another one.",
	"peer_connections":       "Open connections from other hosts, by state.",
	"peer_connections_total": "Connections from other hosts, and from unknown clients on the peer port, by event.",
	"name_conflicts_total":   "Reports of two processes of one name.",
	"peer_reads_total":       "Reads of keys that other hosts own, asked of the owner or shared with another read.",
	"peer_errors_total":      "Requests to owners of keys that failed.",
	"peer_served_total":      "Keys that other hosts have read or written here.",

	"gossip_dropped_total":           "Messages and streams at the gossip port dropped, by reason.",
	"gossip_streams":                 "Open streams from other processes to the gossip port.",
	"gossip_unknown":                 "Processes that only gossip reports. They have no effect.",
	"gossip_unknown_forgotten_total": "Processes that only gossip reported, forgotten because of their number.",
	"gossip_greetings_total":         "Greetings of processes that only gossip reported, by result.",

	"handoffs":               "Handoffs under way, by direction.",
	"handoff_entries_total":  "Entries that moved with their partitions, by event.",
	"handoff_bytes_total":    "Bytes of keys and values that came in handoffs.",
	"handoff_failures_total": "Handoffs to this host that ended early.",

	"invalidations_total":      "Events in the logs of changes, by event.",
	"invalidation_gaps_total":  "Times that the events of another host did not continue the last ones, by kind.",
	"invalidation_lag_seconds": "Seconds that the first event of the last batch had waited at its host.",
	"lease_remaining_seconds":  "Seconds for which copies of a host's entries may still be served.",

	"loads_total":             "Loads from the origin of a namespace, by result; collapsed: reads that shared a load.",
	"loads_under_way":         "Loads from the origin of a namespace that are under way.",
	"origin_calls_total":      "Calls of the origin of a namespace, retries included.",
	"origin_writes_total":     "Writes to the origin of a namespace, by result.",
	"origin_writes_unsettled": "Writes to the origin whose key has a new owner that may still have an older value.",
	"known_reads_total":       "Reads of a namespace with a key filter, by the answer of the filter.",
	"known_keys":              "Keys in the filter of a namespace, approximately. 0 if the filter is not in use.",
	"known_age_seconds":       "Age of the key filter of a namespace in seconds.",
	"known_failures_total":    "Builds of the key filter of a namespace that failed.",
	"warmed_keys_total":       "Keys of a namespace loaded at the start, by result.",
	"lease_tokens":            "Lease tokens that apps have, and reads that wait for their fills, by state.",
	"lease_tokens_total":      "Lease tokens of apps that load values themselves, by event.",
	"audited_values_total":    "Hits of a namespace with audit that were compared with the origin, by result.",
	"audit_differences_total": "Cached values that differed from the origin's, by the time for which they had " +

	"origin_breaker_open":           "1 while the breaker before a namespace's origin is open: loads are refused.",
	"origin_breaker_half_open":      "1 while that breaker is half-open: the next load tries the origin.",
	"origin_breaker_openings_total": "Times that the breaker opened.",
	"origin_failures_in_a_row":      "Calls of a namespace's origin that failed since the last success, by kind.",
	"origin_last_failure_seconds":   "Seconds since the last failed call of a namespace's origin, by kind.",

	"keys":                           "Cluster keys that are accepted, by the fingerprint of the one in use.",
	"key_reloads_total":              "Changes of the files of the cluster key and of the certificates, by result.",
	"log_lines_total":                "Lines of the log, by event.",
	"http_connections":               "Open connections to the HTTP port.",
	"http_connections_limit":         "The most connections to the HTTP port that may be open.",
	"http_connections_closed_total":  "Connections to the HTTP port closed because there were too many.",
	"memcached_connections":          "Open connections of clients of memcached's protocol.",
	"memcached_connections_limit":    "The most connections of clients of memcached's protocol that may be open.",
	"memcached_connections_total":    "Connections of clients of memcached's protocol, by event.",
	"memcached_values_dropped_total": "Values of memcached's protocol not taken, for lack of memory.",
	"memcached_commands_in_flight":   "Commands of memcached's protocol that wait.",
	"memcached_bytes_total":          "Bytes of memcached's protocol, by direction.",
	"memcached_commands_total":       "Commands of memcached's protocol and their outcomes, by memcached's name.",
	"build_info":                     "Constant 1, by version of the sidecar, of Go and of the protocol.",

	"certificate_expires_timestamp_seconds": "Unix time at which the certificate in use ends.",
}
