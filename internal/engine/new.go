package engine

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l1"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// New returns an engine whose node does not run yet. It starts nothing.
func New(cfg Config) (*Engine, error) {
	var tag [2]byte
	_, _ = rand.Read(tag[:]) // never fails
	e := &Engine{
		deps: deps{
			Config: cfg, Clock: cfg.Clock, HLC: kv.NewHLC(binary.BigEndian.Uint16(tag[:])),
			self: []byte(cfg.Node), Counts: &Counts{},
		},
		Access: cfg.Access, Budget: cfg.Budget, Work: quota.NewWindow(),
	}
	e.Deadlines = &Deadlines{clock: e.Clock, counts: e.Counts}
	e.Deadlines.SetDefault(cfg.RequestTimeout)
	if e.Budget != nil {
		e.Origins.Account = e.Budget.Open("origins", "")
	}
	for _, make := range []func() error{e.makeTables, e.makeStore, e.makeNode} {
		if err := make(); err != nil {
			return nil, errors.Join(err, e.Close())
		}
	}
	e.makeParts()
	e.kept.own(e)
	return e, nil
}

// makeTables makes the tables that know of no part.
func (e *Engine) makeTables() (err error) {
	e.Ledger = invalidation.NewLedger(invalidation.DefaultSlots)
	e.LeaseTokens = flight.NewLeases()
	e.SharedMemory = newPublisher(e.Ledger)
	if e.Config.Cluster.Bind == "" {
		return nil
	}
	// Other hosts may have copies.
	e.Log = invalidation.NewLog(cmp.Or(e.Config.Events, invalidation.DefaultEvents))
	e.L1, err = l1.New(l1.Config{Bytes: e.Config.L1Size})
	return err
}

// makeStore makes the store and its namespaces. They call Changes, which uses them:
// makeNode completes it.
func (e *Engine) makeStore() (err error) {
	e.Serves = func(p uint16) bool { return e.Node.OwnershipEpoch(p) != 0 || failpoint.Out(failpoint.SecondCheck) }
	e.Changes = &Changes{deps: &e.deps}
	e.Store, err = segment.New(segment.Config{
		Keep: e.kept.config(e), Size: e.Config.L2Size, MaxValue: e.Config.MaxValue, Versions: e.HLC,
		Changed: e.Changes.Changed, Written: e.Changes.Written, Forgotten: e.Changes.RaiseCopies,
		Overdue: e.Deadlines.OverdueInStore,
		Serves:  func(p uint16) bool { return e.Serves(p) },
	})
	if err != nil {
		return err
	}
	names := e.Config.Namespaces
	names.Kept = e.kept.names(e.Store.Taken())
	e.Namespaces, err = namespaces.New(names, namespaces.Parts{
		Store: e.Store, Ledger: e.Ledger, Leases: e.LeaseTokens, Shared: e.SharedMemory.Writer, Memory: e.Origins,
		Flushes: e.Budget.Open("other hosts", ""), Detach: e.Changes.DetachSlot,
		CaughtUp: e.caughtUp, OwnsAssigned: e.ownsAssigned,
		Owns: func(p uint16) bool { return e.Node.OwnershipEpoch(p) != 0 }, Read: e.readKey,
		Cached: func(k kv.Key, r *loader.Reservation) ([]byte, bool, kv.Version, error) { return e.Loads.cached(k, r) },
	})
	return err
}

// makeNode makes the node and the parts that it calls. If the node is alone, its
// ownerships begin at once.
func (e *Engine) makeNode() (err error) {
	cfg := e.Config.Cluster
	cfg.Self.Epoch = newEpoch(e.Clock.Read().Wall)
	keys := invalidation.NewBarriers(invalidation.DefaultBarriers)
	b := &e.deps
	e.Barriers = &Barriers{deps: b, keys: keys}
	e.Handoff = handoff.New(handoff.Config{
		Self: cfg.Self, Store: e.Store, Ledger: e.Ledger, Events: e.Log, Namespaces: e.Namespaces, Clock: e.Clock,
		Log: e.Config.Log, Listener: e.Changes, Barriers: e.Barriers,
		KeepFor: 6 * cmp.Or(cfg.Bound, cluster.DefaultBound),
	})
	e.Watches = newWatches(b)
	e.Changes.watches, e.Changes.barriers = e.Watches, e.Barriers
	e.Delegate = &Delegate{
		deps: b, Handoff: e.Handoff, changes: e.Changes, barriers: e.Barriers,
	}
	cfg.Versions, cfg.Delegate, cfg.Events, cfg.Budget, cfg.Mirror = e.HLC, e.Delegate, e.Log, e.Budget, e.SharedMemory
	e.Node, err = cluster.New(cfg)
	return err
}

// makeParts makes the parts that need the node.
func (e *Engine) makeParts() {
	b, hot, loads := &e.deps, inspect.NewSketch(e.Clock.Read().Boot), &inspect.SlowList{}
	e.SharedMemory.node = e.Node
	e.Remote = &Remote{deps: b, watches: e.Watches, changes: e.Changes}
	e.Loads = &Loads{
		deps: b, barriers: e.Barriers, remote: e.Remote, slow: loads, memory: e.Origins,
	}
	e.Tokens = &Tokens{deps: b, loads: e.Loads}
	e.Local = &Local{
		deps: b, barriers: e.Barriers, remote: e.Remote, loads: e.Loads, tokens: e.Tokens, hot: hot,
	}
	e.Acks = &Acks{deps: b}
	e.Regions = &Regions{deps: b, access: e.Access}
	e.Pressure = &Pressure{deps: b, waiting: &e.Waiting}
	e.Admin = &Admin{deps: b, hot: hot, loads: loads, answer: e.Answer, Listing: make(chan struct{}, 1)}
}

// Close frees what the engine stands on, after Node.Run has returned and the last request
// has ended. After a failed New some of it does not exist.
func (e *Engine) Close() (err error) {
	if e.LeaseTokens != nil {
		e.LeaseTokens.Close()
	}
	if e.Namespaces != nil {
		e.Namespaces.Close()
	}
	if e.L1 != nil {
		e.L1.Close()
	}
	if e.Store != nil {
		e.kept.save(e)
		err = e.Store.Close()
	}
	return err
}
