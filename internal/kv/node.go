package kv

import (
	"cmp"
	"fmt"
)

// Epoch is a number that grows with each start of a process. It distinguishes a node from
// earlier processes of the same name.
type Epoch uint64

// epochRandom is the number of random bits of an epoch: two processes of one name may
// start in the same millisecond.
const epochRandom = 22

// NewEpoch returns the epoch of a process that starts at wall, in milliseconds since the
// Unix epoch.
func NewEpoch(wall int64, random uint32) Epoch {
	return Epoch(wall)<<epochRandom | Epoch(random%(1<<epochRandom))
}

func (e Epoch) String() string { return fmt.Sprintf("%016x", uint64(e)) }

// Process is one run of a node.
type Process struct {
	Node  NodeID
	Epoch Epoch
}

func (p Process) String() string { return string(p.Node) + "/" + p.Epoch.String()[8:] }

// Compare orders processes by name, then by epoch.
func (p Process) Compare(o Process) int {
	return cmp.Or(cmp.Compare(p.Node, o.Node), cmp.Compare(p.Epoch, o.Epoch))
}

// Ballot orders attempts to take partitions. No two nodes have equal ballots.
type Ballot struct {
	Clock   Version
	Process Process
}

// Compare orders ballots; nil is below all others.
func (b *Ballot) Compare(o *Ballot) int {
	switch {
	case b == o:
		return 0
	case b == nil:
		return -1
	case o == nil:
		return 1
	}
	return cmp.Or(cmp.Compare(b.Clock, o.Clock), b.Process.Compare(o.Process))
}
