package engine

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l1"
)

// Apps follow this host as it follows other hosts. The changes that this host hears of go
// into a stream, and WATCH asks for the events after a place in it. The answer waits
// until there is an event. An answer without events says that nothing has changed, so
// that the app may serve its copies as of the moment when it had asked.
//
// An answer attests only what this host could serve itself. If this host does not know
// the changes of some partitions any more (their owner has not reported its changes
// lately, or another process owns them now), a floor over these partitions is put into
// the stream before the answer is made.

// Bounds of watching.
const (
	WatchEvents   = invalidation.DefaultEvents // events that a stream keeps
	WatchBytes    = 1 << 20                    // bytes of an answer's details
	WatchAnswer   = 8192                       // events of an answer
	MaxWatches    = 1024                       // WATCHes that wait, on this host
	MaxConnWatch  = 16                         // and on one connection
	gatherWatched = time.Millisecond           // wait for more events, after one that came at once
	GatherForEach = 100 * time.Microsecond     // longer, for each WATCH that waits: an answer costs a fourth of it
	WatchedAtOnce = 4                          // answers that are made at one time: a change wakes all waiting WATCHes
)

// watches are the apps that follow this host.
type watches struct {
	Stream  atomic.Pointer[stream] // nil if no app follows: then a change costs only a look at it
	opening sync.Mutex
	waiting atomic.Int64
	Answers chan struct{}   // has a place for each answer that is being made
	Ctx     context.Context // of the waits: ends when the sidecar begins to stop
	Stop    context.CancelFunc
}

// stream is the changes that this host hears of, in order, from some moment on.
type stream struct {
	epoch uint64 // unique among the streams of all processes
	log   *invalidation.Log
	read  atomic.Uint64                // its head when an app asked last
	View  atomic.Pointer[cluster.View] // the ring that the stream has told of

	mu     sync.Mutex
	lapsed map[*cluster.Owner]lapsed // the leases whose end the stream has told of
}

// lapsed is the end of a lease, as the stream has told of it.
type lapsed struct {
	lease time.Duration // as cluster.Owner has it
	at    time.Duration // when it was told, on the boot clock
}

// Open returns the stream, and begins one if there is none.
func (w *watches) Open(c *Engine) *stream {
	if s := w.Stream.Load(); s != nil {
		return s
	}
	w.opening.Lock()
	defer w.opening.Unlock()
	if s := w.Stream.Load(); s != nil {
		return s
	}
	log, err := invalidation.NewLog(WatchEvents)
	if err != nil {
		panic("sidecar: " + err.Error()) // the size is a constant
	}
	s := &stream{epoch: uint64(NewEpoch(c.Clock.Read().Wall)), log: log}
	s.View.Store(c.Node.View())
	w.Stream.Store(s)
	return s
}

// Tell puts a change into the stream, if there is one. The caller must have made the
// change and outdated this host's copies before: a read after Tell must find neither the
// old value nor a copy of it.
func (c *Engine) Tell(e invalidation.Event) {
	s := c.Watches.Stream.Load()
	if s == nil {
		return
	}
	if s.log.Append(e) > s.read.Load()+WatchEvents {
		c.Watches.Stream.CompareAndSwap(s, nil) // no app can follow it any more
	}
}

// Note notes that a key has changed: copies from before version v are outdated, here and
// at the apps that watch.
func (c *Engine) Note(h kv.Hash, v kv.Version) {
	c.Ledger.Note(h, v)
	c.detach(h)
	c.Tell(invalidation.Event{Kind: invalidation.Changed, Hash: h, Version: v})
}

// Floor notes the same for all keys of some partitions.
func (c *Engine) Floor(set kv.PartitionSet, v kv.Version) {
	for p := range set.All() {
		c.Ledger.RaisePartition(p, v)
	}
	c.detachIf(func(_ kv.NamespaceID, h kv.Hash) bool { return set.Has(h.Partition()) })
	c.Tell(invalidation.Event{Kind: invalidation.Raised, Version: v, Detail: &invalidation.Detail{Partitions: set}})
}

