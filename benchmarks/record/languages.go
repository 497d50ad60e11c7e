package record

// Languages is the name of the measurement of clients in other languages, and of its file.
const Languages = "languages"

// Languages with a client.
const (
	Python = "Python"
	Node   = "Node"
)

// Cases of the comparison of clients in other languages.
const (
	OneGet    = "get"       // GETs, one after the other
	OneSet    = "set"       // SETs, one after the other
	InThreads = "threads"   // GETs of some threads
	InTasks   = "tasks"     // GETs of some tasks of one event loop
	InProcess = "hits"      // hits that ask no server
	PureHits  = "hits-pure" // the same without the client's extension
)

// Sides of the comparison besides OursSocket, OursNear and OursShared.
const (
	RedisPy       = "redis-py, hiredis"
	RedisPyParser = "redis-py, its own parser"
	RedisPyOne    = "redis-py, hiredis, one connection"
	Pymemcache    = "pymemcache"
	LRUCache      = "functools.lru_cache"
	NodeRedis     = "node-redis"
	Ioredis       = "ioredis"
	IoredisAuto   = "ioredis, auto-pipelining"
	MapInNode     = "Map"
)

// LanguagesParameters are the parameters of the comparison of clients in other languages.
type LanguagesParameters struct {
	Data
	Turns
	Tasks   int `json:"tasks"`   // in flight on one event loop
	Threads int `json:"threads"` // of one process
}

// LanguagesRow is one case of a language in one round.
type LanguagesRow struct {
	Round    int              `json:"round"`
	Language string           `json:"language"`
	Case     string           `json:"case"`
	Sides    map[string]Calls `json:"sides"`
}

// Calls is the result of one side. The calls are made one after the other by each task or
// thread.
type Calls struct {
	Calls   int64   `json:"calls"`
	Seconds float64 `json:"seconds"`
	// Asked is how many reads of the process asked the sidecar, of a side whose hits ask
	// nobody; those of its start are among them.
	Asked int64 `json:"asked,omitempty"`
}

// PerSecond returns the throughput in calls a second.
func (c Calls) PerSecond() float64 { return float64(c.Calls) / c.Seconds }

// US returns the mean time of a call, in µs, where one is made at a time.
func (c Calls) US() float64 { return 1e6 * c.Seconds / float64(c.Calls) }
