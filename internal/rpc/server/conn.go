package server

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/sched"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// Handler serves the requests of one connection. The connection's reader calls all methods, one at a time.
type Handler interface {
	// Batch is called when bytes have come in, before their frames are served. Served is
	// called when the answers have been written.
	Batch()
	Served()
	// Serve answers at most MaxFrames frames: it appends whole frames to c.Out, or hands requests on to c.Go. The
	// bytes of frames are valid until it returns. It keeps c.Out below 64 KiB with Flush and Grow. An error ends the
	// connection after c.Out has been written.
	Serve(c *Conn, frames [][]byte) error
	// Oversized appends the answer to a frame that is longer than allowed, of which only
	// the beginning was read. The connection is closed after it.
	Oversized(c *Conn, beginning []byte, length int, why error)
	// Gone is called once, when no more requests come. Requests may still be under way.
	Gone()
	// Close is called once, when the connection has ended.
	Close(err error)
}

// MaxFrames is the greatest number of frames in one call of Handler.Serve.
const MaxFrames = 32

// Errors that end a connection.
var (
	ErrSlowReader = errors.New("the peer does not take its answers in time")
	ErrSlowFrame  = errors.New("the peer does not complete its frame")
	errClosing    = errors.New("shutting down")
	errKilled     = errors.New("this host has ended it")
)

// Conn is a serving connection. Its reader is one goroutine: see serve. The reader calls the handler.
type Conn struct {
	// The reader's own, and its handler's; what of input and frame others may use says so.
	Out     []byte // what the reader will write; the handler appends answers to it in Serve
	handler Handler
	input   transport.Input
	frame   partFrame
	batch   batch
	turn    turn
	slice   sched.TimeSlice
	longest int   // bytes of a request: see AllowMaxFrame
	lost    error // why an answer could not be written

	// Any goroutine's.
	server  *shared
	account *quota.Account
	socket  transport.Socket
	outbox  outbox
	replies // Run, Long, Answer, Tell and While

	closing    atomic.Bool // the server ends, and the reader is to
	overBudget atomic.Bool // ended because others need the memory of its answers

	batches      atomic.Uint32 // so far
	sweptBatches uint32        // batches at the server's last sweep; the sweep's own
}

// Hold charges n bytes for a request that waits, until Free. An error means that there is no memory.
func (c *Conn) Hold(n int) error { return c.account.Take(quota.ForRequests, int64(n)) }

// Free gives back n bytes of Hold.
func (c *Conn) Free(n int) { c.account.Give(quota.ForRequests, int64(n)) }

// Account returns the account of the connection.
func (c *Conn) Account() *quota.Account { return c.account }

// AllowMaxFrame raises the longest request from Limits.MaxFirstFrame to Limits.MaxFrame. The handler calls it.
func (c *Conn) AllowMaxFrame() { c.longest = c.server.limits.MaxFrame }

// Kill ends the connection without waiting for its reader. Any goroutine may call it. Answers that are
// not yet written may be lost, and those in Out are, if the reader calls it.
func (c *Conn) Kill() { c.socket.Kill() }

// Limits bounds the resources of connections. Zero means the default.
type Limits struct {
	// MaxConns bounds the connections at once; one more is closed at once. Default 16,384.
	MaxConns int
	// NewRate bounds the new connections of one tenant a second, after the first 128; more wait. Default: no bound.
	NewRate float64
	// Framing finds the requests in what connections send. Default: that of package wire.
	Framing Framing
	// SendBuffer is the size that the kernel's buffer for answers begins with, in bytes; see
	// transport.Socket.BoundSend. Default: the system's, which the budget does not bound.
	SendBuffer int
	// MaxFrame bounds the bytes of a request. Default 8 MiB + 64 KiB.
	MaxFrame int
	// MaxFirstFrame bounds the bytes of a request before Conn.AllowMaxFrame. Default MaxFrame.
	MaxFirstFrame int
	// MaxInFlight bounds the requests of one connection that wait. A connection with so
	// many is not read from. Default 1,024.
	MaxInFlight int
	// FrameTimeout is the time for a frame that has begun. Default 30 s.
	FrameTimeout time.Duration
	// WriteTimeout is how long a peer may take nothing of its answers. Default 10 s.
	WriteTimeout time.Duration
	// DrainTimeout is the time for requests in flight at a shutdown. Default 5 s.
	DrainTimeout time.Duration
	// Budget bounds the memory; several servers and clients may share it. Default: a Budget for this server alone.
	Budget *quota.Budget
}

// DefaultMaxConns is the default of Limits.MaxConns.
const DefaultMaxConns = 16_384

func (l Limits) withDefaults() Limits {
	l.MaxConns = cmp.Or(l.MaxConns, DefaultMaxConns)
	l.MaxFrame = cmp.Or(l.MaxFrame, 8<<20+64<<10)
	l.MaxFirstFrame = cmp.Or(l.MaxFirstFrame, l.MaxFrame)
	l.MaxInFlight = cmp.Or(l.MaxInFlight, 1024)
	l.FrameTimeout = cmp.Or(l.FrameTimeout, 30*time.Second)
	l.WriteTimeout = cmp.Or(l.WriteTimeout, 10*time.Second)
	l.DrainTimeout = cmp.Or(l.DrainTimeout, 5*time.Second)
	if l.Budget == nil {
		l.Budget = quota.NewBudget(0)
	}
	return l
}

// Stats describes the connections of a server, and the memory of its Budget.
type Stats = cachesidecar.ConnectionStats

// shared is what the connections of one server have in common.
type shared struct {
	limits     Limits
	framing    Framing         // limits.Framing, or its default
	maxConns   atomic.Int64    // limits.MaxConns, as it is now
	turns      atomic.Int64    // ended without a rest; for tests
	arrivals   *groupLimiter   // beginnings of all connections
	departures *groupLimiter   // ends of all connections
	over       context.Context // ends when the server begins to end
	end        func()

	open, accepted, rejected           atomic.Int64
	slowReaders, slowFrames, badFrames atomic.Int64
	overBudget, dropped                atomic.Int64
	batches, bytesIn, bytesOut         atomic.Int64
	inFlight                           atomic.Int64
}

func newShared(l Limits) *shared {
	s := &shared{
		limits:     l.withDefaults(),
		arrivals:   newGroupLimiter(arrivalRate, arrivalBurst),
		departures: newGroupLimiter(PerProcessor(departureRate), departureBurst),
	}
	s.over, s.end = context.WithCancel(context.Background())
	if s.framing = l.Framing; s.framing == nil {
		s.framing = prefixed{}
	}
	s.maxConns.Store(int64(s.limits.MaxConns))
	return s
}

func (sh *shared) stats() Stats {
	return Stats{
		Open: sh.open.Load(), Accepted: sh.accepted.Load(), Rejected: sh.rejected.Load(),
		SlowReaders: sh.slowReaders.Load(), SlowFrames: sh.slowFrames.Load(), BadFrames: sh.badFrames.Load(),
		OverBudget: sh.overBudget.Load(), Dropped: sh.dropped.Load(),
		Batches: sh.batches.Load(), BytesIn: sh.bytesIn.Load(), BytesOut: sh.bytesOut.Load(),
		InFlight: sh.inFlight.Load(),
	}
}

// ended says whether the server has begun to end.
func (sh *shared) ended() bool { return sh.over.Err() != nil }
