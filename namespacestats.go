package cachesidecar

// NamespaceStats describes one namespace.
type NamespaceStats struct {
	// Name of the namespace.
	Name string `json:"name" label:"namespace"`
	// Entries on this host.
	Entries int64 `json:"entries"`
	// Size of the entries on this host, headers included.
	Bytes int64 `json:"bytes" metric:"namespace_bytes"`
	// Quota of the namespace; zero: none, and no series.
	Quota int64 `json:"quota" metric:"namespace_quota_bytes,omitempty"`
	// Entries removed to make room for others.
	Evicted int64 `json:"evicted" metric:"namespace_evictions_total{reason=capacity}"`
	// Entries removed for the quota.
	QuotaEvicted int64 `json:"quota_evicted" metric:"namespace_evictions_total{reason=quota}"`
	// Reads of keys whose value was in the cache, here, at the owner or in the app.
	Hits int64 `json:"hits"`
	// Of the hits: in the shared memory, as apps report.
	SharedHits int64 `json:"shared_hits"`
	// Of the hits: in near caches, as apps report.
	NearHits int64 `json:"near_hits"`
	// Reads of keys whose value was loaded from the origin for them.
	Loaded int64 `json:"loaded"`
	// Reads of keys that returned no value, those in the shared memory included.
	Misses int64 `json:"misses"`
	// Reads of keys that ended with an error.
	ReadErrors int64 `json:"read_errors"`
	// Writes stored.
	Writes int64 `json:"writes"`
	// Deletions of keys, found or not.
	Deletes int64 `json:"deletes"`
	// Writes whose condition was not met.
	Refused int64 `json:"refused"`
	// Requests that ended with an error, reads included.
	Errors int64 `json:"errors"`
	// Reads answered with a stale value.
	Stale int64 `json:"stale"`

	Recent    RecentStats    `json:"recent"`
	Loads     LoadStats      `json:"loads" if:"Origin"`
	KeyFilter KeyFilterStats `json:"known" if:"Configured"`
	Through   ThroughStats   `json:"write_through" if:"Configured"`
	Warm      WarmStats      `json:"warm_on_start" if:"State"`
	Audit     AuditStats     `json:"audit" if:"Configured"`
	Failures  []FailureStats `json:"failures"`
}

// Reads returns the number of keys that were read, whatever came of it. The hit ratio is
// Hits of Reads: a read that was loaded, was stale or failed is no hit.
func (n *NamespaceStats) Reads() int64 { return n.Hits + n.Loaded + n.Misses + n.Stale + n.ReadErrors }

// RecentStats counts what came of the requests of the last minute, and what had to go.
type RecentStats struct {
	// Time that the counts cover: less than a minute after the start.
	WindowMS int64 `json:"window_ms" sum:"-"`
	// Requests of that time: keys read, written or deleted.
	Requests int64 `json:"requests"`
	// Of these: requests that ended with an error.
	Errors int64 `json:"errors"`
	// Entries removed in that time for the quota.
	Evicted int64 `json:"quota_evicted"`
}

// WarmStats describes the keys of a namespace that this host loads at its start.
type WarmStats struct {
	// Waiting, running, done or failed; "": nothing to load.
	State string `json:"state"`
	// Keys loaded.
	Loaded int64 `json:"loaded" metric:"warmed_keys_total{result=loaded}"`
	// Loads of keys that the origin does not have.
	Absent int64 `json:"absent" metric:"warmed_keys_total{result=absent}"`
	// Loads that failed.
	Failed int64 `json:"failed" metric:"warmed_keys_total{result=failed}"`
}

// AuditStats describes the comparison of cached values of a namespace with its origin.
type AuditStats struct {
	// The namespace has an audit.
	Configured bool `json:"configured"`
	// Comparisons under way, now.
	UnderWay int64 `json:"under_way"`
	// Values that were the origin's.
	Same int64 `json:"same" metric:"audited_values_total{result=same}"`
	// Values that differed, and still did when the bound had passed.
	Differed int64 `json:"differed" metric:"audited_values_total{result=differed}"`
	// Values that differed, and were changed or removed within the bound.
	Settled int64 `json:"settled" metric:"audited_values_total{result=settled}"`
	// Comparisons without an answer of the origin.
	Failed int64 `json:"failed" metric:"audited_values_total{result=failed}"`
	// Hits not compared: the origin is busy, or the value has gone.
	Skipped int64 `json:"skipped" metric:"audited_values_total{result=skipped}"`

	// Up to a second.
	UpTo1s int64 `json:"up_to_1s" metric:"audit_differences_total{cached_for=1s}"`
	// Up to ten seconds.
	UpTo10s int64 `json:"up_to_10s" metric:"audit_differences_total{cached_for=10s}"`
	// Up to a minute.
	UpTo1m int64 `json:"up_to_1m" metric:"audit_differences_total{cached_for=1m}"`
	// Up to ten minutes.
	UpTo10m int64 `json:"up_to_10m" metric:"audit_differences_total{cached_for=10m}"`
	// Longer.
	Longer int64 `json:"longer" metric:"audit_differences_total{cached_for=longer}"`
}

// Compared returns the number of cached values that were compared.
func (a *AuditStats) Compared() int64 { return a.Same + a.Differed + a.Settled }

