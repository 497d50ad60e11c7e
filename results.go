package cachesidecar

// Member is one line of the answer to MEMBERS.
type Member struct {
	Node    string `json:"node"`
	Address string `json:"address"`
	State   string `json:"state"`
	Epoch   string `json:"epoch"`

	// Its share of the keys, relative to other members.
	Weight uint32 `json:"weight"`
	// Number that the ring assigns to it.
	Partitions int `json:"partitions"`
	// Reason for a state that is not good.
	Why string `json:"why"`
	// Settings that change an answer and differ from those of the host that was asked.
	Differs []string `json:"differs"`
}

// Place is the answer to RING.
type Place struct {
	Partition     int    `json:"partition"`
	AssignedOwner string `json:"assigned_owner"` // the assigned owner, by the ring
	// The actual owner; empty: none at present.
	Owner string `json:"owner"`
}

// DrainOptions are the options of Drain. The zero value hands over and stays.
type DrainOptions struct {
	Undo  bool // take a drain back
	Force bool // also if no other host could take over: then the entries are gone
	Stop  bool // then end the sidecar, as SIGTERM does
}

// Drained is the answer to DRAIN: what became of the partitions that the host owned.
type Drained struct {
	Node       string `json:"node"`
	Partitions int    `json:"partitions"` // owned at the beginning
	// Partitions that no other host has taken in time.
	NotTaken int   `json:"not_taken"`
	Entries  int64 `json:"entries"` // handed over
	TookMS   int64 `json:"took_ms"`
	// The drain was taken back, by this request or while this one waited.
	Undone bool `json:"undone"`
}

// Verified is the answer to VERIFY: the reads of all hosts, of keys that were
// overwritten at the same time.
type Verified struct {
	DurationMS int64 `json:"duration_ms"`
	BoundMS    int64 `json:"bound_ms"` // max_staleness
	Keys       int   `json:"keys"`
	Writes     int64 `json:"writes"` // acknowledged
	// Writes that failed, or of unknown outcome.
	WriteErrors int64 `json:"write_errors"`

	Nodes     []VerifiedNode   `json:"nodes"`
	Staleness []VerifiedBucket `json:"staleness"` // of all reads

	Checked []string `json:"checked"`
	// Only the first violations.
	Violations      []string `json:"violations"`
	ViolationsTotal int64    `json:"violations_total"`
	// Reasons why the run proves nothing, if any.
	Inconclusive []string `json:"inconclusive"`
}

// VerifiedNode counts the reads of one host.
type VerifiedNode struct {
	Node string `json:"node"`
	L1   int64  `json:"l1"` // answered from a copy
	L2   int64  `json:"l2"`
	Peer int64  `json:"peer"`
	// Reads that must not be answered from a copy.
	Fresh  int64 `json:"fresh"`
	Misses int64 `json:"misses"`
	Errors int64 `json:"errors"`
	// The longest time for which a value had been overwritten when its read began.
	StaleMaxUS int64 `json:"stale_max_us"`
}

// VerifiedBucket counts the reads whose value had been overwritten for at most UpToMS,
// and for longer than the UpToMS of the bucket before.
type VerifiedBucket struct {
	UpToMS int64 `json:"up_to_ms"`
	Reads  int64 `json:"reads"`
}

// Changes is what a reload has done.
type Changes struct {
	Changed []Change `json:"changed"` // in effect now
	// Settings that take effect with the next start only.
	Restart []Change `json:"restart"`
}

// Change is one setting that has another value.
type Change struct {
	Setting string `json:"setting"` // such as namespaces.users.default_ttl
	From    string `json:"from"`
	To      string `json:"to"`
}
