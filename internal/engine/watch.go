package engine

import (
	"context"
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

// Watches are the apps that follow this host.
type Watches struct {
	*deps

	Stream  atomic.Pointer[stream] // nil if no app follows: then a change costs only a look at it
	opening sync.Mutex
	waiting atomic.Int64
	Answers chan struct{} // has a place for each answer that is being made

	mu    sync.Mutex
	ended bool
	ctx   context.Context // of the waits
	stop  context.CancelFunc
}

func newWatches(b *deps) *Watches {
	w := &Watches{deps: b, Answers: make(chan struct{}, WatchedAtOnce)}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// Interrupt ends the waits of all WATCHes that wait now.
func (w *Watches) Interrupt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop(); !w.ended {
		w.ctx, w.stop = context.WithCancel(context.Background())
	}
}

// Stop ends the waits of all WATCHes, also of those that come later.
func (w *Watches) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.stop()
}

// waits returns the context in which a WATCH waits.
func (w *Watches) waits() context.Context {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ctx
}

// stream is the changes that this host hears of, in order, from some moment on.
type stream struct {
	epoch uint64 // unique among the streams of all processes
	log   *invalidation.Log
	read  atomic.Uint64                // its head when an app asked last
	View  atomic.Pointer[cluster.View] // the ring that the stream has told of

	mu     sync.Mutex
	lapsed map[*cluster.Host]lapsed // the leases whose end the stream has told of
}

// lapsed is the end of a lease, as the stream has told of it.
type lapsed struct {
	lease time.Duration // as cluster.Host has it
	at    time.Duration // when it was told, on the boot clock
}

// Open returns the stream, and begins one if there is none.
func (w *Watches) Open() *stream {
	if s := w.Stream.Load(); s != nil {
		return s
	}
	w.opening.Lock()
	defer w.opening.Unlock()
	if s := w.Stream.Load(); s != nil {
		return s
	}
	s := &stream{epoch: uint64(newEpoch(w.Clock.Read().Wall)), log: invalidation.NewLog(WatchEvents)}
	s.View.Store(w.Node.View())
	w.Stream.Store(s)
	return s
}

// Tell puts a change into the stream, if there is one. The caller must have made the
// change and outdated this host's copies before: a read after Tell must find neither the
// old value nor a copy of it.
func (w *Watches) Tell(e invalidation.Event) {
	s := w.Stream.Load()
	if s == nil {
		return
	}
	if s.log.Append(e) > s.read.Load()+WatchEvents {
		w.Stream.CompareAndSwap(s, nil) // no app can follow it any more
	}
}

// raised returns the event of a floor over some partitions.
func raised(set kv.PartitionSet, v kv.Version) invalidation.Event {
	return invalidation.Event{Kind: invalidation.FloorRaised, Version: v, Detail: &invalidation.Detail{Partitions: set}}
}

// TellLost puts into the stream the partitions whose changes this host does not know any
// more. It returns how far this host may be behind in those that it does know.
func (w *Watches) TellLost(s *stream) (behind time.Duration) {
	if w.Node.SingleNode() {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := w.Clock.Read()
	view := w.Node.View()
	before := s.View.Load()
	news := view != before
	over := map[*cluster.Host]lapsed{}
	for _, o := range view.Others() {
		leased := o.LeasedAt()
		if o.Leased(now.Boot, w.Namespaces.Least()) {
			behind = max(behind, now.Boot-leased)
			continue
		}
		over[o] = lapsed{leased, now.Boot}
		if told, ok := s.lapsed[o]; ok && told.lease == leased && now.Boot-told.at < w.Namespaces.Least() {
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
		o := view.AssignedOwner(p)
		if l, ok := over[o]; o != before.AssignedOwner(p) || ok && l.at == now.Boot {
			lost.Add(p)
		}
	}
	if !lost.Empty() {
		s.log.Append(raised(lost, w.HLC.Next(now.Wall)))
	}
	s.View.Store(view)
	return behind
}

// Watched answers WATCH. It waits for events for up to wait. It tells only of flushes of
// namespaces that the caller may read, as may reports.
func (w *Watches) Watched(q *wire.Request, wait time.Duration, may func(namespace string) bool) wire.Reply {
	s := w.Open()
	known := q.Epoch == s.epoch
	if known && wait > 0 {
		ctx, cancel := context.WithTimeout(w.waits(), wait)
		defer cancel()
		w.waiting.Add(1)
		defer w.waiting.Add(-1)
		begun := w.Clock.Read().Boot
		s.log.Wait(ctx, q.Seq)
		gather := max(gatherWatched, time.Duration(w.waiting.Load())*GatherForEach)
		if w.Clock.Read().Boot-begun < gather { // more events are about to come
			kv.Sleep(ctx, gather)
		}
	}
	w.Answers <- struct{}{}
	defer func() { <-w.Answers }()
	// The pause and the lost partitions come before the head, up to which all is known.
	w.Node.CheckPause(w.Clock.Read().Boot)
	behind := w.TellLost(s)
	head := s.log.Head()
	s.read.Store(head)
	a := wire.Watched{
		Epoch: s.epoch, After: q.Seq, Head: head,
		BehindMS: uint32((behind + time.Millisecond - 1) / time.Millisecond),
	}
	events, ok := s.log.After(q.Seq, WatchAnswer, nil)
	if !known || !ok {
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
func (w *Watches) Attest(cp *l1.Copy, now kv.Moment, r *wire.Reply) bool {
	view := w.Node.View()
	if s := w.Stream.Load(); s != nil && s.View.Load() != view {
		return false
	}
	owner := view.AssignedOwner(cp.Hash.Partition())
	if owner == nil || owner.Process != *cp.Owner || !owner.Leased(now.Boot, w.Namespaces.Least()) ||
		!w.Ledger.Admit(cp.Namespace, cp.Hash, cp.Version, cp.AsOf) {
		return false
	}
	r.Attested, r.AsOf, r.Owner, r.Epoch = true, uint64(cp.AsOf), []byte(cp.Owner.Node), uint64(cp.Owner.Epoch)
	return true
}
