package ownership

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Acquire asks every member for a set of partitions.
type Acquire struct {
	Ballot     *kv.Ballot
	State      uint64 // of the asker, which is in
	Partitions kv.PartitionSet
	// Ring is the asker's ring. An owner grants a partition only if it knows all
	// of these processes.
	Ring []kv.Process
}

// Answer is a member's answer to an Acquire. A partition not in Granted is RETRY.
type Answer struct {
	Ballot   *kv.Ballot
	Granted  kv.PartitionSet
	Released kv.PartitionSet // granted partitions whose entries it gives
	Keeps    bool            // it leaves, and a later process may have these entries again
	// Passed are the partitions that it will never grant to this ballot, since it has
	// granted a higher one, although its ring gives them to the asker.
	Passed kv.PartitionSet
	In     []kv.Process // the members that it has in
	Head   uint64       // of its log, once what the answer ends has ended

	// Voter means that the member answers as a voter. Authorities are then the owners
	// whose AUTH for any of the partitions it has acknowledged within the last
	// 2B. Without voters they are the ballots under which the member itself has last owned
	// what it grants.
	Voter       bool
	Authorities []Ownership
}

// Auth asks the voters for authority over what its sender owns, or is about to own,
// by ballot. The answer is the set of acknowledged partitions of each.
type Auth struct {
	Ownerships []Ownership
}

// Ownership is what is owned, or claimed, under one ballot.
type Ownership struct {
	Ballot     *kv.Ballot
	Partitions kv.PartitionSet
}

// Action is what a Machine wants done. The order matters: an ending comes before any
// answer that may follow it.
type Action interface{ action() }

// Ended says that ownerships have ended. That must be in the log before anything else
// is answered.
type Ended struct {
	Partitions kv.PartitionSet
	Released   kv.PartitionSet // those of which the successor gets the entries
	Why        string
}

// Retired says that ownerships no longer serve. They end later.
type Retired struct {
	Partitions kv.PartitionSet
	Why        string
}

// Begun says that ownerships begin, each empty except for the releasers' entries.
type Begun struct {
	Ballot     *kv.Ballot
	Partitions kv.PartitionSet
	Releasers  map[kv.Process]kv.PartitionSet
	Keepers    map[kv.Process]bool   // those of them that keep the entries for a later process
	Heads      map[kv.Process]uint64 // of the logs of the members that have answered
}

// ReleasedBy returns how many processes have released a partition.
func (b *Begun) ReleasedBy(p uint16) (n int) {
	for _, set := range b.Releasers {
		if set.Has(p) {
			n++
		}
	}
	return n
}

// Send asks for an Acquire to be sent. Its Answer goes to Machine.Answered.
type Send struct {
	To      kv.Process
	Acquire Acquire
}

// SendAuth asks for an Auth to be sent. What is acknowledged goes to
// Machine.Authorized, with the number of the round.
type SendAuth struct {
	To    kv.Process
	Round uint64
	Auth  Auth
}

// RingChanged says that the table has changed.
type RingChanged struct{}

// StateChanged says that what the node tells about itself has changed.
type StateChanged struct {
	In  bool
	Why string
}

// WhyPaused is the reason given if a node is out because it did not run for a while.
const WhyPaused = "paused"

// Died says that a member is considered dead, or that a later process has come under
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
