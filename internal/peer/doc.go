// Package peer connects sidecars: it has the connections to other nodes, the server for
// connections from other nodes, and the greeting that begins each connection.
//
// Inputs are addresses and requests; outputs are answers. The package does not know
// what the requests mean: that is up to the packages that send and serve them. Frames
// and connections are those of the app socket (wire, rpc, server), over TCP.
//
// A node keeps two connections to each other node. "poll" carries what leases,
// ownership and invalidations depend on; it never carries a value, so a large value
// cannot delay them. "call" carries the rest. There is one connection for each
// direction and purpose: a new connection from a node replaces the older one.
//
// With Credentials all connections are TLS 1.3, and both sides show a certificate that
// has the node's name. A message that names its sender must name the process that was
// greeted (see Read). When credentials change, connections are replaced and no call
// fails (see Pool.Renew).
//
// Strangers, which are connections before their greeting, are limited in number, rate,
// time and bytes (see door).
//
// The greeting refuses a node that has no common version, belongs to another cluster,
// has other cluster-wide settings, or whose clock is off. The error message names both
// values.
//
// Goroutines: those of rpc and server, one per connection; one that accepts; one per handshake;
// and those of a renewal. They end with Server.Serve and Pool.Close.
package peer
