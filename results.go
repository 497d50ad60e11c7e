package cachesidecar

// Member is one line of the answer to MEMBERS.
type Member struct {
	Node    string `msgpack:"node" json:"node"`
	Address string `msgpack:"address" json:"address"`
	State   string `msgpack:"state" json:"state"`
	Epoch   string `msgpack:"epoch" json:"epoch"`

	// Its share of the keys, relative to other members.
	Weight uint32 `msgpack:"weight" json:"weight"`
	// Number that the ring assigns to it.
	Partitions int `msgpack:"partitions" json:"partitions"`
	// Reason for a state that is not good.
	Why string `msgpack:"why" json:"why"`
}

// Place is the answer to RING.
type Place struct {
	Partition int    `msgpack:"partition" json:"partition"`
	Owner     string `msgpack:"owner" json:"owner"` // the assigned owner, by the ring
	// The actual owner; empty: none at present.
	Holder string `msgpack:"holder" json:"holder"`
}

// Verified is the answer to VERIFY: the reads of all hosts, of keys that were
// overwritten at the same time.
type Verified struct {
	DurationMS int64 `msgpack:"duration_ms" json:"duration_ms"`
	BoundMS    int64 `msgpack:"bound_ms" json:"bound_ms"` // max_staleness
	Keys       int   `msgpack:"keys" json:"keys"`
	Writes     int64 `msgpack:"writes" json:"writes"` // acknowledged
	// Writes that failed, or of unknown outcome.
	WriteErrors int64 `msgpack:"write_errors" json:"write_errors"`

	Nodes     []VerifiedNode   `msgpack:"nodes" json:"nodes"`
	Staleness []VerifiedBucket `msgpack:"staleness" json:"staleness"` // of all reads

	Checked []string `msgpack:"checked" json:"checked"`
	// Only the first violations.
	Violations      []string `msgpack:"violations" json:"violations"`
	ViolationsTotal int64    `msgpack:"violations_total" json:"violations_total"`
	// Reasons why the run proves nothing, if any.
	Inconclusive []string `msgpack:"inconclusive" json:"inconclusive"`
}

// VerifiedNode counts the reads of one host.
type VerifiedNode struct {
	Node string `msgpack:"node" json:"node"`
	L1   int64  `msgpack:"l1" json:"l1"` // answered from a copy
	L2   int64  `msgpack:"l2" json:"l2"`
	Peer int64  `msgpack:"peer" json:"peer"`
	// Reads that must not be answered from a copy.
	Fresh  int64 `msgpack:"fresh" json:"fresh"`
	Misses int64 `msgpack:"misses" json:"misses"`
	Errors int64 `msgpack:"errors" json:"errors"`
	// The longest time for which a value had been overwritten when its read began.
	StaleMaxUS int64 `msgpack:"stale_max_us" json:"stale_max_us"`
}

// VerifiedBucket counts the reads whose value had been overwritten for at most UpToMS,
// and for longer than the UpToMS of the bucket before.
type VerifiedBucket struct {
	UpToMS int64 `msgpack:"up_to_ms" json:"up_to_ms"`
	Reads  int64 `msgpack:"reads" json:"reads"`
}
