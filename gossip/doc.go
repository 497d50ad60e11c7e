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
// (every RejoinEvery or so: the join addresses, looked up anew, and the members
// that it remembers); a process that took the place of another before anybody
// missed that one is found out by the answers to probes; a name comes back under
// a new address as soon as its old process is held for dead; two processes of
// one name are reported; datagrams are passed on by those that get them.
//
// # Strangers
//
// Without keys anybody who reaches the port is heard, and may say that it is, or
// that another one is, a member. So between the network and memberlist stands a
// filter, which passes on only what members send, in the sizes and numbers in which
// they send it. And a process that was not met elsewhere, as Config.Known has it, is
// kept apart: Unknown lists some of those, and memberlist never hears of them, so it
// does not probe them, and tells nobody.
//
// # How long it takes
//
// Measured in virtual time, on a network without loss, until all others know
// it (tests hold the limits):
//
//	a node is killed, of 10 or fewer      2 to 3.5 s, 2.4 s on average
//	                  of 100              3.6 to 5.2 s
//	half of 10 are killed                 3 to 7 s
//	a node leaves, or changes its meta    0.1 s; of 100, 0.2 s
//	100 nodes start at once               0.6 s
//	a restart at the same address         0.1 s; 1.5 s if it joins nobody
//	a restart elsewhere, after kill -9    2 to 4 s, and 4 to 6 s of 100: when the
//	                                      old process is held for dead
//	a split heals                         1.5 times RejoinEvery at most, 1 s on
//	                                      average; where names are slow to
//	                                      resolve or addresses do not answer,
//	                                      4 s more
//	a node is cut off from 9 others       34 s until it misses them all: who
//	                                      hears nobody doubts itself, and probes
//	                                      more slowly
//
// With memberlist's own settings for a LAN a killed node is known to be dead
// after 6 to 11 s. That gossip calls a node dead is a hint. Whoever must be sure
// waits for more (package l2/ownership).
//
// Goroutines: memberlist's own, two of the filter, until Close, and three of Run's, with one for each address of a
// round of joins; those end with Run. memberlist does not wait for its own when
// it shuts down; they end within 4 s, mostly at once.
package gossip
