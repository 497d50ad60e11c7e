// Package ownership decides which node owns which partition. Ring has the
// assigned owner of each partition. A node answers for a partition only while it owns
// it, and at most one node at a time can own a partition in such a way that its
// writes count.
//
// Machine is one node's part, a pure state machine. Inputs are members, messages and
// the time; outputs are messages, beginnings and endings of ownerships. It has no
// clock, does no I/O, starts no goroutine and takes no lock. Its driver calls one
// method at a time and carries out what TakeActions returns, in that order.
//
// # A member's life
//
//	joining  owns nothing; waits until it hears a member that has itself joined,
//	         or has found none for the detection time
//	out      joined, in no ring; grants what it is asked for. A member that has just
//	         come in waits for it until it knows that: see Machine.mustAnswer
//	in       says so once every member that is in has a lease on it, and it has
//	         a lease on each of them; other members take it into their ring once
//	         they have polled it
//
// A pause puts the node back to joining. A pause is a stall in the node's own boot clock,
// or several stalls that add up to one: see Machine.Stall.
//
// # A partition's life at one node
//
//	nothing ──ring names us──► acquiring ──all have answered──► owned
//	   ▲                           │ RETRY: wait, new ballot      │
//	   │                           ▼                              │ the ring names
//	   └──── another's ACQUIRE, a pause ◄─── retired ◄────────────┘ another, or a
//	                                                                higher ballot
//
// A retired ownership serves no request, but has not ended: no other node can own the
// partition yet. It ends when a node asks for the partition (ACQUIRE): that node gets the
// entries, the ownership is released. If none asks for some time, it ends without a
// successor: see Machine.retireFor.
//
// Under policy consistent, the answers of a majority of the voters are enough. An
// ownership that a majority no longer acknowledges ends too: see vote.go.
//
// The rules are those of internal/cluster/README.md, which argues why they suffice. Each
// rule was found necessary by running a model against it. Do not remove a rule
// because the tests pass without it.
package ownership
