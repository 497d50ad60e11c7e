package record

// Parts of what is measured of several hosts.
const (
	Copies  = "copies"  // GETs of what another host owns and this one has a copy of
	Latency = "latency" // one GET that the owner answers, at a time
	Remote  = "remote"  // many of them
	Kill    = "kill"    // a host is killed
	Restart = "restart" // all hosts are restarted, one after the other
	Join    = "join"    // one more host joins
)

// Sides of the comparisons of several hosts.
const (
	Owned      = "owned"    // keys of the host that is asked
	Copied     = "copied"   // keys of another one, of which it has copies
	Embedded   = "embedded" // a sidecar in the process that asks
	EchoTCP    = "echo-tcp" // over TCP, frames as long as those between sidecars
	Groupcache = "groupcache"
	Olric      = "olric"
)

// ClusterParameters are those of several hosts.
type ClusterParameters struct {
	Data
	Turns
	Cycle int   `json:"cycle"`
	Hot   int   `json:"hot"`              // keys of which there are copies, and as many of one's own
	Bound int   `json:"max_staleness_ms"` // of the sidecars
	Kills int   `json:"kills"`
	Probe int   `json:"probe"` // keys of the killed host that are written until that succeeds
	Hosts int   `json:"hosts"` // that are restarted
	Fixed int   `json:"fixed"` // keys that are read meanwhile
	Reads int   `json:"reads"` // of them a second, about
	Limit int64 `json:"limit_bytes"`
}

// ClusterRow is one round of one part. What a part has not is left out.
type ClusterRow struct {
	Part  string          `json:"part"`
	Round int             `json:"round"`
	Conns int             `json:"conns,omitempty"`
	Depth int             `json:"pipeline,omitempty"`
	Sides map[string]Side `json:"sides,omitempty"`
	// Copied are the shares of a side's reads that were answered from a copy, by
	// the sidecar's own count.
	Copied map[string]float64 `json:"copied,omitempty"`
	Kill   *KillRow           `json:"kill,omitempty"`
	Moves  *Moves             `json:"moves,omitempty"`
}

// KillRow is what became of a killed host's keys. Times are since the kill.
type KillRow struct {
	Reads     int64   `json:"reads"` // through the others, until all keys that are written are read again
	Hits      int64   `json:"hits"`
	Errors    int64   `json:"errors"` // reads that brought neither a value nor a miss
	Why       string  `json:"why,omitempty"`
	SlowestMS float64 `json:"slowest_ms"` // of the reads
	Refused   int64   `json:"refused"`    // writes, before they succeeded
	WriteMS   float64 `json:"write_ms"`   // the first write succeeded
	HitMS     float64 `json:"hit_ms"`     // the first key written was read, through another host
	AllMS     float64 `json:"all_ms"`     // the last of them was
}

// Moves is what reads found while hosts came and went. Times are since the
// beginning of the first window.
type Moves struct {
	Windows []Window `json:"windows"` // of a second each
	Events  []Event  `json:"events"`
}

// Window is the reads of a second, by when they ended.
type Window struct {
	Reads  int64 `json:"reads"`
	Hits   int64 `json:"hits"`
	Errors int64 `json:"errors"` // neither a value nor a miss
	// Degraded are reads that missed because whoever owns the key could not be
	// asked in time. Other misses are of entries that are gone.
	Degraded int64 `json:"degraded"`
}

// What happens to a host.
const (
	Asked   = "asked to end"
	Ended   = "ended"
	Started = "started"
	Serves  = "serves"
	In      = "in" // all agree that it is, and nothing is on its way to it
)

// Event is when something happened to a host.
type Event struct {
	MS   int64  `json:"ms"`
	Host string `json:"host"`
	What string `json:"what"`
}

// Ratios are hits in parts of the reads: in the window that has the fewest, and
// in all.
func (m *Moves) Ratios() (lowest, mean float64) {
	lowest = 1
	var reads, hits int64
	for _, w := range m.Windows {
		lowest = min(lowest, w.Ratio())
		reads, hits = reads+w.Reads, hits+w.Hits
	}
	return lowest, float64(hits) / float64(max(reads, 1))
}

// Ratio is hits in parts of the reads.
func (w Window) Ratio() float64 { return float64(w.Hits) / float64(max(w.Reads, 1)) }
