// Package cluster is this process's part in the cluster. It drives the state machine of
// package ownership with gossip, polls and time. It tells the tiers above, at any
// moment and for the cost of an atomic load, which partitions this node owns and which
// nodes own the others.
//
// Inputs are the messages of other sidecars and the clock. Outputs are the current
// View, the ownership epoch of each partition, and calls of Delegate when ownerships begin
// and end. Requests for keys of other nodes go through Do.
//
// A node without an address for others is alone. It runs the same machine without other
// members, and owns every partition as soon as New returns.
//
// Every decision about ownership happens under one lock, which belongs to the driver, and
// its effects are carried out before the lock is released. So no reader sees an ownership
// that has ended. The floors of the package, from the lowest, by their files:
//
//	view, member, isolation,           what is known of the owners and members, of the
//	certificates, handover             feeds, and of this node's handover
//	state, effects                     all of that with the machine, and what follows from it
//	driver, pause                      the lock, time, and stalls
//	acquaintances, admission           which processes and which messages count
//	poller, ballots                    what this node asks the members: POLL, ACQUIRE, AUTH
//	following, followers, relay        the logs of the members, of this process, and gossip's events
//	flush, leave                       FLUSH of the cluster, and an orderly leave
//	watch, forget                      how members come, go and are forgotten
//	node, serve, run, compose          the whole: its methods, what the members ask it, its life
//
// Goroutines, all ended by Run:
//
//   - a ticker (every B/16) and a check for pauses;
//   - one that watches gossip, one that relays events by gossip, and gossip's own;
//   - one that greets unknown processes, and one for each such greeting (at most 32);
//   - for each member one poller (every B/4) and one that follows its log;
//   - one that answers all followers when there are events, and one that answers them
//     after B/4 without events;
//   - those of the peer server;
//   - one for each ACQUIRE and AUTH in flight, at most 4 and 8 per member.
package cluster
