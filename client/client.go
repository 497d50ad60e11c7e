package client

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Client is a client of the sidecar on this host.
type Client struct {
	*shared
	namespace []byte // nil: the connections' default
	near      nearView
	place     atomic.Pointer[place] // of the namespace in the shared memory; nil: not looked for
}

// shared is the state that all views of a Client share.
type shared struct {
	cfg   Config
	slots []*slot
	clock kv.Clock
	turn  atomic.Uint32
	seed  maphash.Seed
	loads loads

	// movesAt is when the sidecar last said that it closes, on the boot clock, in ns; zero: never. It tells
	// only those that are connected.
	movesAt atomic.Int64

	memory memory
	hits   *hits

	closed context.Context
	close  context.CancelFunc
	tasks  sync.WaitGroup // of the near cache and of loads
}

// slotFor returns the slot of a key. Calls of one key share a slot, so that they keep
// their order.
func (s *shared) slotFor(key []byte) *slot {
	if len(s.slots) == 1 {
		return s.slots[0]
	}
	return s.slots[maphash.Bytes(s.seed, key)%uint64(len(s.slots))]
}

func (s *shared) anySlot() *slot { return s.slots[int(s.turn.Add(1))%len(s.slots)] }

// beginTask runs f on a new goroutine, with the values of ctx. The context of f ends with
// Close at the latest.
func (s *shared) beginTask(ctx context.Context, f func(context.Context)) error {
	s.loads.mu.Lock()
	defer s.loads.mu.Unlock()
	if s.loads.closed { // no task may begin while Close waits
		return cachesidecar.ErrClosed
	}
	s.beginTaskLocked(ctx, f)
	return nil
}

func (s *shared) beginTaskLocked(ctx context.Context, f func(context.Context)) {
	s.tasks.Go(func() { // Close waits for it
		ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(s.closed, cancel)()
		f(ctx)
	})
}

// moving reports whether the sidecar has said lately that it closes.
func (s *shared) moving() bool {
	at := s.movesAt.Load()
	return at != 0 && s.clock.Read().Boot-time.Duration(at) < moveFor
}

// moveFor is how long calls wait for a sidecar that has said that it closes: it is mostly
// started again. After that time a call fails at once, as without a sidecar.
const moveFor = 5 * time.Second
