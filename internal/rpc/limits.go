package rpc

import (
	"cmp"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Limits bounds what connections may take. Zero means the default.
type Limits struct {
	MaxConns     int           // connections at once; one more is closed at once. Default 16,384
	MaxFrame     int           // bytes of a request. Default 8 MiB + 64 KiB
	MaxInFlight  int           // requests of one connection that wait; then it is not read from. Default 1,024
	FrameTimeout time.Duration // for a frame that has begun. Default 30 s
	WriteTimeout time.Duration // for a peer that takes no answers. Default 10 s
	DrainTimeout time.Duration // for requests in flight at a shutdown. Default 5 s
	InBudget     int64         // bytes of frames beyond 64 KiB, all connections. Default 64 MiB
	OutBudget    int64         // bytes of answers beyond 64 KiB, all connections. Default 64 MiB
}

// DefaultLimits are what zero means.
var DefaultLimits = Limits{
	MaxConns:     16_384,
	MaxFrame:     8<<20 + 64<<10,
	MaxInFlight:  1024,
	FrameTimeout: 30 * time.Second,
	WriteTimeout: 10 * time.Second,
	DrainTimeout: 5 * time.Second,
	InBudget:     64 << 20,
	OutBudget:    64 << 20,
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits
	l.MaxConns = cmp.Or(l.MaxConns, d.MaxConns)
	l.MaxFrame = cmp.Or(l.MaxFrame, d.MaxFrame)
	l.MaxInFlight = cmp.Or(l.MaxInFlight, d.MaxInFlight)
	l.FrameTimeout = cmp.Or(l.FrameTimeout, d.FrameTimeout)
	l.WriteTimeout = cmp.Or(l.WriteTimeout, d.WriteTimeout)
	l.DrainTimeout = cmp.Or(l.DrainTimeout, d.DrainTimeout)
	l.InBudget = cmp.Or(l.InBudget, d.InBudget)
	l.OutBudget = cmp.Or(l.OutBudget, d.OutBudget)
	// A budget that cannot hold one frame would block it for ever.
	l.InBudget = max(l.InBudget, int64(l.MaxFrame)+wire.LengthSize)
	l.OutBudget = max(l.OutBudget, int64(l.MaxFrame))
	return l
}

// smallBuffer is how much a connection reads at once, and the longest answer
// that is free of the budget, in bytes.
const smallBuffer = 64 << 10

// Stats counts what happened to a server's connections.
type Stats struct {
	Open          int64 // connections now
	Accepted      int64
	Rejected      int64 // beyond MaxConns, or refused by the handler
	SlowReaders   int64 // closed because they took no answers
	SlowFrames    int64 // closed because a frame was not completed
	BadFrames     int64 // closed because of a frame that is too long or empty
	Batches       int64 // reads that brought something
	BytesIn       int64
	BytesOut      int64
	InFlight      int64 // requests that wait now
	InBudgetUsed  int64
	OutBudgetUsed int64
}

// shared is what the connections of one server have in common.
type shared struct {
	limits Limits
	in     budget
	out    budget

	open, accepted, rejected           atomic.Int64
	slowReaders, slowFrames, badFrames atomic.Int64
	batches, bytesIn, bytesOut         atomic.Int64
	inFlight                           atomic.Int64
}

// budget is a bound on memory that many connections share.
type budget struct {
	sem  *semaphore.Weighted
	used atomic.Int64
}

func newShared(l Limits) *shared {
	l = l.withDefaults()
	return &shared{
		limits: l,
		in:     budget{sem: semaphore.NewWeighted(l.InBudget)},
		out:    budget{sem: semaphore.NewWeighted(l.OutBudget)},
	}
}

func (s *shared) stats() Stats {
	return Stats{
		Open: s.open.Load(), Accepted: s.accepted.Load(), Rejected: s.rejected.Load(),
		SlowReaders: s.slowReaders.Load(), SlowFrames: s.slowFrames.Load(), BadFrames: s.badFrames.Load(),
		Batches: s.batches.Load(), BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(),
		InFlight: s.inFlight.Load(), InBudgetUsed: s.in.used.Load(), OutBudgetUsed: s.out.used.Load(),
	}
}
