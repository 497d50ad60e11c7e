package handoff

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Handoff moves entries after their partitions. The new owner pulls them from the process
// that has released them, the hottest first, and meanwhile asks it for single entries.
// The cluster's node calls Begin, Ended and Offer when ownerships begin and end.
type Handoff struct {
	cfg Config

	Incoming    [kv.Partitions]atomic.Pointer[Source]
	Starts      [kv.Partitions]atomic.Pointer[OwnershipStart] // of the latest ownership; nil: there was none
	ended       [kv.Partitions]ended                          // guarded by the node's lock, under which it is used
	keepsMemory atomic.Bool                                   // for the next process, if this one ends in order
	exiting     atomic.Bool                                   // ownerships end with this process, which keeps entries

	mu      sync.Mutex
	running context.Context // of Run; nil before and after
	node    *cluster.Node   // given to Run
	tasks   sync.WaitGroup
	offers  map[kv.Ballot]*Offer
	kept    keptState

	Counts handoffCounts
}

type handoffCounts struct {
	Pulled, Admitted, Refused, Fetched atomic.Int64 // entries that came
	Bytes                              atomic.Int64
	Sent                               atomic.Int64 // entries that went
	Failed                             atomic.Int64 // pulls that ended early
	Pulling                            atomic.Int64
}

// Bounds of a handoff.
const (
	pullBytes   = 256 << 10 // of one answer, beside one entry
	pullTimeout = time.Second
	pullTries   = 5
)

// Source is the process that the entries of some partitions come from. A partition has at
// most one source in each ownership.
type Source struct {
	From        kv.Process
	Ballot      kv.Ballot
	Partitions  kv.PartitionSet
	Generations map[uint16]uint16  // by partition: the store's generation of the ownership that the entries are for
	Keeps       bool               // it ends, and keeps its entries for its next process: see keep.go
	fetches     singleflight.Group // of single entries
	begun       time.Duration      // when the ownerships began, on the boot clock
	only        kv.PartitionSet    // those that no other process has released too

	// kept are those partitions of which this host has kept entries, until the source has answered about them.
	// Then decided is closed. Until then no key is absent.
	kept    map[kv.Ballot]kv.PartitionSet
	decided chan struct{}
}

// ended is the last ownership of a partition that this process has ended.
type ended struct {
	generation uint16
	begun      *OwnershipStart
	end        *ownershipEnd
	to         *kv.Ballot // to which it was released; nil: to none
}

// Config is what handoffs need of the host.
type Config struct {
	Self kv.Process

	Store      *segment.Store
	Ledger     *invalidation.Ledger
	Events     *invalidation.Log // nil: the host is alone
	Namespaces *namespaces.Table
	Clock      kv.Clock
	Log        *slog.Logger
	Listener   Listener
	Barriers   Barriers // nil: none are handed over

	KeepFor time.Duration // how long another host may own what this one has kept
}

// Listener is told of ownerships that begin and end.
type Listener interface {
	// Began is called when ownerships begin, before their entries come.
	Began(b *ownership.Begun, now time.Duration)
	// Ended is called when ownerships have ended. It outdates what was attested for the
	// partitions before a version.
	Ended(set kv.PartitionSet, v kv.Version)
}

// New returns a Handoff. It starts nothing.
func New(c Config) *Handoff {
	return &Handoff{cfg: c, offers: map[kv.Ballot]*Offer{}}
}

// Run lets pulls begin until ctx ends, and then waits for them. It drops old offers. node
// reaches the other hosts.
func (h *Handoff) Run(ctx context.Context, node *cluster.Node) {
	h.mu.Lock()
	h.running, h.node = ctx, node
	h.mu.Unlock()
	for range kv.Every(ctx, node.Bound()/4) {
		h.expireOffers(2 * node.Bound())
		h.expireKept()
	}
	h.mu.Lock()
	h.running = nil
	h.mu.Unlock()
	h.tasks.Wait()
	h.expireOffers(0)
}

// Begin makes the partitions empty, and starts to pull the entries that their releasers
// have.
func (h *Handoff) Begin(b ownership.Begun, owner func(kv.Process) *cluster.Host) {
	generations := map[uint16]uint16{}
	now := h.cfg.Clock.Read().Boot
	h.noteBegun(&b, owner, now)
	for p := range b.Partitions.All() {
		if failpoint.Out(failpoint.Empty) {
			generations[p] = h.cfg.Store.Generation(p)
		} else {
			generations[p] = h.cfg.Store.NewOwnership(p)
		}
		h.ended[p].generation = generations[p]
		h.Incoming[p].Store(nil)
		if h.cfg.Events == nil { // no other host could own it while no process ran
			h.cfg.Store.Adopt(p, generations[p])
		}
	}
	h.cfg.Listener.Began(&b, now)
	var sources []*Source
	for _, from := range slices.SortedFunc(maps.Keys(b.Releasers), kv.Process.Compare) {
		if from == h.cfg.Self {
			continue
		}
		src := &Source{
			From: from, Ballot: *b.Ballot, Keeps: b.Keepers[from],
			Partitions: kv.NewPartitionSet(kv.Partitions), Generations: map[uint16]uint16{},
			begun: now, only: kv.NewPartitionSet(kv.Partitions),
		}
		for p := range b.Releasers[from].All() {
			if g, begins := generations[p]; begins && h.Incoming[p].CompareAndSwap(nil, src) {
				src.Partitions.Add(p)
				src.Generations[p] = g
				if b.ReleasedBy(p) == 1 {
					src.only.Add(p)
				}
			}
		}
		if !src.Partitions.Empty() {
			sources = append(sources, src)
		}
	}
	h.claimKept(b.Partitions)
	for _, src := range sources {
		if running, end := h.beginTask(); running != nil {
			go func() { // ends with the handoff, or with Run, which waits for it
				defer end()
				h.pull(running, src)
			}()
		}
	}
}