// TellLost puts into the stream the partitions whose changes this host does not know any
// more. It returns how far this host may be behind in those that it does know.
func (s *stream) TellLost(c *Engine) (behind time.Duration) {
	if c.Node.Alone() {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := c.Clock.Read()
	view := c.Node.View()
	before := s.View.Load()
	news := view != before
	over := map[*cluster.Owner]lapsed{}
	for _, o := range view.Others() {
		leased := o.LeasedAt()
		if o.Leased(now.Boot, c.Names.Least) {
			behind = max(behind, now.Boot-leased)
			continue
		}
		over[o] = lapsed{leased, now.Boot}
		if told, ok := s.lapsed[o]; ok && told.lease == leased && now.Boot-told.at < c.Names.Least {
			over[o] = told
		}
		news = news || over[o].at == now.Boot
	}
	s.lapsed = over
	if !news {
		return behind
	}
	lost := kv.NewPartitionSet(kv.Partitions)
	for p := range uint16(kv.Partitions) {
		o := view.Owner(p)
		if l, ok := over[o]; o != before.Owner(p) || ok && l.at == now.Boot {
			lost.Add(p)
		}
	}
	if !lost.Empty() {
		s.log.Append(invalidation.Event{Kind: invalidation.Raised, Version: c.HLC.Next(now.Wall), Detail: &invalidation.Detail{Partitions: lost}})
	}
	s.View.Store(view)
	return behind
}

// Watched answers WATCH. It waits for events for up to wait. It tells only of flushes of
// namespaces that the caller may read, as may reports.
func (c *Engine) Watched(q *wire.Request, wait time.Duration, may func(namespace string) bool) wire.Reply {
	s := c.Watches.Open(c)
	known := q.Epoch == s.epoch
	if known && wait > 0 {
		ctx, cancel := context.WithTimeout(c.Watches.Ctx, wait)
		defer cancel()
		c.Watches.waiting.Add(1)
		defer c.Watches.waiting.Add(-1)
		begun := c.Clock.Read().Boot
		s.log.Wait(ctx, q.Seq)
		gather := max(gatherWatched, time.Duration(c.Watches.waiting.Load())*GatherForEach)
		if c.Clock.Read().Boot-begun < gather { // more events are about to come
			kv.Sleep(ctx, gather)
		}
	}
	c.Watches.Answers <- struct{}{}
	defer func() { <-c.Watches.Answers }()
	// The pause and the lost partitions come before the head, up to which all is known.
	c.Node.CheckPause(c.Clock.Read().Boot)
	behind := s.TellLost(c)
	head := s.log.Head()
	s.read.Store(head)
	a := wire.Watched{Epoch: s.epoch, After: q.Seq, Head: head, BehindMS: uint32((behind + time.Millisecond - 1) / time.Millisecond)}
	events, there := s.log.After(q.Seq, WatchAnswer, nil)
	if !known || !there {
		a.After, a.Seq, a.Reset = 0, head, true
		return wire.BodyReply(&a)
	}
	a.Seq = q.Seq
	details := 0
	for i := range events {
		e := &events[i]
		if e.Detail != nil {
			details += kv.Partitions / 8
		}
		if details > WatchBytes {
			break
		}
		a.Seq++
		if e.Kind != invalidation.Flushed || e.Detail.Namespace == "" ||
			(q.Has(wire.All) || e.Detail.Namespace == string(q.Namespace)) && may(e.Detail.Namespace) {
			invalidation.WatchCodec.Append(&a.Events, e)
		}
	}
	a.Head = max(a.Head, a.Seq)
	return wire.BodyReply(&a)
}

// Attest puts the process that has attested a copy into an answer from that copy. It does
// so only if this host may serve the copy still, after the copy was found: from then on
// the client that gets the answer is told when this ends. The stream serves all
// namespaces and tells of a lease's end by the smallest bound. Attest uses that bound
// too, even in a namespace with a larger one, since the stream would not tell of the end
// of a later attestation. For the same reason Attest refuses if the stream has not told
// of the present ring yet: that ring may be over before the stream tells of it.
func (c *Engine) Attest(cp *l1.Copy, now kv.Moment, r *wire.Reply) bool {
	view := c.Node.View()
	if s := c.Watches.Stream.Load(); s != nil && s.View.Load() != view {
		return false
	}
	owner := view.Owner(cp.Hash.Partition())
	if owner == nil || owner.Process != *cp.Owner || !owner.Leased(now.Boot, c.Names.Least) ||
		!c.Ledger.Admit(cp.Namespace, cp.Hash, cp.Version, cp.AsOf) {
		return false
	}
	r.Attested, r.AsOf, r.Owner, r.Epoch = true, uint64(cp.AsOf), []byte(cp.Owner.Node), uint64(cp.Owner.Epoch)
	return true
}

// NewEpoch returns the epoch of a new process or stream; wall is the wall clock.
func NewEpoch(wall int64) kv.Epoch {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return kv.NewEpoch(wall, binary.BigEndian.Uint32(b[:]))
}
