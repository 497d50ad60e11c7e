// Package unixsock provides the socket that apps on the host connect to: its path, its
// access rights and the credentials of its peers.
//
// Inputs are a Config, or a path to connect to. Outputs are a Listener for a server.Server,
// with the credentials of each peer, and connections. The package starts no goroutine. It
// knows nothing about the messages on the connections.
package unixsock
