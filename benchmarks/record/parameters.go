package record

// Parameters are the parameters of all measurements. Each measurement has those that are not zero, and bench has a
// flag for them: its name, its least value and its text are tags.
type Parameters struct {
	Keys      int `json:"keys,omitempty" flag:"entries" least:"1000" usage:"how many keys there are"`
	KeySize   int `json:"key_size,omitempty" flag:"key-size" least:"16" usage:"of keys, in bytes"`
	ValueSize int `json:"value_size,omitempty" flag:"value-size" least:"1" usage:"of values, in bytes"`

	// How the sides of a round take turns.
	Rounds     int `json:"rounds,omitempty" flag:"rounds" least:"1" usage:"how often each side is measured"`
	Turns      int `json:"turns,omitempty" flag:"turns" least:"1" usage:"each side's in a round"`
	SweepTurns int `json:"sweep_turns,omitempty" flag:"sweep-turns" least:"1" usage:"each side's in a round, for shapes of the plots alone"`
	TurnMS     int `json:"turn_ms,omitempty" flag:"turn" least:"1" usage:"the length of a turn, in ms"`
	WarmUpMS   int `json:"warm_up_ms,omitempty" flag:"warm-up" least:"0" usage:"load before each turn, in ms"`

	Cycle    int   `json:"cycle,omitempty" flag:"cycle" least:"1" usage:"how many requests are prebuilt over all connections"`
	Conns    int   `json:"conns,omitempty" flag:"conns" least:"1" usage:"connections; idle ones below 16,384: the sidecar takes no more by default"`
	Pipeline int   `json:"pipeline,omitempty" flag:"pipeline" least:"1" usage:"requests in flight on each connection"`
	Hosts    int   `json:"hosts,omitempty" flag:"hosts" least:"1" usage:"sidecars, and as many nodes or clients of the other sides"`
	Bound    int   `json:"max_staleness_ms,omitempty" flag:"max-staleness" least:"500" usage:"of the sidecars, in ms"`
	Rate     int   `json:"rate,omitempty" flag:"rate" least:"10" usage:"requests or writes a second; of loads: limits.rate of each sidecar of the outage"`
	Reads    int   `json:"reads,omitempty" flag:"reads" least:"1" usage:"a second, about, while hosts or the origin go away"`
	Seconds  int   `json:"seconds,omitempty" flag:"seconds" least:"1" usage:"of each side's turn"`
	Limit    int64 `json:"limit_bytes,omitempty"` // of each server

	SteadyMS int `json:"steady_ms,omitempty" flag:"steady" least:"10" usage:"how long each side has a load at a steady rate in a round, in ms"`
	ColdGets int `json:"cold_gets,omitempty" flag:"cold" least:"1" usage:"GETs of a client that has just been made"`
	Tasks    int `json:"tasks,omitempty" flag:"tasks" least:"1" usage:"calls in flight on one event loop"`
	Threads  int `json:"threads,omitempty" flag:"threads" least:"1" usage:"of one process in Python"`
	Few      int `json:"few,omitempty" flag:"few" least:"1000" usage:"the other sidecar's entries"`
	Churn    int `json:"churn,omitempty" flag:"churn" least:"0" usage:"connections that come and go before each round"`

	// Several hosts.
	Hot   int `json:"hot,omitempty" flag:"hot" least:"1" usage:"how many keys there are copies of, and as many of the host's own"`
	Kills int `json:"kills,omitempty" flag:"kills" least:"1" usage:"how often a host is killed"`
	Probe int `json:"probe,omitempty" flag:"probe" least:"1" usage:"how many of its keys are written until that succeeds"`
	Fixed int `json:"fixed,omitempty" flag:"fixed" least:"1000" usage:"how many keys are read while hosts come and go"`

	// Invalidations, and changes of rows.
	Short   int `json:"short_seconds,omitempty" flag:"short-seconds" least:"1" usage:"of the turns at a tenth of the rate, and at ten times the rate"`
	EveryMS int `json:"probe_every_ms,omitempty" flag:"probe-every" least:"1" usage:"how often a watched key is overwritten, in ms"`
	Hangs   int `json:"hangs,omitempty" flag:"hangs" least:"0" usage:"how often a link is made to hang"`
	HangFor int `json:"hang_seconds,omitempty" flag:"hang-seconds" least:"1" usage:"for how long it is read meanwhile"`
	Commits int `json:"commits,omitempty" flag:"commits" least:"1" usage:"how many rows are changed, one after the other"`
	Rows    int `json:"rows,omitempty" flag:"rows" least:"1" usage:"how many rows wait in the log"`
	Clients int `json:"clients,omitempty" flag:"clients" least:"1" usage:"of pgbench"`

	// Sidecars in virtual time.
	Nodes    string `json:"nodes,omitempty" flag:"nodes" usage:"numbers of nodes, between commas"`
	Rates    string `json:"rates,omitempty" flag:"rates" usage:"writes a second in all, between commas"`
	WindowMS int    `json:"window_ms,omitempty" flag:"window" least:"1" usage:"how long each is counted, in ms of virtual time"`

	// Loads.
	Depth    int `json:"depth,omitempty" flag:"depth" least:"1" usage:"requests in flight on each connection of a crowd, at most 500"`
	Cold     int `json:"cold,omitempty" flag:"cold" least:"1" usage:"how many keys, one after the other, a crowd asks for"`
	OriginMS int `json:"origin_ms,omitempty" flag:"origin" least:"1" usage:"how long the origin takes, in ms"`
	Hastes   int `json:"hastes,omitempty" flag:"hastes" least:"1" usage:"how often a caller with little time waits for the load of another caller"`
	Haste    int `json:"haste_ms,omitempty" flag:"haste" least:"1" usage:"that time, in ms"`
	OutHosts int `json:"outage_hosts,omitempty" flag:"outage-hosts" least:"1" usage:"sidecars whose origin goes away"`
	OutKeys  int `json:"outage_keys,omitempty" flag:"outage-keys" least:"1" usage:"how many keys are read meanwhile"`
	OutTTL   int `json:"outage_ttl_ms,omitempty" flag:"outage-ttl" least:"1" usage:"their time to live, in ms"`
	Up       int `json:"up_seconds,omitempty" flag:"up" least:"1" usage:"seconds before the outage"`
	Down     int `json:"down_seconds,omitempty" flag:"down" least:"1" usage:"seconds of the outage"`
	Back     int `json:"back_seconds,omitempty" flag:"back" least:"1" usage:"seconds after it"`

	// Overload.
	PhaseMS      int            `json:"phase_ms,omitempty" flag:"phase" least:"10" usage:"how long each rate is measured, in ms"`
	StepMS       int            `json:"step_ms,omitempty" flag:"step" least:"10" usage:"how long each step of the search for saturation is measured, in ms"`
	LargeSize    int            `json:"large_bytes,omitempty" flag:"large" least:"1" usage:"of large values, in bytes"`
	OriginPlaces int            `json:"origin_places,omitempty" flag:"origin-places" least:"1" usage:"calls that the origin works on at once"`
	ScrapeRounds int            `json:"scrape_rounds,omitempty" flag:"scrape-rounds" least:"1" usage:"how often hits while metrics are asked for are measured, each time with new processes"`
	TimeoutMS    map[string]int `json:"timeout_ms,omitempty"` // in which an answer is useful, by kind of load

	// Hit ratios.
	Points int `json:"points,omitempty" flag:"points" least:"0" usage:"sizes of each plot, beside those of the tables"`

	// What is measured, and with what.
	Parts  string `json:"-" flag:"parts" usage:"which parts to measure, with commas; the rounds of the others stay"`
	Kinds  string `json:"-" flag:"kinds" usage:"kinds of load, with commas"`
	Python string `json:"-" flag:"python" usage:"the interpreter, with the other clients: Debian's"`
	Node   string `json:"-" flag:"node" usage:"the program that runs JavaScript"`
	Traces string `json:"-" flag:"traces" usage:"the folder of traces to replay"`
	More   bool   `json:"-" flag:"more" usage:"add to the rounds that are there, instead of replacing them"`
}
