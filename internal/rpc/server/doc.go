// Package server serves framed connections. Conn serves the requests of one, and Server accepts
// connections and shuts them down in order. Package rpc is the other side.
//
// Its inputs are byte streams and a Handler; its outputs are answers. The package reads only the
// length of a frame. The Handler gives the rest its meaning. A server may have another Framing, for
// the requests of another protocol.
//
// # A connection
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
// several tasks into one write. Or the handler begins it (Begin) and makes a call for it, which is
// written with the other calls of the batch (FlushLater). The reader of that call's connection then
// answers the request (Answer), with one write per connection for all answers that came in one read:
// no goroutine is needed, and two fewer are woken.
//
// Answers go out as they come. A protocol whose answers come in the order of the requests has the
// reader itself wait (Conn.Wait).
//
// # Parts
//
// Each part can be read alone:
//
//	outbox    the answers that wait to be written; which goroutine writes them
//	batch     what the reader has while it serves a batch (Conn.Out)
//	partFrame the frame that is not complete: its deadline, its memory
//	TimeSlice how long the reader serves without yielding its processor
//	turn      the reader's turn to copy a long value, or to serve on
//	replies   requests that have left the reader, and their answers (Conn.Run, Answer, Tell)
//	End       whether a client still waits for answers, for requests that have waited
//	Framing   where requests begin and end, and how they are told BUSY
//	acceptQueue  when new connections begin
//	spareListener what happens when there are no file descriptors
//
// # Bounds
//
// Every field of Limits is a bound. A connection with too many requests in flight is not
// read from. A connection whose peer takes no answers for WriteTimeout is closed. A frame
// that is not complete FrameTimeout after it began closes its connection.
//
// Memory that stays in use while something waits is charged to one quota.Budget, which shares
// it fairly. Such memory is: beginnings of frames, requests that wait, answers that are
// not read, what the kernel may keep of answers. The buffers of a batch that is being served are free
// of charge: they come from a pool and go back. If there is no memory for a frame, the
// frame is answered BUSY and the rest of it is dropped as it comes. If there is no memory
// for an answer, BUSY replaces the answer to a request that only reads; otherwise the
// connection ends.
package server
