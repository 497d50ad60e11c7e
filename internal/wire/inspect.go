package wire

// Bounds of the requests for keys.
const (
	MaxHot      = 1000 // keys of one answer to HOT
	defaultHot  = 20
	MaxKeysPage = 1000 // keys of one answer to KEYS
	defaultKeys = 100
	MaxSlow     = 64 // calls of each kind in one answer to SLOW
	defaultSlow = 20
)

// Slow is the answer to SLOW: the slowest first.
type Slow struct {
	ThresholdMS uint64     `msgpack:"threshold_ms"` // faster calls are not kept
	WindowMS    uint64     `msgpack:"window_ms"`    // older calls are not kept
	Requests    []SlowCall `msgpack:"requests"`     // of apps
	Loads       []SlowCall `msgpack:"loads"`        // from origins
}

// SlowCall is a request or a load.
type SlowCall struct {
	BeganMS   uint64     `msgpack:"began_ms"` // since the Unix epoch, on this host's clock
	TookUS    uint64     `msgpack:"took_us"`
	Op        string     `msgpack:"op"`
	Namespace string     `msgpack:"ns"`
	Key       []byte     `msgpack:"key"`  // the first of several; nil: none
	Hash      uint64     `msgpack:"hash"` // of the key
	Keys      uint64     `msgpack:"keys"`
	Result    string     `msgpack:"result"`
	Parts     []SlowPart `msgpack:"parts"`
}

// SlowPart is what a call waited for.
type SlowPart struct {
	What   string `msgpack:"what"`
	Node   string `msgpack:"node"` // "": none
	TookUS uint64 `msgpack:"took_us"`
}

// KeysPage is the answer to KEYS.
type KeysPage struct {
	Keys   []KeyInfo `msgpack:"keys"`
	Cursor []byte    `msgpack:"cursor"` // of the next page; nil: there is none
}

// KeyInfo is an entry of this host's own share.
type KeyInfo struct {
	Key     []byte `msgpack:"key"`
	Size    uint64 `msgpack:"size"`   // of the value, bytes
	Memory  uint64 `msgpack:"memory"` // of the entry, bytes
	TTLMS   uint64 `msgpack:"ttl_ms"` // what is left; zero: no expiry
	Version uint64 `msgpack:"version"`
}

// Hot is the answer to HOT.
type Hot struct {
	WindowMS uint64   `msgpack:"window_ms"`
	Reads    uint64   `msgpack:"reads"` // of all keys of all namespaces
	Keys     []HotKey `msgpack:"keys"`
}

// HotKey is one of the most read keys.
type HotKey struct {
	Namespace string  `msgpack:"ns"`
	Key       []byte  `msgpack:"key"`
	Reads     uint64  `msgpack:"reads"`
	Share     float64 `msgpack:"share"` // of Hot.Reads
}
