package invalidation

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Event is one change, at its place in a Log.
type Event struct {
	Kind    Kind
	Hash    kv.Hash // of the key, of Changed and of Held
	Version kv.Version
	Detail  *Detail // of all but Changed; shared, never changed
}

// Detail is what few events have.
type Detail struct {
	Partitions kv.PartitionSet // of Raised; of Held that is for no single key
	Namespace  string          // of Flushed; "" is all
	Lag       time.Duration   // of Held, of a single key
}

// Kind says what an event outdates.
type Kind uint8

// The kinds.
const (
	// Changed outdates copies of a key that were vouched for before Version.
	Changed Kind = iota
	// Raised outdates copies of partitions that were vouched for before
	// Version: their holding has ended, or nobody knows any more what of them
	// has changed.
	Raised
	// Flushed outdates a namespace's entries that were written before Version.
	Flushed
	// Held outdates nothing: what is loaded of a key is not to be kept for a
	// while, nor what is loaded of partitions for as long as their namespaces say.
	// It stands before the Changed of the deletion that it belongs to.
	Barrier
)

// Reset is what a Log tells a reader whose place in it is gone.
type Reset struct {
	Head  uint64
	Since []Mark // of the partitions in which something was since
}

// Mark is when something last was in a partition, as places in the Log; zero is
// never.
type Mark struct {
	Partition uint16
	Changed   uint64
	Raised    uint64 // or held, as a whole or a key of it
}
