// Package session turns the requests of one connection into answers.
//
// Input is the batches of frames that server.Conn has read, and the caller or the sidecar at
// the other end. Output is the answers, appended to the connection's buffer, and one
// count for each request.
//
//	Session  executes the requests of a connection, whatever its protocol, and counts them
//	Waiting  a request that cannot be answered in place
//	Handler  speaks the socket's protocol, with an app or another sidecar
//	Pending  a request of a Handler that waits
//	Sessions  makes them
//
// All of it belongs to the connection's reader, which answers in place what this host can
// answer without waiting. Requests that name the same key are answered in the order in
// which they were sent. What can wait in the engine does (engine.Wait);
// every other Pending has a goroutine of its own, and deadlines bound its wait. When a connection
// ends, one more goroutine gives back the lease tokens that its client has not used.
//
// The package does not read or write sockets (package server), and does not decide how a
// request is answered (package engine) or what a caller may do (package access).
package session
