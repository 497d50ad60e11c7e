package telemetry

// adviceOf says for each metric what a person should do about it. TestGoldenMetrics writes it into
// docs/METRICS.md; the program shows it nowhere.
// "–" marks what is only for graphs.
var adviceOf = map[string]string{
	"ready": "If 0: ask `/readyz` of `http`, with the token if there is one, or `cachesidecar health`.",
	"batch_duration_seconds": "If p99 rises with the CPU at its limit: fewer apps a host, or more hosts. Else see " +
		"`cachesidecar slow`.",
	"load_duration_seconds": "If it rises, the origin is slow: `cachesidecar slow` names keys.",
	"requests_total": "Hit ratio and errors come from it. `result=error`: see the answers of the apps, and the " +
		"log.",
	"requests_in_flight": "If it only grows, an owner or an origin does not answer: see peer_errors_total and " +
		"loads_under_way.",
	"requests_unauthorized_total": "If it rises, an app lacks a right: the log names the user. " +
		"See CONFIG.md, \"Who may " +
		"what\".",
	"overdue_writes_total": "If it rises, apps give up before the sidecar writes: raise their timeout, or find what " +
		"is slow.",

	"connections":         "Near connections_limit: raise `max_connections`, or let apps share connections.",
	"connections_limit":   "–",
	"connections_waiting": "If it stays above 0, one user opens many connections: let its apps keep theirs.",
	"connections_total": "`rejected`: raise `max_connections`. `slow_reader`, `slow_frame`, `bad_frame`: fix " +
		"that app.",
	"socket_bytes_total": "–",
	"socket_remade_total": "If it rises, something deletes the socket's file: often a cleaner of /tmp or a second " +
		"unit.",
	"frames_dropped_total": "If it rises, raise `buffer_size`, or send fewer and shorter requests at once.",
	"buffer_bytes":         "–",
	"buffers_refused_total": "If it rises, `stats` names who uses most. Let it read its answers, or raise " +
		"`buffer_size`.",
	"buffers_taken_total": "As buffers_refused_total.",
	"shared_places":       "–",
	"shared_places_limit": "–",
	"shared_places_refused_total": "If it rises, `stats` names who uses most of the resource: " +
		"SECURITY.md, \"The socket: fair shares\".",

	"memory_bytes": "Near its limit is right for L1 and L2. `buffers` near its limit: see " +
		"buffers_refused_total.",
	"memory_limit_bytes": "–",
	"entries":            "–",
	"evictions_total": "`capacity` with a falling hit ratio: raise `l2_size`. `quota`: raise the quota of the " +
		"namespace. `moved`: hosts came or went.",
	"no_room_total":              "If it rises, values are too long for `l2_size` or the quota: raise them.",
	"index_splits_refused_total": "If it rises, raise `l2_size`: the index has no room.",
	"copies_total":               "`outdated` high: keys that are written often are read often. This costs speed only.",
	"shared_memory_values_total": "`outdated` or `withdrawn` near `published`: what is read often is written often.",
	"shared_memory_hits_total":   "If 0 although apps read often, they do not have the memory: SHARED_MEMORY.md.",
	"namespace_bytes":            "–",
	"namespace_evictions_total": "`quota`: the namespace is full: raise its quota. `capacity`: the store is: raise `l2_size`, " +
		"or give the namespace that fills it a quota.",
	"namespace_quota_bytes": "–",

	"members":               "`missing` or `refused` for minutes: `cachesidecar members` gives the reason.",
	"max_staleness_seconds": "Must be alike on all hosts.",
	"partitions_held":       "The sum over hosts is 16,384. If less for a minute: see ALERTS.md.",
	"drained":               "If 1 unexpectedly: `cachesidecar drain --undo`.",
	"holdings_total":        "Rises when hosts come and go. Without that: a host is stopped or cut off for moments.",
	"pauses_total": "If it rises, the machine stops the process for longer than the bound: more CPU, no " +
		"swap, no live migration.",
	"stopped_seconds_total": "As pauses_total.",
	"polls_total":           "`failed` of one host only: look at that host; of all: at this one's network.",
	"peers_refused_total": "If it rises, the log names the host and the reason: key, certificate, version or " +
		"setting.",
	"peer_connections": "–",
	"peer_connections_total": "`handshake_failed`: certificates or keys differ. `rejected`, `shed`: strangers at the " +
		"peer port.",
	"name_conflicts_total": "Two processes have one name: give each host its own `node`.",
	"peer_reads_total":     "–",
	"peer_errors_total":    "If it rises, owners do not answer: see members and polls_total.",
	"peer_served_total":    "–",

	"gossip_dropped_total": "`other_cluster`: another cluster gossips to this port. `garbage`: another key, or a " +
		"stranger.",
	"gossip_streams": "–",
	"gossip_unknown": "If it stays above 0, a process sends false gossip: set a cluster key, close the port to " +
		"strangers.",
	"gossip_unknown_forgotten_total": "As gossip_unknown.",
	"gossip_greetings_total":         "–",

	"handoffs":              "–",
	"handoff_entries_total": "–",
	"handoff_bytes_total":   "–",
	"handoff_failures_total": "If it rises, entries were lost in a move and are loaded again. See the log of both " +
		"hosts.",

	"invalidations_total": "–",
	"invalidation_gaps_total": "`reset`: changes come faster than they are followed. The host drops its copies; see " +
		"LOGS.md.",
	"invalidation_lag_seconds": "Near max_staleness_seconds: the network or a host is slow.",
	"lease_remaining_seconds":  "If 0 for minutes, copies of that host are not served: see polls_total and members.",

	"loads_total":             "`failed`, `shed`: the origin fails or is too slow: LOADING.md.",
	"loads_under_way":         "At `limits.concurrency` all the time: the origin is too slow for the misses.",
	"origin_calls_total":      "–",
	"origin_writes_total":     "`unknown`: the origin may have the value; the key is not served from the cache.",
	"origin_writes_unsettled": "If it stays above 0, a host cannot be reached: see members.",
	"known_reads_total":       "`blind`: the filter is not usable; see known_failures_total.",
	"known_keys":              "If 0: the filter could not be built. The log has the reason.",
	"known_age_seconds":       "Above the filter's `max_age` it is not used: see known_failures_total.",
	"known_failures_total":    "If it rises, the query of `existing_keys` fails: the log has the reason.",
	"changes_age_seconds":     "If it comes near to `max_lag`, the database or an owner answers slowly.",
	"changes_late":            "If it is 1, reads load: `cachesidecar changes` says why.",
	"changes_following":       "If it is 0 on all hosts for a minute, no host follows: `cachesidecar changes`.",
	"changes_lag_seconds":     "If it grows, an owner does not answer, or rows change faster than keys are deleted.",
	"changes_under_way":       "–",
	"changes_kept_bytes":      "If it grows without end, the server's disk fills: see CHANGES.md, \"Ending a feed\".",
	"changes_rows_total":      "–",
	"changes_deletions_total": "–",
	"changes_flushes_total":   "If it rises often, rows change in large numbers, or tables are truncated.",
	"changes_gaps_total":      "If it rises: `cachesidecar changes` says why.",
	"changes_failures_total":  "If it rises, the log has the reason.",
	"audited_values_total": "`differed`: rows change without an announcement; see LOADING.md, \"Audit\". `skipped` " +
		"near all: the origin is busy, or the share is more than 100 hits a second.",
	"audit_differences_total": "–",
	"warmed_keys_total":       "`failed`: the origin was not ready at the start.",
	"lease_tokens":            "–",
	"lease_tokens_total":      "`expired`: apps take longer than `lease_time` to load, or forget to fill.",

	"origin_breaker_open":           "If 1, the origin has failed: fix it. The breaker closes by itself.",
	"origin_breaker_half_open":      "–",
	"origin_breaker_openings_total": "If it rises often, the origin fails now and then.",
	"setting_differs":               "Give all hosts the same settings: `cachesidecar members` names the hosts, and `config show` a host's own.",
	"origin_failing":                "With `calls=\"checks\"` the server refuses what is configured, or is not there: `cachesidecar health` says why.",
	"origin_failures_in_a_row":      "If it grows, every call fails: `cachesidecar stats` has the last error.",
	"origin_last_failure_seconds":   "–",

	"keys": "More than one value of `first` for long: a rotation was not " +
		"completed on all hosts.",
	"certificate_expires_timestamp_seconds": "Less than two weeks ahead: put new certificates into the files of `tls`.",
	"key_reloads_total": "`refused`: the new file is wrong, and the old one is in " +
		"use. The log has the reason.",
	"log_lines_total":                "`lost`: what reads stderr is too slow. `left_out`: a message repeats.",
	"http_connections":               "Near http_connections_limit: something keeps many connections open.",
	"http_connections_limit":         "–",
	"http_connections_closed_total":  "As http_connections.",
	"memcached_connections":          "Near memcached_connections_limit: raise `max_connections`.",
	"memcached_connections_limit":    "–",
	"memcached_connections_total":    "As connections_total.",
	"memcached_values_dropped_total": "If it rises: raise `buffer_size`, or write less at a time.",
	"memcached_commands_in_flight":   "As requests_in_flight.",
	"memcached_bytes_total":          "–",
	"memcached_commands_total":       "`get_misses` against `get_hits`: the hit ratio of these clients.",
	"build_info":                     "More than one version for days: an upgrade was not completed.",
}
