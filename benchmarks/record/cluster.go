package record

// Parts of the measurement of several hosts.
const (
	Copies  = "copies"  // GETs of keys that another host owns, answered from copies
	Latency = "latency" // one GET at a time that the owner answers
	Remote  = "remote"  // many GETs at a time that the owner answers
	Kill    = "kill"    // a host is killed
	Restart = "restart" // all hosts are restarted, one after the other
	Join    = "join"    // one more host joins
)

// Sides of the comparisons of several hosts.
const (
	Owned      = "owned"    // keys that the asked host owns
	Copied     = "copied"   // keys of another host, of which the asked host has copies
	Embedded   = "embedded" // a sidecar in the process that asks
	EchoTCP    = "echo-tcp" // over TCP, with frames as long as those between sidecars
	Groupcache = "groupcache"
	Olric      = "olric"
)

// ClusterParameters are the parameters of several hosts.
type ClusterParameters struct {
	Data
	Turns
	Cycle int `json:"cycle"`
	// Hot is the number of keys of which there are copies, and of as many own keys.
	Hot   int   `json:"hot"`
	Bound int   `json:"max_staleness_ms"` // of the sidecars
	Kills int   `json:"kills"`
	Probe int   `json:"probe"` // written keys of the killed host
	Hosts int   `json:"hosts"` // hosts that are restarted
	Fixed int   `json:"fixed"` // keys that are read meanwhile
	Reads int   `json:"reads"` // reads of them a second, about
	Limit int64 `json:"limit_bytes"`
}

// ClusterRow is one round of one part. Fields that a part does not use are left out.
type ClusterRow struct {
	Part  string          `json:"part"`
	Round int             `json:"round"`
	Conns int             `json:"conns,omitempty"`
	Depth int             `json:"pipeline,omitempty"`
	Sides map[string]Side `json:"sides,omitempty"`
	// Copied is the share of a side's reads that were answered from a copy, by the
	// sidecar's own count.
	Copied map[string]float64 `json:"copied,omitempty"`
	Kill   *KillRow           `json:"kill,omitempty"`
	Moves  *Moves             `json:"moves,omitempty"`
}

// KillRow is what happened to a killed host's keys. Times count from the kill.
type KillRow struct {
	// Reads count through the other hosts, until all written keys are read again.
	Reads     int64   `json:"reads"`
	Hits      int64   `json:"hits"`
	Errors    int64   `json:"errors"` // reads that returned neither a value nor a miss
	Why       string  `json:"why,omitempty"`
	SlowestMS float64 `json:"slowest_ms"` // of the reads
	Refused   int64   `json:"refused"`    // writes, before they succeeded
	WriteMS   float64 `json:"write_ms"`   // the first write succeeded
	HitMS     float64 `json:"hit_ms"`     // the first of them was read elsewhere
	AllMS     float64 `json:"all_ms"`     // the last written key was read
}

// Moves is the result of reads while hosts come and go. Times count from the beginning of
// the first window.
type Moves struct {
	Windows []Window `json:"windows"` // of one second each
	Events  []Event  `json:"events"`
}

// Window is the reads that ended within one second.
type Window struct {
	Reads  int64 `json:"reads"`
	Hits   int64 `json:"hits"`
	Errors int64 `json:"errors"` // neither a value nor a miss
	// Degraded are reads that missed because the owner of the key could not be asked in
	// time. Other misses are of entries that are gone.
	Degraded int64 `json:"degraded"`
}

// What happens to a host.
const (
	Asked   = "asked to end"
	Ended   = "ended"
	Started = "started"
	Serves  = "serves"
	In      = "in" // all hosts see it as a member, and no handoff to it is under way
)

// Event is the time at which something happened to a host.
type Event struct {
	MS   int64  `json:"ms"`
	Host string `json:"host"`
	What string `json:"what"`
}

// Ratios returns the share of hits among the reads: in the worst window, and in all
// windows.
func (m *Moves) Ratios() (lowest, mean float64) {
	lowest = 1
	var reads, hits int64
	for _, w := range m.Windows {
		lowest = min(lowest, w.Ratio())
		reads, hits = reads+w.Reads, hits+w.Hits
	}
	return lowest, float64(hits) / float64(max(reads, 1))
}

// Ratio returns the share of hits among the reads.
func (w Window) Ratio() float64 { return float64(w.Hits) / float64(max(w.Reads, 1)) }
