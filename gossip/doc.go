// Package gossip finds the other sidecars and tells which of them live. It is SWIM
// membership over hashicorp/memberlist, with each node's meta, and with opaque
// payloads that other packages fill.
//
// Inputs are the addresses to join, this node's meta and payloads. Outputs are the
// present members, a channel that says when to look again, and the payloads of other
// nodes. Members is a state, not a queue of events: a slow reader misses intermediate
// states, but never the present one.
//
// This package adds what memberlist does not do by itself:
//
//   - A node that found no other node, or was cut off until it was forgotten, tries again
//     for ever (about every 5 s: the join addresses, looked up anew, and the
//     members that it remembers).
//   - A process that took the place of another before that one was missed is detected by
//     the answers to probes.
//   - A name comes back under a new address as soon as its old process is considered
//     dead.
//   - Two processes of one name are reported.
//   - Each node passes on the payloads that it gets.
//
// # Strangers
//
// With keys memberlist refuses what no member has encrypted. A filter before it bounds what
// memberlist reads before that, and drops what memberlist would panic at.
//
// Without keys, any process that reaches the port is heard, and memberlist does what the
// messages say: it may miss nodes that live, take any amount of memory, and send packets to
// any address. The filter still bounds packets, and the bytes, time and number of streams.
//
// In both cases memberlist hears only of processes that count elsewhere (see Config.Known):
// it does not probe others, and tells no node about them.
//
// # How long it takes
//
// Measured in virtual time, on a network without loss, until all other nodes know it
// (tests check the limits):
//
//	a node is killed, of 10 or fewer      2 to 3.5 s, 2.4 s on average
//	                  of 100              3.6 to 5.2 s
//	half of 10 are killed                 3 to 7 s
//	a node leaves, or changes its meta    0.1 s; of 100, 0.2 s
//	100 nodes start at once               0.6 s
//	a restart at the same address         0.1 s; 1.5 s if it joins no node
//	a restart elsewhere, after kill -9    2 to 4 s, and 4 to 6 s of 100: when the
//	                                      old process is considered dead
//	a split heals                         7.5 s at most, 1 s on average; 4 s more if
//	                                      names are slow to resolve or addresses
//	                                      do not answer
//	a node is cut off from 9 others       34 s until it misses them all: a node
//	                                      that hears no other doubts itself, and
//	                                      probes more slowly
//
// With memberlist's own settings for a LAN, a killed node is known to be dead after 6
// to 11 s. A report by gossip that a node is dead is a hint. Code that must be sure waits
// longer (package l2/ownership).
//
// Goroutines: memberlist's own; two of the transport, until Close; and two of Run,
// plus one for each address of a round of joins, which end with Run. memberlist does
// not wait for its own goroutines when it shuts down; they end within 4 s, mostly at
// once.
package gossip
