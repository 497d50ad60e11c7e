// Package gossip finds the other sidecars and tells which of them live: SWIM
// membership over hashicorp/memberlist, with each node's meta, and opaque
// datagrams for others to carry what they like.
//
// Inputs are the addresses to join, this node's meta and datagrams; outputs are
// the members as they are now, a channel that says when to look again, and the
// datagrams of others. Members is a state, not a queue of events: whoever is
// slow misses what lies between, never what is.
//
// What memberlist does not do by itself, and this package adds: a node that
// found nobody, or was cut off until it was forgotten, tries again for ever
// (every RejoinEvery or so: the join addresses and the members that it
// remembers); a name comes back under a new address as soon as its old process
// is known to be dead; two processes of one name are reported.
//
// That gossip calls a node dead is a hint. Whoever must be sure waits for more
// (package l2/holding).
//
// Goroutines: memberlist's own, and two of Run's, which end with Run.
// memberlist does not wait for its own when it shuts down; they end within a
// second or two.
package gossip
