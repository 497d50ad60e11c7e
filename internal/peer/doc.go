// Package peer is what passes between sidecars: connections to other nodes, a
// server for theirs, and the greeting that both begin with.
//
// Inputs are addresses and requests, outputs are answers; what the requests
// mean is for those who send and serve them. Frames and connections are those
// of the socket (wire, rpc), over TCP.
//
// A node keeps two connections to each other one: "poll" carries what leases,
// holdings and invalidations depend on, and never a value, so that a large one
// cannot delay them; "call" carries the rest. There is one connection a
// direction and purpose: a new one from a node replaces the older.
//
// The greeting refuses who speaks no common version, belongs to another
// cluster, has other cluster-wide settings, or whose clock is off; the message
// names both values.
//
// Goroutines: those of rpc, one a connection. They end with Server.Serve and
// Pool.Close.
package peer
