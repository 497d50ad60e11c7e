// Package rpc makes calls over a framed connection. Client is a connection, Redialer keeps one.
// Package server is the other side.
//
// Its inputs are a connection and requests of package wire; its outputs are answers. The package reads
// only the length of an answer and its id. The caller gives the rest its meaning.
//
// Client gives each call a slot, writes the queued requests of all callers in one syscall, and has
// one goroutine that reads answers and tells each Caller the outcome. With ClientConfig.Direct a call
// that is alone on its connection reads its answer itself, and among few calls the caller that has
// read its answer lets another one read. Do waits for an answer; Start and Flush make many calls and
// have a Caller told, which may answer requests of other connections (transport.Answers).
//
// # Parts
//
// Each part can be read alone:
//
//	calls          which caller waits for which answer
//	expiry         the one timer of all calls
//	requests       what is to be sent, in which order
//	writeDeadline  how long a write of requests may take
//	leader         which goroutine reads
//	writeGatherer  which goroutine writes what the callers of a batch of answers ask next
//
// # Bounds
//
// Every field of ClientConfig is a bound. Requests that wait and answers that are long are charged to
// a quota.Budget. If there is no memory for an answer, it is dropped as it comes, and its caller is
// told ErrNoRoom.
//
// # Goroutines
//
// A Client has a reader, a timer, and now and then a writer and gatherers. All end with the
// connection; Close waits for them.
package rpc
