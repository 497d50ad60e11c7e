package invalidation

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Event is one change, at its place in a Log.
type Event struct {
	Kind    Kind
	Hash    kv.Hash // of the key, of Changed and of Barrier
	Version kv.Version
	Detail  *Detail // of all kinds but Changed; shared, never modified
}

// Detail has the fields that few events need.
type Detail struct {
	Partitions kv.PartitionSet // of FloorRaised; of a Barrier for whole partitions
	CopiesOnly bool            // of FloorRaised: no key has changed; not sent
	Namespace  string          // of Flushed; "": all
	Lag        time.Duration   // of a Barrier for a single key
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
	// Barrier outdates nothing. It is a load barrier: loads of a key are not kept
	// for a while, or loads of partitions for as long as their namespaces say. It
	// precedes the Changed event of its deletion.
	Barrier
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
	Raised    uint64 // or a barrier, for the partition or a key of it
}
