package record

// Clients is the name of the measurement of clients, and of its file.
const Clients = "clients"

// The sides of the comparison of Go clients, all with one server on a Unix socket.
const (
	OursSocket   = "sidecar, socket"
	OursNear     = "sidecar, near cache"
	OursShared   = "sidecar, shared memory"
	Gomemcache   = "memcached, gomemcache"
	GoRedis      = "redis, go-redis"
	RueidisPlain = "redis, rueidis"
	RueidisNear  = "redis, rueidis' client-side cache"
)

// ClientSides are all sides, ours first.
var ClientSides = []string{OursSocket, OursNear, OursShared, Gomemcache, GoRedis, RueidisPlain, RueidisNear}

// ColdSides are the sides that hold values in the process, or read them there.
var ColdSides = []string{OursNear, OursShared, RueidisNear}

// ClientsParameters are the parameters of the comparison of clients.
type ClientsParameters struct {
	Data
	Turns
	Goroutines []int `json:"goroutines"`
	ColdGets   int   `json:"cold_gets"` // of a process that starts, by one goroutine
}

// ClientsRow is one number of goroutines in one round; with zero goroutines, the first GETs of
// clients that have just been made.
type ClientsRow struct {
	Round      int                `json:"round"`
	Goroutines int                `json:"goroutines"`
	Sides      map[string]Side    `json:"sides"`
	Allocs     map[string]float64 `json:"allocs"` // of each GET
}
