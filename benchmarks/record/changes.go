package record

// Reader is a side of the measurement of changes: a program that only reads the stream.
const Reader = "reader"

// None is the database that no stream is read from.
const None = "none"

// ChangesParameters are the parameters of changes.
type ChangesParameters struct {
	Rounds  int   `json:"rounds"`
	Hosts   int   `json:"hosts"`
	Commits int   `json:"commits"` // of a round, one after the other
	Rows    int   `json:"rows"`    // of a round, that wait in the log
	Seconds int   `json:"seconds"` // of each side's pgbench in a round
	Clients int   `json:"clients"` // of pgbench
	Limit   int64 `json:"limit_bytes"`
}

// ChangesRow is one round.
type ChangesRow struct {
	Round int `json:"round"`
	// DelayUS has the delays, in µs at each of Percentiles, from the return of a COMMIT until no host
	// returns the old value any more, and until the bare reader has the row.
	DelayUS map[string][]float64 `json:"delay_us"`
	Rows    map[string]float64   `json:"rows_per_second"`
	TPS     map[string]float64   `json:"transactions_per_second"`
}
