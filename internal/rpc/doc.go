// Package rpc runs framed connections. Conn serves requests, Client makes calls, and
// Server accepts connections and shuts them down in order.
//
// Its inputs are byte streams and a Handler; its outputs are answers. The package reads
// only the length of a frame and, for calls, its id. The Handler and the caller give the
// rest of the frame its meaning. A server may have another Framing, for the requests of another
// protocol; calls have none.
//
// # A serving connection
//
// One goroutine at a time, the reader, owns the connection:
//
//	wait until readable, without a buffer       (an idle connection costs little)
//	read what there is, at most 64 KiB          one read syscall
//	tell the handler that a batch begins        it reads the clock, once
//	serve each whole frame; answers are appended to one buffer
//	write the buffer                            one write syscall
//
// A request that must wait leaves the reader in one of two ways. Conn.Go starts a
// goroutine for it; the answer comes back through the outbox, which joins the answers of
// several tasks into one write. Conn.Start makes a call of a Client for it, which is
// written with the other calls of the batch. The reader of that Client then answers the
// request, with one write per connection for all answers that came in one read.
// Conn.Start needs no goroutine, and wakes two goroutines fewer.
//
// All of this holds over TLS too (Secure). Encrypted bytes cannot be taken back, so bytes that
// do not fit into the socket's buffer wait below TLS. A write that does not wait leaves
// at most one record there.
//
// Answers go out as they come. A protocol whose answers come in the order of the requests has the
// reader itself wait (Wait).
//
// # Parts
//
// Each part can be read alone:
//
//	socket    the bytes of one connection, plain or TLS, on either side
//	input     what has been read and not consumed, on either side; when to read and wait
//	outbox    what is to be written, on either side; which goroutine writes it
//	batch     what the reader has while it serves a batch (Conn.Out)
//	partFrame the frame that is not complete: its deadline, its memory
//	replies   requests that have left the reader, and their answers
//	End       whether a client still waits for answers, for requests that have waited
//	Framing   where requests begin and end, and how they are told BUSY
//	calls     of a Client: which caller waits for which answer
//	lead      of a Client: which goroutine reads
//	gathering of a Client: which goroutine writes what the callers of a batch of answers ask next
//	requests  of a Client: what is to be sent, in which order
//	send      the kernel's buffer for what a socket sends, and when an ended connection goes
//	pace      when new connections begin
//
// # Bounds
//
// Every Limits field is a bound. A connection with too many requests in flight is not
// read from. A connection whose peer takes no answers for WriteTimeout is closed. A frame
// that is not complete FrameTimeout after it began closes its connection.
//
// Memory that stays in use while something waits is charged to one quota.Budget, which shares
// it fairly. Such memory is: beginnings of frames, requests that wait, answers that are
// not read, answers of other hosts, what the kernel may keep of answers (sendBuffer). The
// buffers of a batch that is being served are free
// of charge: they come from a pool and go back. If there is no memory for a frame, the
// frame is answered BUSY and the rest of it is dropped as it comes. If there is no memory
// for an answer, BUSY replaces the answer to a request that only reads; otherwise the
// connection ends.
//
// # A calling connection
//
// Client gives each call a slot, writes the queued requests of all callers in one
// syscall, and has one goroutine that reads answers and tells each Caller the outcome. With
// ClientConfig.Direct a call that is alone on its connection reads its answer itself, and
// among few calls the caller that has read its answer lets another one read.
package rpc
