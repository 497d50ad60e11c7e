// Package unixsock is the socket that apps on the host connect to: where it
// lies, who may open it, who is at its other end.
//
// Input is a Config, or a path to connect to; outputs are a Listener for an rpc.Server
// with the credentials of each peer, and connections. It starts no goroutine. It knows nothing of the
// messages that pass.
package unixsock
