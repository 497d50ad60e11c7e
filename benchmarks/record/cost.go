package record

// Cost is the measurement of what a request costs a server, alone on its connection. Its sides are
// Sidecar, EndpointText, MemcachedText, MemcachedTuned and Bare.
const Cost = "cost"

const (
	// Bare is a Go server with fixed answers to memcached's text commands.
	Bare = "bare"
	// MemcachedTuned is MemcachedText of a memcached with as many threads as there are processors;
	// without that it has four.
	MemcachedTuned = "memcached-tuned"
)

// What runs beside the servers and the load.
const (
	Nothing  = "nothing"
	Spinners = "spinners" // a process for each processor that never waits
	Builds   = "builds"   // a build of a Go program, again and again
)

// CostParameters are the parameters of the load.
type CostParameters struct {
	Data
	Turns
	Cycle int   `json:"cycle"`
	Conns []int `json:"conns"` // each with one request in flight
	// Steady are the connections of loads at a steady rate.
	Steady   []int `json:"steady"`
	Rate     int   `json:"rate"`      // requests a second
	SteadyMS int   `json:"steady_ms"` // of a side in a round
}

// CostRow is one load in one round.
type CostRow struct {
	Round  int                 `json:"round"`
	Beside string              `json:"beside"`
	Op     string              `json:"op"`
	Conns  int                 `json:"conns"`
	Rate   float64             `json:"rate,omitempty"` // requests a second; zero: as fast as answers come
	Sides  map[string]CostSide `json:"sides"`
}

// CostSide is one side in one round.
type CostSide struct {
	Requests int64   `json:"requests"`
	Seconds  float64 `json:"seconds"`
	CPU      float64 `json:"cpu_seconds"` // of the server's process meanwhile
	P50      float64 `json:"p50_us,omitempty"`
	P99      float64 `json:"p99_us,omitempty"`
}

// PerRequest returns the CPU time of a request, in µs.
func (s CostSide) PerRequest() float64 { return s.CPU * 1e6 / float64(s.Requests) }

// PerSecond returns the throughput in requests a second.
func (s CostSide) PerSecond() float64 { return float64(s.Requests) / s.Seconds }
