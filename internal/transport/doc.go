// Package transport reads and writes the bytes of one connection, for both its sides: package
// rpc calls over it, package server serves.
//
// Its inputs are a net.Conn, plain or TLS (Secure), and an account for memory. Its outputs are the
// bytes that have come, in batches (Input), and writes that wait or do not (Socket). Where a request
// or an answer ends is not its business.
//
//	Socket   writes, and the ends of a connection
//	Input    what has been read and not consumed; when to read and when to wait
//	Secured  TLS that behaves like a plain connection: a write takes what there is room for
//	UserOf   the user at the other end of a connection over TCP, if that is on this host
//	Answers  the connections that are written to once a batch has been read
//
// An idle connection waits without a buffer. A batch is one read, and the next read comes once it has
// been served. What the kernel keeps of the bytes sent is memory of this process too: BoundSend
// charges it.
//
// The package has no goroutines. One goroutine at a time reads, and one writes.
package transport
