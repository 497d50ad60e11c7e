package server

import (
	"errors"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// Handler serves the requests of one connection. The connection's reader calls all
// methods, one at a time.
type Handler interface {
	// Batch is called when bytes have come in, before their frames are served. Served is
	// called when the answers have been written.
	Batch()
	Served()
	// Serve answers at most MaxServe frames: it appends whole frames to c.Out, or hands
	// requests on to c.Go. The bytes of frames are valid until it returns. It keeps c.Out
	// below 64 KiB with Flush and Grow. An error ends the connection after c.Out has been
	// written.
	Serve(c *Conn, frames [][]byte) error
	// Oversized appends the answer to a frame that is longer than allowed, of which only
	// the beginning was read. The connection is closed after it.
	Oversized(c *Conn, beginning []byte, length int, why error)
	// Gone is called once, when no more requests come. Requests may still be under way.
	Gone()
	// Close is called once, when the connection has ended.
	Close(err error)
}

// MaxServe is the greatest number of frames in one call of Handler.Serve.
const MaxServe = 32

// Errors that end a connection.
var (
	ErrSlowReader = errors.New("the peer does not take its answers in time")
	ErrSlowFrame  = errors.New("the peer does not complete its frame")
	ErrFrame      = errors.New("the frame's length is out of bounds")
	errClosing    = errors.New("shutting down")
	errKilled     = errors.New("this host has ended it")
)

// Conn is a serving connection. Its reader is one goroutine: see serve. The reader and
// the handler, which the reader calls, use the fields; other goroutines use socket, outbox
// and replies only, and the atomic fields.
type Conn struct {
	// Out is what the reader will write. The handler appends answers to it in Serve.
	Out []byte

	server  *shared
	handler Handler
	socket  transport.Socket
	input   transport.Input
	frame   partFrame
	turn    turn
	batch   batch
	outbox  outbox
	replies replies
	lost    error // the reader's own: why an answer could not be written

	batches atomic.Uint32 // so far
	swept   uint32        // batches at the server's last sweep; the sweep's own

	account  *quota.Account
	longest  int // bytes of a request: see Admit
	closing  atomic.Bool
	squeezed atomic.Bool // ended because others need the memory of its answers
}

// Own moves the connection's account to its owner, once the owner is known. The reader
// calls it, before any request waits.
func (c *Conn) Own(owner, process string) { c.account.Move(owner, process) }

// Admit raises the longest request from Limits.MaxFirst to Limits.MaxFrame. The handler
// calls it.
func (c *Conn) Admit() { c.longest = c.server.limits.MaxFrame }

// Kill ends the connection without waiting for its reader. Any goroutine may call it.
// Answers that are not yet written may be lost.
func (c *Conn) Kill() { c.socket.Kill() }
