package record

// Kinds of overload.
const (
	Requests    = "requests"
	Connections = "connections"
	Large       = "large"
	Misses      = "misses"
	Metrics     = "metrics" // no overload: hits while metrics are asked for
)

// OverloadKinds are all kinds, in the order of the page.
var OverloadKinds = []string{Requests, Connections, Large, Misses, Metrics}

// Phases of a kind in one round.
const (
	Near = "near" // around saturation: the one with the greatest goodput
	Calm = "calm" // 80 % of saturation
	Over = "over" // 3 × saturation
)

// Sides of the comparison of metrics.
const (
	Scraped = "scraped" // GETs while metrics are asked for each second
	HTTPOff = "http-off"
)

// OverloadParameters are the parameters of overload.
type OverloadParameters struct {
	Data
	Rounds    int `json:"rounds"`
	PhaseMS   int `json:"phase_ms"`
	WarmUpMS  int `json:"warm_up_ms"`
	StepMS    int `json:"step_ms"` // of the search for saturation
	Conns     int `json:"conns"`
	LargeSize int `json:"large_bytes"`
	// The origin answers so many calls at once, and takes so long for each.
	OriginPlaces int `json:"origin_places"`
	OriginMS     int `json:"origin_ms"`
	// In which an answer is useful.
	TimeoutMS    map[string]int `json:"timeout_ms"`
	Limit        int64          `json:"limit_bytes"`
	ScrapeRounds int            `json:"scrape_rounds"`
	Turns        int            `json:"turns"` // of metrics, each side's in a round
	TurnMS       int            `json:"turn_ms"`
	Cycle        int            `json:"cycle"`
}

// OverloadRow is one round of one kind, or of the metrics.
type OverloadRow struct {
	Kind   string                   `json:"kind"`
	Round  int                      `json:"round"`
	Depth  int                      `json:"depth,omitempty"`      // of metrics: requests in flight on each of 16 connections
	Rate   float64                  `json:"saturation,omitempty"` // a second
	Phases map[string]OverloadPhase `json:"phases,omitempty"`
	Rest   Held                     `json:"rest"` // a moment after the last phase
	Sides  map[string]Side          `json:"sides,omitempty"`
}

// OverloadPhase is one load.
type OverloadPhase struct {
	Rate    float64   `json:"rate"` // offered, a second
	Seconds float64   `json:"seconds"`
	Due     int64     `json:"due"`
	Held    int64     `json:"held"`
	Served  int64     `json:"served"`
	Busy    int64     `json:"busy"`
	Late    int64     `json:"late"`
	Failed  int64     `json:"failed"`
	ServeUS []float64 `json:"serve_us"` // at each of Percentiles
	BusyUS  []float64 `json:"busy_us"`
	LagUS   []float64 `json:"lag_us"`
	Most    Held      `json:"most"`
}

// PerSecond returns the goodput.
func (p OverloadPhase) PerSecond() float64 { return float64(p.Served) / p.Seconds }

// Serve returns a percentile of the time until a useful answer, in µs.
func (p OverloadPhase) Serve(percentile float64) float64 { return at(p.ServeUS, percentile) }

// Refuse returns a percentile of the time until a refusal, in µs.
func (p OverloadPhase) Refuse(percentile float64) float64 { return at(p.BusyUS, percentile) }

// Lag returns a percentile of how late requests were sent, in µs.
func (p OverloadPhase) Lag(percentile float64) float64 { return at(p.LagUS, percentile) }

// Held is what the sidecar's process holds.
type Held struct {
	Resident    int64 `json:"resident_bytes"`
	Goroutines  int64 `json:"goroutines"`
	Descriptors int64 `json:"descriptors"`
}
