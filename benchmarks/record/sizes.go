package record

// SizesParameters are those of sidecars in virtual time.
type SizesParameters struct {
	Nodes    string `json:"nodes"` // between commas
	Rates    string `json:"rates"`
	WindowMS int    `json:"window_ms"` // that is counted, in virtual time
}

// SizesRow is a cluster in virtual time under a rate of writes. Bytes are those
// that a node sends in a second, and counts are of a node and second too.
type SizesRow struct {
	Nodes    int     `json:"nodes"`
	Rate     int     `json:"rate"` // of writes, over all nodes
	Applied  float64 `json:"applied"`
	Follows  float64 `json:"follows"` // answers to who follows a log
	Followed float64 `json:"followed_bytes"`
	Polls    float64 `json:"polls"`
	Polled   float64 `json:"polled_bytes"`
	Gossip   float64 `json:"gossip_bytes"`
	Other    float64 `json:"other_bytes"`
	P50US    float64 `json:"p50_us"` // until another node serves its copy no more
	P99US    float64 `json:"p99_us"`
	StartMS  int64   `json:"start_ms"` // all begin at once, until every partition is held
	JoinMS   int64   `json:"join_ms"`  // one more joins, until it holds its share
}
