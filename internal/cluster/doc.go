// Package cluster is this process's part in the cluster: it drives the state
// machine of package holding with gossip, polls and time, and tells the tiers
// above, at any moment and at the cost of an atomic load, which partitions this
// node holds and who owns the others.
//
// Inputs are the other sidecars' messages and the clock. Outputs are the
// current View, the generation of each holding, and calls of Tiers, for which
// holdings begin and end. Requests for other nodes' keys go through Do.
//
// A node without an address for others is alone: the same machine, with nobody
// to ask, holds every partition from New on.
//
// Everything that decides who holds what happens under one lock, and what it
// brings about is carried out before that lock is released: nobody sees a
// holding that has ended.
//
// Goroutines, all of them ended by Run: a ticker (every B/16), one that watches
// gossip, one poller a member (every B/4) and one that follows its log, one that
// answers all followers and one that does so where nothing has come for B/4,
// gossip's, the peer server's, and one for each ACQUIRE under way, of which there
// are at most four a member.
package cluster
