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
// With Credentials all connections are TLS 1.3, and both sides show a certificate
// that has the node's name. Every message that names its sender is held to the
// process that was greeted (see Read). When credentials change, connections are
// replaced without a call that fails (see Pool.Renew).
//
// Strangers, which have not been greeted, are bounded in number, rate, time and
// bytes (see door).
//
// The greeting refuses who speaks no common version, belongs to another
// cluster, has other cluster-wide settings, or whose clock is off; the message
// names both values.
//
// Goroutines: those of rpc, one a connection; one that accepts, one a handshake, and
// those of a renewal. They end with Server.Serve and Pool.Close.
package peer
