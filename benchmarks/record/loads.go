package record

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Parts of the measurement of loads.
const (
	Crowd  = "crowd"  // many requests for one key that no host has
	Hasty  = "hasty"  // a caller with little time waits for another caller's load
	Served = "served" // hits in namespaces with and without an origin
	Outage = "outage" // the origin is away for some time
)

// LoadsParts are all parts, in the order of the page.
var LoadsParts = []string{Crowd, Hasty, Served, Outage}

// Sides of the parts, besides Sidecar and Groupcache.
const (
	Apps       = "apps"        // loads by the apps, with LEASE and FILL
	Plain      = "plain"       // a namespace without an origin
	Again      = "plain-again" // another namespace without one: the variation
	NoEarly    = "no-early"    // a namespace with an origin and refresh_early 0
	WithOrigin = "with-origin" // a namespace with an origin and the defaults
)

// LoadsParameters are the parameters of loads.
type LoadsParameters struct {
	Data       // of hits
	Turns      // of hits
	Cycle  int `json:"cycle"`
	Hosts  int `json:"hosts"` // of a crowd
	Conns  int `json:"conns"` // apps' connections of each host
	Depth  int `json:"depth"` // requests in flight on each connection
	Cold   int `json:"cold"`  // keys, one after the other
	Takes  int `json:"origin_ms"`
	Hastes int `json:"hastes"`   // waits of a caller in haste
	Haste  int `json:"haste_ms"` // its deadline

	OutHosts int   `json:"outage_hosts"`
	OutKeys  int   `json:"outage_keys"`
	OutTTL   int   `json:"outage_ttl_ms"`
	Rate     int   `json:"rate"`  // limits.rate of each host
	Reads    int   `json:"reads"` // a second, over all hosts
	Up       int   `json:"up_seconds"`
	Down     int   `json:"down_seconds"`
	Back     int   `json:"back_seconds"`
	Limit    int64 `json:"limit_bytes"`
}

// Asked returns how many requests a crowd has in flight.
func (p LoadsParameters) Asked() int { return p.Hosts * p.Conns * p.Depth }

// LoadsRow is one key, one wait, one round of hits or one outage.
type LoadsRow struct {
	Part   string               `json:"part"`
	Round  int                  `json:"round"`
	Crowds map[string]CrowdSide `json:"crowds,omitempty"`
	// LeftMS is when the caller in haste was answered, by side.
	LeftMS   map[string]float64 `json:"left_ms,omitempty"`
	Conns    int                `json:"conns,omitempty"`
	Pipeline int                `json:"pipeline,omitempty"`
	Sides    map[string]Side    `json:"sides,omitempty"`
	Phases   []OutagePhase      `json:"phases,omitempty"`
}

// CrowdSide is the result of all requests for one key at once.
type CrowdSide struct {
	Calls    int64   `json:"origin_calls"`
	Answered int64   `json:"answered"`         // with the value
	Others   int64   `json:"others"`           // without the value
	Status   string  `json:"status,omitempty"` // of the last of Others
	AllMS    float64 `json:"all_ms"`           // until the last request was answered
}

// Phases of an outage, in their order.
const (
	PhaseUp   = iota // the origin answers
	PhaseDown        // the origin does not answer
	PhaseBack        // the origin answers again
	Phases
)

// OutagePhase is the result of the reads in a phase. All of them accept a stale value.
type OutagePhase struct {
	Reads   int64 `json:"reads"`
	Current int64 `json:"current"`
	Stale   int64 `json:"stale"`
	Misses  int64 `json:"misses"`
	Errors  int64 `json:"errors"`
	// Late are reads that were due but not made, because earlier ones were unanswered.
	Late    int64   `json:"late"`
	P50MS   float64 `json:"p50_ms"`
	P99MS   float64 `json:"p99_ms"`
	MaxMS   float64 `json:"max_ms"`
	Busiest int64   `json:"busiest_second"` // calls of the origin in its busiest second
	Calls   int64   `json:"calls"`          // calls of the origin
}

// KeptLoads returns a folder's rows of the parts that are not measured now, and the
// versions that they were measured with.
func KeptLoads(dir string, now []string) (rest []LoadsRow, versions map[string]string, err error) {
	f, err := Read[LoadsParameters, LoadsRow](dir, Loads)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	rest = slices.DeleteFunc(f.Rows, func(r LoadsRow) bool { return slices.Contains(now, r.Part) })
	if err == nil && len(rest) > 0 && f.Commit != Commit() {
		err = fmt.Errorf("the rounds of %s are of commit %s, and this is %s: measure all parts again", Loads, f.Commit, Commit())
	}
	if len(rest) > 0 {
		versions = f.Versions
	}
	return rest, versions, err
}