// KeyFilterStats describes a namespace's key filter on this host.
type KeyFilterStats struct {
	// The namespace has a key filter.
	Configured bool `json:"configured"`
	// The filter is complete and not too old.
	InUse bool `json:"in_use"`
	// Keys in the filter, approximately.
	Keys int64 `json:"keys"`
	// Keys in the filter, approximately; zero if it is not in use.
	UsableKeys int64 `json:"usable_keys" metric:"known_keys"`
	// Time since the query of the filter began.
	AgeMS int64 `json:"age_ms" metric:"known_age_seconds" sum:"-"`
	// A query is under way.
	Building bool `json:"building"`
	// Duration of the last query that completed.
	TookMS int64 `json:"took_ms" sum:"-"`
	// Builds that completed.
	Builds int64 `json:"builds"`
	// Failed builds.
	Failures int64 `json:"failures" metric:"known_failures_total"`
	// Error of the last build; "": none.
	Error string `json:"error"`
	// Reads of keys that certainly do not exist.
	Denied int64 `json:"denied" metric:"known_reads_total{result=denied}"`
	// Reads that the filter let pass to the origin.
	Passed int64 `json:"passed" metric:"known_reads_total{result=passed}"`
	// Reads that passed because no filter was usable.
	Blind int64 `json:"blind" metric:"known_reads_total{result=blind}"`
}

// ThroughStats describes write-through from this host to a namespace's origin.
type ThroughStats struct {
	// The namespace has write-through.
	Configured bool `json:"configured"`
	// Writes under way, now.
	UnderWay int64 `json:"under_way"`
	// Writes that wait for a free place, now.
	Waiting int64 `json:"waiting"`
	// Writes and deletions that the origin applied.
	Stored int64 `json:"stored" metric:"origin_writes_total{result=stored}"`
	// Writes that the origin refused. It has changed nothing.
	Refused int64 `json:"refused" metric:"origin_writes_total{result=refused}"`
	// Writes of unknown outcome: the origin may have applied them.
	Unknown int64 `json:"unknown" metric:"origin_writes_total{result=unknown}"`
	// Writes that got no turn or no free place in time.
	Shed int64 `json:"shed" metric:"origin_writes_total{result=shed}"`

	// Writes that ended after their key had moved to a host that has not yet dropped older loads, now.
	Unsettled int64 `json:"unsettled" metric:"origin_writes_unsettled"`
}

// LoadStats describes the loads of this host from a namespace's origin.
type LoadStats struct {
	// Kind of the origin; "": none.
	Origin string `json:"origin"`
	// Loads under way, now.
	UnderWay int64 `json:"under_way" metric:"loads_under_way"`
	// Reads that wait for a load, now.
	Waiting int64 `json:"waiting"`
	// Loads that began.
	Loads int64 `json:"loads"`
	// Loads that brought a value.
	Loaded int64 `json:"loaded" metric:"loads_total{result=loaded}"`
	// Reads that shared the load of another read.
	Collapsed int64 `json:"collapsed" metric:"loads_total{result=collapsed}"`
	// Loads of keys that the origin does not have.
	Absent int64 `json:"absent" metric:"loads_total{result=absent}"`
	// Loads that failed.
	Failed int64 `json:"failed" metric:"loads_total{result=failed}"`
	// Loads whose key changed during the load.
	Detached int64 `json:"detached" metric:"loads_total{result=detached}"`
	// Loads of keys without an owner. Their values are not kept.
	Aside int64 `json:"aside" metric:"loads_total{result=aside}"`
	// Loads refused to protect the origin.
	Shed int64 `json:"shed" metric:"loads_total{result=shed}"`
	// Calls of the origin, retries included.
	Calls int64 `json:"calls" metric:"origin_calls_total"`
	// Calls of the origin that repeated a failed one.
	Retries int64 `json:"retries"`
	// Closed, open or half-open.
	Breaker string `json:"breaker"`
	// The breaker is open: loads are refused.
	BreakerOpen bool `json:"breaker_open" metric:"origin_breaker_open"`
	// The breaker is half-open: the next load tries the origin.
	BreakerHalfOpen bool `json:"breaker_half_open" metric:"origin_breaker_half_open"`
	// Times that the breaker opened.
	Opened int64 `json:"breaker_openings" metric:"origin_breaker_openings_total"`
	// Recent mean duration of a load.
	MeanUS int64 `json:"mean_us" sum:"-"`
}

// FailureStats describes the failures of one kind of calls of an origin. A call that the
// origin refuses has failed; one for a key that it does not have has not.
type FailureStats struct {
	// Kind of the calls: loads, writes, listings for the key filter, or checks of the settings until one
	// succeeds.
	Calls string `json:"calls" label:"calls"`
	// The last failure, without the origin's own words; "": none yet.
	Error string `json:"error"`
	// Time since the last failure; 0: none yet, and no series.
	AgeMS int64 `json:"age_ms" metric:"origin_last_failure_seconds,omitempty" sum:"-"`
	// Calls that have failed since the last one that succeeded.
	InARow int64 `json:"in_a_row" metric:"origin_failures_in_a_row"`
	// 1 by the kind of the last failure, until a call succeeds: refused, unreachable, timeout, too_large or
	// failed.
	Failing map[string]int64 `json:"failing" metric:"origin_failing{kind=*}"`
}
