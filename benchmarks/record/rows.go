package record

// Names of what is measured; the files are called so.
const (
	Socket      = "socket"
	Memory      = "memory"
	GC          = "gc"
	Idle        = "idle"
	Cluster     = "cluster"
	Propagation = "propagation"
	Sizes       = "sizes"
	Loads       = "loads"
	Hits        = "hits"
)

// Names of the servers, which are the sides of their comparisons.
const (
	Sidecar   = "sidecar"
	Redis     = "redis"
	Memcached = "memcached"
	Echo      = "echo"
)

// Percentiles are those that are kept of each latency distribution.
var Percentiles = []float64{50, 75, 90, 95, 99, 99.5, 99.9, 99.99, 100}

// Side is what one side of a comparison came to in one round.
type Side struct {
	Requests int64   `json:"requests"`
	Seconds  float64 `json:"seconds"`
	// LatencyUS is of batches, in µs, at each of Percentiles.
	LatencyUS []float64 `json:"latency_us"`
}

// PerSecond is the throughput.
func (s Side) PerSecond() float64 { return float64(s.Requests) / s.Seconds }

// At returns a percentile of the batches' latency in µs, one of Percentiles.
func (s Side) At(percentile float64) float64 {
	for i, p := range Percentiles {
		if p == percentile && i < len(s.LatencyUS) {
			return s.LatencyUS[i]
		}
	}
	return 0
}

// Turns is how the sides of a round take turns.
type Turns struct {
	Rounds   int `json:"rounds"`
	Turns    int `json:"turns"`      // each side's, in one round
	TurnMS   int `json:"turn_ms"`    // a turn's length
	WarmUpMS int `json:"warm_up_ms"` // before each turn
}

// Data is what keys and values look like.
type Data struct {
	Keys      int `json:"keys"`
	KeySize   int `json:"key_size"`   // bytes
	ValueSize int `json:"value_size"` // bytes
}

// SocketParameters are those of the load on the socket.
type SocketParameters struct {
	Data
	Turns
	SweepTurns int `json:"sweep_turns"` // in the place of Turns, for shapes of the sweeps alone
	// Cycle is how many requests are prebuilt over all connections; a load
	// goes round them.
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

// MemoryParameters are those of the filled servers.
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

// MemorySide is one server filled.
type MemorySide struct {
	Empty       int64   `json:"empty_bytes"` // resident before
	Resident    int64   `json:"resident_bytes"`
	Entries     int64   `json:"entries"` // by the server's own count
	Evicted     int64   `json:"evicted"`
	FillSeconds float64 `json:"fill_seconds"`
}

// MemoryParts says where the store's bytes are, by its own account.
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

// Sides of the comparison of a full sidecar with one that holds little.
const (
	Few = "few" // GETs of all keys of a sidecar with few entries
	All = "all" // GETs of all keys of a sidecar with many
	Hot = "hot" // GETs of as few keys of the one with many
)

// GCParameters are those of the sidecars with many and with few entries.
type GCParameters struct {
	Data
	Turns
	Few      int   `json:"few"` // entries of the other sidecar
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

// IdleParameters are those of the idle connections.
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
	AfterOne int64 `json:"after_one_bytes"`   // each connection has sent one GET
	AfterAll int64 `json:"after_batch_bytes"` // and then a batch of them
}

// HitsParameters are those of the replay.
type HitsParameters struct {
	Rounds int `json:"rounds"` // of the policies that draw lots
	Points int `json:"points"` // of each trace's sweep of sizes
}

// Units of a cache's size.
const (
	Entries = "entries"
	Bytes   = "bytes"
)

// HitsRow is a trace replayed against one policy of one size.
type HitsRow struct {
	Round    int    `json:"round"`
	Trace    string `json:"trace"`
	Requests int64  `json:"requests"`
	Unique   int64  `json:"unique"`
	Unit     string `json:"unit"`
	Size     int64  `json:"size"`
	Sweep    bool   `json:"sweep,omitempty"` // for the plot alone
	Policy   string `json:"policy"`
	Hits     int64  `json:"hits"`
}
