package wire

//lint:file-ignore U1000 the fields _msgpack are there for their tags

// MaxVerify is the longest run of VERIFY, in milliseconds.
const MaxVerify = 10 * 60 * 1000

// Verified answers VERIFY: what hosts have read of keys that were overwritten
// meanwhile.
type Verified struct {
	DurationMS  int64 `msgpack:"duration_ms" json:"duration_ms"`
	BoundMS     int64 `msgpack:"bound_ms" json:"bound_ms"` // max_staleness
	Keys        int   `msgpack:"keys" json:"keys"`
	Writes      int64 `msgpack:"writes" json:"writes"`             // acknowledged
	WriteErrors int64 `msgpack:"write_errors" json:"write_errors"` // or of unknown outcome

	Nodes     []VerifiedNode   `msgpack:"nodes" json:"nodes"`
	Staleness []VerifiedBucket `msgpack:"staleness" json:"staleness"` // of all reads

	Checked         []string `msgpack:"checked" json:"checked"`
	Violations      []string `msgpack:"violations" json:"violations"` // the first ones
	ViolationsTotal int64    `msgpack:"violations_total" json:"violations_total"`
	Inconclusive    []string `msgpack:"inconclusive" json:"inconclusive"` // why it proves nothing, if so
}

// VerifiedNode counts what one host has read.
type VerifiedNode struct {
	Node       string `msgpack:"node" json:"node"`
	L1         int64  `msgpack:"l1" json:"l1"` // from a copy
	L2         int64  `msgpack:"l2" json:"l2"`
	Peer       int64  `msgpack:"peer" json:"peer"`
	Fresh      int64  `msgpack:"fresh" json:"fresh"` // that were to be, from no copy
	Misses     int64  `msgpack:"misses" json:"misses"`
	Errors     int64  `msgpack:"errors" json:"errors"`
	StaleMaxUS int64  `msgpack:"stale_max_us" json:"stale_max_us"` // for how long a value had been overwritten when its read began
}

// VerifiedBucket counts reads whose value had been overwritten for no longer
// than a time, and longer than that of the one before.
type VerifiedBucket struct {
	UpToMS int64 `msgpack:"up_to_ms" json:"up_to_ms"`
	Reads  int64 `msgpack:"reads" json:"reads"`
}

// Probe asks another sidecar to read a key of VERIFY's as its apps would.
type Probe struct {
	_msgpack struct{} `msgpack:",as_array"`

	Key   []byte
	Fresh bool
}

// Probed answers PROBE.
type Probed struct {
	_msgpack struct{} `msgpack:",as_array"`

	Status uint8
	Value  []byte
	Source uint8
}
