package record

// Endpoint is the measurement of the sidecar's endpoint for clients of memcached's protocol.
// Its rows are the socket's. It has the name of its flag.
const Endpoint = "memcached"

// The sides of Endpoint, beside Sidecar: the socket of the same sidecar.
const (
	EndpointText  = "endpoint-text"
	EndpointMeta  = "endpoint-meta"
	MemcachedText = "memcached-text"
	MemcachedMeta = "memcached-meta"
)

// MultiGet is the op of gets with as many keys on one line as the row's Pipeline says. One
// line is in flight on each connection, and each key counts as a request.
const MultiGet = "MGET"
