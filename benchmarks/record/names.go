package record

// The names of the measurements, which are also the names of the files.
const (
	Socket      = "socket"
	Endpoint    = "memcached" // the sidecar's endpoint for memcached's protocol, by the name of its flag
	Cost        = "cost"
	Clients     = "clients"
	Languages   = "languages"
	Memory      = "memory"
	GC          = "gc"
	Idle        = "idle"
	Cluster     = "cluster"
	Propagation = "propagation"
	Changes     = "changes"
	TLS         = "tls" // printed only
	Sizes       = "sizes"
	Loads       = "loads"
	Overload    = "overload"
	Hits        = "hits"
)

// The servers that peers start. Some are the sides of their comparisons.
const (
	Sidecar   = "sidecar"
	Redis     = "redis"
	Memcached = "memcached"
	Echo      = "echo"
	EchoTCP   = "echo-tcp" // over TCP, with frames as long as those between sidecars
	Bare      = "bare"     // a Go server with fixed answers to memcached's text commands
	Fanout    = "fanout"   // processes that only notify each other of writes
)

// The libraries that live inside a program.
const (
	Embedded   = "embedded" // a sidecar
	Groupcache = "groupcache"
	Olric      = "olric"
)

// Sides of the endpoint for memcached's protocol, and of what a request costs.
const (
	OwnProtocol    = "own protocol" // the socket of the same sidecar
	EndpointText   = "endpoint, text"
	EndpointMeta   = "endpoint, meta"
	MemcachedText  = "memcached, text"
	MemcachedMeta  = "memcached, meta"
	MemcachedTuned = "memcached, tuned" // with as many threads as there are processors; without that it has four
)

// Sides of the comparison of clients, in Go and in other languages.
const (
	OursSocket   = "sidecar, socket"
	OursNear     = "sidecar, near cache"
	OursShared   = "sidecar, shared memory"
	Gomemcache   = "memcached, gomemcache"
	GoRedis      = "redis, go-redis"
	RueidisPlain = "redis, rueidis"
	RueidisNear  = "redis, rueidis' client-side cache"

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

// Sides of several hosts.
const (
	OwnKeys        = "own keys"
	Copies         = "copies of another host's"
	OwnersAnswer   = "sidecar, its owner's answer"
	EchoUnixSide   = "echo, Unix socket"
	EchoTCPSide    = "echo, TCP"
	ThroughSocket  = "sidecar, through its socket"
	EmbeddedSide   = "sidecar, embedded"
	GroupcacheSide = "groupcache, embedded"
	OlricSide      = "olric, embedded"
	BySecond       = "by the second" // its values are one a second
)

// Sides of invalidations, and of rows that change.
const (
	Tracking   = "redis, client tracking"
	BareFanout = "bare fan-out"

	HangingHost = "sidecar, of a host whose links hang"
	NoPings     = "redis, a client that does not ping"
	Usual       = "redis, rueidis with its defaults"
	Careful     = "redis, rueidis with shorter times"

	Feed       = "feed"
	BareReader = "bare reader"
	NoStream   = "no stream"
)

// Parts of loads, and their sides.
const (
	Crowd  = "crowd"  // many requests for one key that no host has, and a caller with little time
	Served = "served" // hits in namespaces with and without an origin
	Outage = "outage" // the origin is away for some time

	OriginLoads     = "sidecar, its origin"
	AppsLoad        = "sidecar, LEASE and FILL by the apps"
	GroupcacheLoads = "groupcache, its loader"

	Without      = "without"                            // a namespace without an origin
	WithOrigin   = "namespace with an origin"           // and the defaults
	NoEarly      = "with an origin and refresh_early 0" //
	AgainWithout = "another without"                    // the variation

	OriginUp   = "the origin answers"
	OriginDown = "it is away"
	OriginBack = "it is back"
)

// Rates and sides of overload.
const (
	Calm = "0.8 ×" // of saturation
	Near = "0.9 or 1.1 ×"
	Over = "3 ×"

	Scraped = "metrics asked for each second"
	HTTPOff = "without HTTP"
)

// Percentiles are the recorded percentiles of each latency distribution, by name.
var Percentiles = []struct {
	Name string
	P    float64
}{{"p50", 50}, {"p75", 75}, {"p90", 90}, {"p95", 95}, {"p99", 99}, {"p99.5", 99.5}, {"p99.9", 99.9}, {"p99.99", 99.99}, {"max", 100}}
