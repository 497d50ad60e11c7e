package record

// The names of the measurements, which are also the names of the files.
const (
	Socket      = "socket"
	Memory      = "memory"
	GC          = "gc"
	Idle        = "idle"
	Changes     = "changes"
	Cluster     = "cluster"
	Propagation = "propagation"
	Sizes       = "sizes"
	Loads       = "loads"
	Overload    = "overload"
	Hits        = "hits"
)

// The names of the servers, which are also the sides of their comparisons.
const (
	Sidecar   = "sidecar"
	Redis     = "redis"
	Memcached = "memcached"
	Echo      = "echo"
)

// Percentiles are the recorded percentiles of each latency distribution.
var Percentiles = []float64{50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100}

// Side is the result of one side of a comparison in one round.
type Side struct {
	Requests int64   `json:"requests"`
	Seconds  float64 `json:"seconds"`
	// LatencyUS is the latency of batches, in µs, at each of Percentiles.
	LatencyUS []float64 `json:"latency_us"`
}

// PerSecond returns the throughput in requests a second.
func (s Side) PerSecond() float64 { return float64(s.Requests) / s.Seconds }

// At returns a percentile of the batches' latency in µs. The percentile must be one of
// Percentiles.
func (s Side) At(percentile float64) float64 { return at(s.LatencyUS, percentile) }

// at returns a percentile of the list of Percentiles.
func at(list []float64, percentile float64) float64 {
	for i, p := range Percentiles {
		if p == percentile && i < len(list) {
			return list[i]
		}
	}
	return 0
}

// Turns is how the sides of a round take turns.
type Turns struct {
	Rounds   int `json:"rounds"`
	Turns    int `json:"turns"`      // of each side, in one round
	TurnMS   int `json:"turn_ms"`    // length of a turn
	WarmUpMS int `json:"warm_up_ms"` // before each turn
}

// Data describes keys and values.
type Data struct {
	Keys      int `json:"keys"`
	KeySize   int `json:"key_size"`   // bytes
	ValueSize int `json:"value_size"` // bytes
}

// SocketParameters are the parameters of the load on the socket, and of Endpoint.
type SocketParameters struct {
	Data
	Turns
	// SweepTurns replaces Turns for shapes that only the sweeps have.
	SweepTurns int `json:"sweep_turns,omitempty"`
	// Cycle is the number of prebuilt requests over all connections. A load cycles
	// through them.
	Cycle       int       `json:"cycle"`
	Percentiles []float64 `json:"percentiles"`
}

// SocketRow is one shape of load in one round.
type SocketRow struct {
	Round    int             `json:"round"`
	Op       string          `json:"op"`
	Conns    int             `json:"conns"`
	Pipeline int             `json:"pipeline"`
	Sides    map[string]Side `json:"sides"` // by server
}

// MemoryParameters are the parameters of the filled servers.
type MemoryParameters struct {
	Data
	Rounds int   `json:"rounds"`
	Limit  int64 `json:"limit_bytes"` // of each server
}

// MemoryRow is one round of filled servers.
type MemoryRow struct {
	Round int                   `json:"round"`
	Sides map[string]MemorySide `json:"sides"` // by server
	Parts MemoryParts           `json:"parts"` // of the sidecar's store
}

// MemorySide is one filled server.
type MemorySide struct {
	Empty       int64   `json:"empty_bytes"` // resident before
	Resident    int64   `json:"resident_bytes"`
	Entries     int64   `json:"entries"` // by the server's own count
	Evicted     int64   `json:"evicted"`
	FillSeconds float64 `json:"fill_seconds"`
}

// MemoryParts is where the store's bytes are, by its own account.
type MemoryParts struct {
	Payload   int64 `json:"payload"`
	Headers   int64 `json:"headers"`
	Alignment int64 `json:"alignment"`
	Index     int64 `json:"index"`
	Ghosts    int64 `json:"ghosts"`
	Open      int64 `json:"open"`
	Tails     int64 `json:"tails"`
	Dead      int64 `json:"dead"`
	Quotas    int64 `json:"quotas"`
	Used      int64 `json:"used"`
}

// Sides of the comparison of a full sidecar with a nearly empty one.
const (
	Few = "few" // GETs of all keys of a sidecar with few entries
	All = "all" // GETs of all keys of a sidecar with many entries
	Hot = "hot" // GETs of as few keys of the sidecar with many entries
)

// GCParameters are the parameters of the sidecars with many and with few entries.
type GCParameters struct {
	Data
	Turns
	Few      int   `json:"few"` // entries of the sidecar with few
	Conns    int   `json:"conns"`
	Pipeline int   `json:"pipeline"`
	Cycle    int   `json:"cycle"`
	Churn    int   `json:"churn"` // connections that come and go before each round
	Limit    int64 `json:"limit_bytes"`
}

// GCRow is one round.
type GCRow struct {
	Round int             `json:"round"`
	Sides map[string]Side `json:"sides"` // Few, All, Hot
	// Of the sidecar with many entries, since its start.
	Entries  int64   `json:"entries"`
	Runs     int64   `json:"gc_runs"`
	CPUShare float64 `json:"gc_cpu_share"`
	PauseUS  int64   `json:"gc_pause_max_us"`
	Heap     int64   `json:"heap_bytes"`
}

// IdleParameters are the parameters of the idle connections.
type IdleParameters struct {
	Data
	Rounds   int `json:"rounds"`
	Conns    int `json:"conns"`
	Pipeline int `json:"pipeline"` // of the batch that they have sent
}

// IdleRow is one round.
type IdleRow struct {
	Round int                 `json:"round"`
	Sides map[string]IdleSide `json:"sides"` // by server
}

// IdleSide is a server's resident memory, in bytes.
type IdleSide struct {
	Before   int64 `json:"before_bytes"`
	AfterOne int64 `json:"after_one_bytes"`   // after one GET on each connection
	AfterAll int64 `json:"after_batch_bytes"` // and then a batch of GETs
}

// HitsParameters are the parameters of the replay.
type HitsParameters struct {
	Rounds int `json:"rounds"` // of the random policies
	Points int `json:"points"` // of each trace's sweep of sizes
}

// Units of a cache's size.
const (
	Entries = "entries"
	Bytes   = "bytes"
)

// HitsRow is one replay of a trace against one policy at one size.
type HitsRow struct {
	Round    int    `json:"round"`
	Trace    string `json:"trace"`
	Requests int64  `json:"requests"`
	Unique   int64  `json:"unique"`
	Unit     string `json:"unit"`
	Size     int64  `json:"size"`
	Sweep    bool   `json:"sweep,omitempty"` // for the plot only
	Policy   string `json:"policy"`
	Hits     int64  `json:"hits"`
}
