package record

// SizesParameters are the parameters of sidecars in virtual time.
type SizesParameters struct {
	Nodes    string `json:"nodes"` // separated by commas
	Rates    string `json:"rates"`
	WindowMS int    `json:"window_ms"` // the counted period, in virtual time
}

// SizesRow is a cluster in virtual time under a rate of writes. Bytes are what one node
// sends in a second; counts are per node and second, too.
type SizesRow struct {
	Nodes    int     `json:"nodes"`
	Rate     int     `json:"rate"` // of writes, over all nodes
	Applied  float64 `json:"applied"`
	Follows  float64 `json:"follows"` // answers to followers of a log
	Followed float64 `json:"followed_bytes"`
	Polls    float64 `json:"polls"`
	Polled   float64 `json:"polled_bytes"`
	Gossip   float64 `json:"gossip_bytes"`
	Other    float64 `json:"other_bytes"`
	P50US    float64 `json:"p50_us"` // until another node stops serving its copy
	P99US    float64 `json:"p99_us"`
	// StartMS lasts from the start of all nodes until every partition is owned.
	StartMS int64 `json:"start_ms"`
	// JoinMS lasts from the start of one more node until it owns its share.
	JoinMS int64 `json:"join_ms"`
}
