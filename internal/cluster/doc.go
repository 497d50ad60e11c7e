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
// Every decision about ownership happens under one lock, which belongs to the driver. Its
// effects are carried out before the lock is released, so no reader sees an ownership
// that has ended. The other parts of a Node, each in a file of its name:
//
//	acquaintances             which of the processes that gossip tells of count
//	admission                 which messages count: clocks, refusals
//	roster, membership        the members, and how they come, go and are forgotten
//	isolation                 whether other nodes should be there and none answers
//	poller, ballots           what this node asks the members: POLL, ACQUIRE, AUTH
//	following, followers      the logs of the members, and this process's log for them
//	relay                     events in gossip
//	flusher, departure        FLUSH of the cluster, and an orderly leave
//	serve                     what the members ask this node
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