// Ended notes the end of ownerships, and raises the floors of copies that were made of
// the partitions' entries.
func (h *Handoff) Ended(set kv.PartitionSet, asOf kv.Version) {
	end := &ownershipEnd{asOf: asOf, at: h.cfg.Clock.Read().Boot, kept: h.KeepsEntries()}
	if h.cfg.Events != nil {
		end.place = h.cfg.Events.Head()
	}
	for p := range set.All() {
		e := ended{generation: h.cfg.Store.Generation(p), end: end}
		if e.generation == h.ended[p].generation { // else it has lost all in between
			e.begun = h.Starts[p].Load()
		}
		h.ended[p] = e
		h.Incoming[p].Store(nil)
	}
	h.cfg.Listener.Ended(set, asOf)
}

// pull fetches all entries that a source has.
func (h *Handoff) pull(ctx context.Context, src *Source) {
	h.Counts.Pulling.Add(1)
	defer h.Counts.Pulling.Add(-1)
	failures := 0
	for batch := uint64(0); ctx.Err() == nil && h.wanted(src); {
		asked := h.cfg.Clock.Read().Boot
		size, done, err := h.PullBatch(ctx, src, batch)
		if err != nil {
			if failures++; failures == pullTries || src.Keeps {
				h.failed(src, batch, err)
				break
			}
			if !kv.Sleep(ctx, time.Duration(failures)*50*time.Millisecond) {
				break
			}
			continue
		}
		failures = 0
		batch++
		if done && size == 0 {
			break
		}
		if !kv.Sleep(ctx, h.pullDelay(h.cfg.Clock.Read().Boot-asked)) {
			break
		}
	}
	h.takeBase(src, &wire.Pulled{}) // closes decided, if no answer had a base
	for p := range src.Partitions.All() {
		h.Incoming[p].CompareAndSwap(src, nil)
	}
}

// pullDelay returns how long a pull rests after a batch: all pulls together take two thirds of the
// time, and so at most two thirds of what this host and its network can do. The sender drops what is not
// asked for within 2 B, so that a pullDelay ends before that.
func (h *Handoff) pullDelay(took time.Duration) time.Duration {
	return min(took*time.Duration(3*h.Counts.Pulling.Load()-2)/2, h.node.Bound()/2)
}

// wanted reports whether any of the partitions still waits for the source.
func (h *Handoff) wanted(src *Source) bool {
	for p := range src.Partitions.All() {
		if h.Incoming[p].Load() == src {
			return true
		}
	}
	return false
}

// PullBatch fetches one batch of a source's entries and stores them. size is the bytes of
// their keys and values; done means that the source has no entries after these.
func (h *Handoff) PullBatch(ctx context.Context, src *Source, batch uint64) (size int, done bool, err error) {
	var b wire.Pulled
	sent, err := h.ask(ctx, src, wire.OpPull, &wire.Pull{
		Ballot: src.Ballot, Batch: batch, Partitions: src.Partitions.Bytes(), Kept: src.keptSets(),
	}, &b)
	if err != nil {
		return 0, false, err
	}
	h.takeBase(src, &b)
	if err := h.takeBarriers(src, &b); err != nil {
		return 0, false, err
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		size += len(e.Key) + len(e.Value)
		h.Counts.Pulled.Add(1)
		if h.Restore(src, e, kv.Version(b.AsOf), sent) == segment.Stored {
			h.Counts.Admitted.Add(1)
		} else {
			h.Counts.Refused.Add(1)
		}
	}
	h.Counts.Bytes.Add(int64(size))
	return size, b.Done, nil
}

// ask asks a source, and decodes its answer. sent is the moment before.
func (h *Handoff) ask(
	ctx context.Context, src *Source, op wire.Op, q any, answer interface{ NewestVersion() uint64 },
) (sent kv.Moment, err error) {
	body := wire.MarshalBody(q)
	sent = h.cfg.Clock.Read()
	var a peer.Answer
	defer a.Release()
	if err := h.node.Do(ctx, src.From, pullTimeout, &wire.Request{Op: op, Body: body}, &a); err != nil {
		return sent, err
	}
	if err := a.Err(); err != nil {
		return sent, err
	}
	if err := wire.UnmarshalBody(a.Body, answer); err != nil {
		return sent, err
	}
	return sent, h.node.CheckVersion(src.From, answer.NewestVersion())
}

