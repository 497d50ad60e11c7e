package invalidation

import "github.com/cachesidecar/cachesidecar/internal/kv"

// Event is one change, at its place in a Log.
type Event struct {
	Kind    Kind
	Hash    kv.Hash // of the key, of Changed
	Version kv.Version
	Detail  *Detail // of all kinds but Changed; shared, never modified
}

// Detail has the fields that few events need.
type Detail struct {
	Partitions kv.PartitionSet // of FloorRaised
	CopiesOnly bool            // of FloorRaised: no key has changed; not sent
	Namespace  string          // of Flushed; "": all
}

// Kind says what an event outdates.
type Kind uint8

// The kinds.
const (
	// Changed outdates copies of a key that were attested before Version.
	Changed Kind = iota
	// FloorRaised outdates copies of partitions that were attested before Version:
	// their ownership has ended, or it is no longer known what has changed in
	// them.
	FloorRaised
	// Flushed outdates a namespace's entries that were written before Version.
	Flushed
)

// Reset is what a Log tells a reader whose place in it is gone.
type Reset struct {
	Head  uint64
	Since []Mark // of the partitions with an event after the reader's place
}

// Mark says when something last happened in a partition, as places in the Log; zero:
// never.
type Mark struct {
	Partition uint16
	Changed   uint64
	Raised    uint64
}
