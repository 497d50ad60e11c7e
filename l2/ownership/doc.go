// Package ownership decides which node owns which partition. Ring has the
// assigned owner of each partition. A node answers for a partition only while it owns
// it, and at most one node at a time can own a partition in such a way that its
// writes count.
//
// Machine is one node's part, a pure state machine. Inputs are members, messages and
// the time; outputs are messages, beginnings and endings of ownerships. It has no
// clock, does no I/O, starts no goroutine and takes no lock. Its driver calls one
// method at a time and carries out what Drain returns, in that order.
//
// # A member's life
//
//	start    owns nothing; waits until it hears a member that has itself joined,
//	         or has found none for the detection time
//	out      joined, in no ring; grants what it is asked for. A member that has just
//	         come in waits for it until it knows that: see Machine.counts
//	in       says so once every member that is in has a lease on it, and it has
//	         a lease on each of them; other members take it into their ring once
//	         they have polled it
//
// A pause puts the node back to start. A pause is a gap in the node's own boot clock,
// or several gaps that add up to one: see Machine.Gap.
//
// # A partition's life at one node
//
//	nothing ──ring names us──► acquiring ──all have answered──► owned
//	   ▲                           │ RETRY: wait, new ballot      │
//	   │                           ▼                              │ the ring names
//	   └──── another's ACQUIRE, a pause ◄─── retired ◄────────────┘ another, or a
//	                                                                higher ballot
//
// Under policy consistent, the answers of a majority of the voters are enough. An
// ownership that a majority no longer acknowledges ends too: see vote.go.
//
// The rules are those of internal/cluster/README.md, which argues why they suffice. Each
// rule was found necessary by running a model against it. Do not remove a rule
// because the tests pass without it.
package ownership