// Restore stores an entry that has come, unless this host knows something newer of the
// key; it asks the same question as for every copy. The entry is stored only in the
// ownership and in the partitions that the source is for. Other entries that a process
// has released may be older than those that the ownership has from another process. The
// entry is not stored either once its partition waits for the source no more: a key that
// is absent then has been answered as absent.
//
// NoRoom says that the same entry may be stored when it comes again.
func (h *Handoff) Restore(src *Source, e *wire.Entry, asOf kv.Version, sent kv.Moment) segment.Result {
	b := namespaces.Pins{Table: h.cfg.Namespaces}
	defer b.Release()
	if !kv.ValidKey(e.Key) || !kv.ValidNamespace(e.Namespace) {
		return segment.Outdated
	}
	ns, bad := b.Write([]byte(e.Namespace))
	if bad != nil {
		return segment.NoRoom
	}
	key := ns.Key(e.Key)
	partition := key.Hash.Partition()
	generation, expected := src.Generations[partition]
	anySource := failpoint.Out(failpoint.SourceOfEntry)
	if anySource {
		generation, expected = h.cfg.Store.Generation(partition), true
	}
	if !expected {
		return segment.Outdated
	}
	entry := kv.Entry{
		Key: key, Value: e.Value, Facts: e.Facts(kv.Before(EndOf(h.cfg.Clock, e.TTLMS, sent.Boot))),
	}
	if failpoint.Out(failpoint.FloorAtHandoff) {
		entry.Version = max(entry.Version, asOf)
	}
	admit := func() bool {
		return (anySource || h.Incoming[partition].Load() == src) &&
			(h.cfg.Ledger.Admit(ns.ID, key.Hash, entry.Version, asOf) || failpoint.Out(failpoint.AdmitAtHandoff))
	}
	return h.cfg.Store.Restore(entry, generation, e.Hits, admit, h.cfg.Clock.Read())
}

// Fetch asks the releaser of a partition for one entry, once for all readers that miss
// it, unless the entry has come by then. An error means that the releaser could not be
// asked, or that there is no room for its entry now.
func (h *Handoff) Fetch(ctx context.Context, src *Source, namespace string, key kv.Key, timeout time.Duration) error {
	key.Bytes = bytes.Clone(key.Bytes) // the call may outlive the request
	done := src.fetches.DoChan(namespace+"\x00"+string(key.Bytes), func() (any, error) {
		running, end := h.beginTask()
		if running == nil {
			return nil, errStopping
		}
		defer end()
		return nil, h.FetchNow(running, src, namespace, key)
	})
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case r := <-done:
		return r.Err
	case <-t.C:
		return context.DeadlineExceeded
	case <-ctx.Done():
		return ctx.Err()
	}
}

var (
	errStopping = errors.New("this sidecar is stopping")
	errNoRoom   = errors.New("there is no room for its entry now")
)

// beginTask starts a task that Run waits for until end is called. A nil context means that
// Run has ended, or has not begun.
func (h *Handoff) beginTask() (running context.Context, end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running != nil {
		h.tasks.Add(1)
	}
	return h.running, h.tasks.Done
}

// FetchNow asks a source for one entry and stores it, unless the entry has come by then, or was kept.
func (h *Handoff) FetchNow(ctx context.Context, src *Source, namespace string, key kv.Key) error {
	if src.decided != nil {
		select {
		case <-src.decided:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if _, ok := h.cfg.Store.Peek(key, h.cfg.Clock.Read().Boot); ok || h.Incoming[key.Hash.Partition()].Load() != src {
		return nil
	}
	var f wire.Fetched
	q := &wire.Fetch{Ballot: src.Ballot, Namespace: namespace, Key: key.Bytes}
	sent, err := h.ask(ctx, src, wire.OpFetch, q, &f)
	if err != nil {
		return err
	}
	if !f.Found {
		return nil
	}
	switch h.Restore(src, &f.Entry, kv.Version(f.AsOf), sent) {
	case segment.Stored:
		h.Counts.Fetched.Add(1)
	case segment.NoRoom:
		return errNoRoom
	}
	return nil
}

// EndOf returns the end, on the boot clock, of a TTL that another host has reported; zero
// means no end. The TTL counts from asked, before that host was asked. The end is early
// by 2 %, since the rates of the clocks may differ, and by a millisecond, since a value
// with less than a millisecond left reports one.
func EndOf(clock kv.Clock, ttlMS int64, asked time.Duration) time.Duration {
	if ttlMS <= 0 {
		return 0
	}
	if failpoint.Out(failpoint.EndFromAsked) {
		asked = clock.Read().Boot
	}
	return asked + max(1, time.Duration(min(ttlMS-1, int64(kv.MaxDeadline)))*time.Millisecond/100*98)
}
