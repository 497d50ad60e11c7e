// Package rpc is one framed connection's life, on either side. Conn serves
// requests, Client makes calls; Server accepts connections and ends them in
// order.
//
// Inputs are byte streams and a Handler, outputs are answers. What the frames
// mean is the Handler's business and the caller's; this package reads no more
// of a frame than its length and, for calls, its id.
//
// # A serving connection
//
// One goroutine, the reader, owns the connection:
//
//	wait until readable, holding no buffer      (an idle connection costs little)
//	read as much as there is, at most 64 KiB    one read syscall
//	tell the handler that a batch begins        it reads the clock, once
//	serve each whole frame; answers are appended to one buffer
//	write the buffer                            one write syscall
//
// A request that must wait leaves the reader in one of two ways. Conn.Go gives
// it a goroutine; its answer comes back through Conn.send, which joins answers
// of several tasks into one write. Conn.Start makes a call of a Client for it,
// which is written with the batch's other calls; whoever reads the Client's
// answers has the request answered, with one write a connection for all that
// came in one read. That takes no goroutine, and wakes two fewer.
//
// Over TLS (Secure) the same holds. What TLS has encrypted cannot be taken back, so
// what does not fit into the socket's buffer waits below it; that is one record of a
// write that does not wait, and no more.
//
// # Bounds
//
// Every Limits field is a bound. A connection over its requests in flight is
// not read from; one that takes nothing of its answers for WriteTimeout is closed;
// a frame that is not complete FrameTimeout after it began closes its
// connection.
//
// What stays in memory while something waits is taken from one Budget, which says
// who gets how much of it: the beginning of a frame, requests that wait, answers
// that are not read, answers of other hosts. What a batch needs while it is served
// is free: its buffers come from a pool and go back. A frame that finds no memory
// is answered BUSY, and the rest of it dropped as it comes; an answer that finds
// none gives way to BUSY where the request has only read, else the connection ends.
//
// # A calling connection
//
// Client gives each call a slot, writes what all callers have queued in one
// syscall, and has one goroutine that reads answers and tells each Caller.
package rpc
