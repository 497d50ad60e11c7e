package ownership

import (
	"cmp"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Ballot orders attempts to take a partition. No two are equal on two nodes.
type Ballot struct {
	Clock   kv.Version
	Process kv.Process
}

// Compare orders ballots; nil is below all.
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

// Acquire asks every member for a set of partitions.
type Acquire struct {
	Ballot     *Ballot
	State      uint64 // the asker's, which is in
	Partitions kv.PartitionSet
	Ring       []kv.Process // the asker's ring: who holds nothing back must know them all
}

// Answer is a member's answer to an Acquire: what it grants; all else is RETRY.
type Answer struct {
	Ballot   *Ballot
	Granted  kv.PartitionSet
	Released kv.PartitionSet // of those granted: what it held, and gives its entries of
	In       []kv.Process    // the members that it has in
	Head     uint64          // of its log, once what the answer ends has ended

	// Voter says that it answers as a voter. Authorities are the holders whose
	// AUTH for any of the partitions it has acknowledged within the last 2B.
	Voter       bool
	Authorities []Ownership
}

// Auth asks the voters for authority over what its sender holds, or is about to,
// by ballot. The answer is which partitions of each are acknowledged.
type Auth struct {
	Ownerships []Ownership
}

// Ownership is what is held, or claimed, under one ballot.
type Ownership struct {
	Ballot     *Ballot
	Partitions kv.PartitionSet
}

// Info is what each poll and each answer to one tells, beside what is for
// others (clocks, the log's head).
type Info struct {
	State  uint64 // counts the changes of what follows: what comes late is told from news
	Joined bool
	In     bool
	Weight uint32
	Leased bool // it has a lease on whom it tells, from a poll of its present process

	// Ballots are the highest that it has answered, changed since Seq, the last
	// that its peer said that it has; Next is what the peer says then.
	Ballots []Promise
	Next    uint64
	Have    uint64 // what it has of its peer's changes

	// Others is what it has heard of other members, where that has changed since the
	// count that its peer said that it has; OthersAt is the count now.
	Others     []Standing
	OthersAt   uint64
	OthersHave uint64 // what it has of its peer's changes of them
}

// Promise is a ballot that a node has answered, and for which partitions.
type Promise struct {
	Ballot     *Ballot
	Partitions []uint16 // ascending: few, where many nodes tell of many ballots
}

// Action is what a Machine wants done. The order matters: an ending comes
// before whatever may be answered after it.
type Action interface{ action() }

// Ended says that holdings have ended: it must be in the log before anything
// else is answered.
type Ended struct {
	Partitions kv.PartitionSet
	Why        string
}

// Retired says that holdings serve no more. They end later.
type Retired struct {
	Partitions kv.PartitionSet
	Why        string
}

// Begun says that holdings begin, each empty but for what the releasers have.
type Begun struct {
	Ballot     *Ballot
	Partitions kv.PartitionSet
	Releasers  map[kv.Process]kv.PartitionSet
	Heads      map[kv.Process]uint64 // of the logs of those who have answered
}

// Send asks for an Acquire to be sent; its Answer goes to Machine.Answered.
type Send struct {
	To      kv.Process
	Acquire Acquire
}

// SendAuth asks for an Auth to be sent; what is acknowledged goes to
// Machine.Authorized, with the number of the round.
type SendAuth struct {
	To    kv.Process
	Round uint64
	Auth  Auth
}

// RingChanged says that the table has changed.
type RingChanged struct{}

// StateChanged says that what the node tells of itself has changed.
type StateChanged struct {
	In  bool
	Why string
}

// WhyPaused is why a node is out that did not run for a while.
const WhyPaused = "paused"

// Died says that a member is held for dead, or that a later process has come under
// its name without a goodbye of this one.
type Died struct {
	ID      kv.Process
	Silence time.Duration // since it was last heard
	Again   bool          // another process has come in its place
}

func (Ended) action()        {}
func (Retired) action()      {}
func (Begun) action()        {}
func (Send) action()         {}
func (SendAuth) action()     {}
func (RingChanged) action()  {}
func (StateChanged) action() {}
func (Died) action()         {}
