// Package session turns the requests of one connection into answers.
//
// Input is the batches of frames that server.Conn has read, and the caller or the sidecar at
// the other end. Output is the answers, appended to the connection's buffer, and one
// count for each request. Requests that name the same key are answered in the order in
// which they were sent.
//
// A Session belongs to its connection's reader, which answers in place what this host can
// answer without waiting. Another request becomes a Pending. A GET of another host's key, and a
// LEASE that waits here, then need no goroutine; every other Pending has a goroutine of its own, and
// deadlines bound its wait. When a connection ends, one more goroutine gives back the lease tokens
// that its client has not used. Package endpoint has a Session execute the requests of another
// protocol.
//
// The package does not read or write sockets (package server), and does not decide how a
// request is answered (package engine) or what a caller may do (package access).
package session
