package cachesidecar

import "time"

// HotOptions are options of a question for the most read keys. The zero value asks for 20
// keys of all namespaces that the caller administers.
type HotOptions struct {
	// Only keys of this namespace. "" is all in which the caller has the right admin.
	Namespace string
	// At most so many keys, up to 1,000. 0 is 20.
	N int
}

// HotKeys are the keys that one host has read most in the last minute: for its apps, and
// for other hosts. Its numbers are estimates from one read in 256.
type HotKeys struct {
	// The time that the numbers cover, a minute at most.
	WindowMS int64 `json:"window_ms"`
	// Reads of all keys, of all namespaces.
	Reads int64 `json:"reads"`
	// The most read key is the first.
	Keys []HotKey `json:"keys"`
}

// HotKey is one of HotKeys.
type HotKey struct {
	Namespace string  `json:"ns"`
	Key       string  `json:"key"`
	Reads     int64   `json:"reads"`
	Share     float64 `json:"share"` // of HotKeys.Reads; 0 to 1
}

// KeysOptions are options of a list of keys.
type KeysOptions struct {
	// Only keys that begin with it. "" is all.
	Prefix string
	// At most so many keys in one request, up to 1,000. 0 is 100. Keys makes as many
	// requests as are needed.
	Page int
}

// KeyInfo is a key of a host's own share: the keys that this host owns and stores.
type KeyInfo struct {
	Key string `json:"key"`
	// Bytes of the value.
	Size int64 `json:"size"`
	// Bytes of memory that the entry takes.
	Memory int64 `json:"memory"`
	// Time left to live; 0 is no expiry.
	TTLMS   int64  `json:"ttl_ms"`
	Version uint64 `json:"version,string"`
}

// SlowOptions are options of a question for slow calls. The zero value asks for 20 calls of
// each kind, of all namespaces that the caller administers.
type SlowOptions struct {
	// Only calls in this namespace. "" is all in which the caller has the right admin.
	Namespace string
	// At most so many calls of each kind, up to 64. 0 is 20.
	N int
}

// SlowCalls are the slowest calls of one host in the last minutes, the slowest first. A
// host keeps 64 of each kind, in equal shares of the namespaces that have some.
type SlowCalls struct {
	// Faster calls are not kept.
	ThresholdMS int64 `json:"threshold_ms"`
	// Older calls are not kept.
	WindowMS int64 `json:"window_ms"`
	// Requests of this host's apps over the socket.
	Requests []SlowCall `json:"requests"`
	// Loads of this host from origins.
	Loads []SlowCall `json:"loads"`
}

// SlowCall is one of SlowCalls.
type SlowCall struct {
	// When it began, by the host's clock.
	Began time.Time `json:"began"`
	// For a request: from its reading to its answer.
	TookUS int64 `json:"took_us"`
	// GET, for instance; LOAD for a load.
	Op        string `json:"op"`
	Namespace string `json:"ns"`
	// The first of several; "": none.
	Key  string `json:"key"`
	Hash string `json:"hash"` // of the key, in hexadecimal, as in WATCH
	Keys int64  `json:"keys"` // number of keys
	// The status of the answer; for a load: loaded, absent, busy, timeout or failed.
	Result string `json:"result"`
	// What it waited for, as far as this host knows. Times of waits at the same time add
	// up.
	Parts []SlowPart `json:"parts"`
}

// SlowPart is what a call waited for.
type SlowPart struct {
	// owner, load, origin, limits, token, handoff, ownership, order or acks.
	What string `json:"what"`
	// The host that was waited for, if it is another one.
	Node   string `json:"node,omitempty"`
	TookUS int64  `json:"took_us"`
}
