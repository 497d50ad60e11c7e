// Package holding says who holds what. The ring says who should own a
// partition; a node answers for it only while it holds it, and at most one node
// at a time can hold a partition in such a way that its writes count.
//
// Machine is one node's part, as a pure state machine: members, messages and
// the time go in; messages, beginnings and endings come out. It has no clock,
// does no I/O, starts no goroutine and takes no lock; whoever drives it calls
// one method at a time and carries out what Take returns, in its order.
//
// # A member's life
//
//	start    holds nothing; waits until it hears a member that has itself joined,
//	         or has found none for the detection time
//	out      joined, in no ring, blocks nobody
//	in       says so once every member that is in has a lease on it, and it has
//	         one on each; others take it into their ring once they have polled it
//
// A pause, a gap in the node's own boot clock or several that add up to one, puts
// it back to start: see Machine.Gap.
//
// # A partition's life at one node
//
//	nothing ──ring names us──► acquiring ──all have answered──► held
//	   ▲                           │ RETRY: wait, new ballot      │
//	   │                           ▼                              │ the ring names
//	   └────── another's ACQUIRE, a pause ◄── retired ◄───────────┘ another, or a
//	                                                                higher ballot
//
// Under policy consistent a majority of the voters stands in for all, and what it
// does not acknowledge any more ends too: see vote.go.
//
// The rules are those of docs/CONSISTENCY.md, where the argument stands why
// they suffice. Each was found necessary by running a model against it; none
// may go because a test stays green without it.
package ownership
