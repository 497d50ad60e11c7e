package engine

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/hotkeys"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/slow"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l1"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Config has the settings that answers depend on, and what the engine stands on.
type Config struct {
	Node           string        // this node's name
	Seed           uint64        // of the hash
	MaxValue       int           // bytes
	RequestTimeout time.Duration // of requests without a timeout
	ReadPatience   time.Duration // how long a read waits for an owner, for tests; default 250 ms
	L1Size, L2Size int64         // bytes
	Events         int           // that the log keeps; zero: the default of package invalidation
	Namespaces     namespaces.Config
	Cluster        cluster.Config // without what New adds: Tiers, Events, Versions, Budget, the epoch

	Clock  kv.Clock
	Log    *slog.Logger
	Access *access.Rules
	Shares *quota.Places
	Budget *quota.Budget
	// Peer returns the handler of another sidecar's requests. It is called while
	// Node.Run runs.
	Peer func(kv.Process) server.Handler
}

// MaxLeases bounds the keys whose token is out.
const MaxLeases = 1 << 16

// New returns an engine whose node does not run yet. It starts nothing.
func New(cfg Config) (*Engine, error) {
	var tag [2]byte
	_, _ = rand.Read(tag[:]) // never fails
	e := &Engine{
		Config: cfg, Clock: cfg.Clock, HLC: kv.NewHLC(binary.BigEndian.Uint16(tag[:])),
		Access: cfg.Access, Shares: cfg.Shares, Budget: cfg.Budget,
	}
	if e.Budget != nil {
		e.origins.Account = e.Budget.Open("origins", "", nil)
	}
	for _, make := range []func() error{e.makeTables, e.makeStore, e.makeNode} {
		if err := make(); err != nil {
			return nil, errors.Join(err, e.Close())
		}
	}
	e.makeParts()
	return e, nil
}

// makeTables makes the tables that know of no part.
func (e *Engine) makeTables() (err error) {
	if e.Ledger, err = invalidation.NewLedger(invalidation.DefaultSlots); err != nil {
		return err
	}
	if e.Leases, err = flight.NewLeases(flight.LeasesConfig{MaxLeases: MaxLeases}); err != nil {
		return err
	}
	e.Shared = newPublisher(e.Ledger)
	if e.Config.Cluster.Bind == "" {
		return nil
	}
	// Other hosts may have copies.
	if e.Log, err = invalidation.NewLog(cmp.Or(e.Config.Events, invalidation.DefaultEvents)); err != nil {
		return err
	}
	e.L1, err = l1.New(l1.Config{Bytes: e.Config.L1Size})
	return err
}

// makeStore makes the store and its namespaces. They call Changes, which uses them:
// makeNode completes it.
func (e *Engine) makeStore() (err error) {
	e.Serves = func(p uint16) bool { return e.Node.OwnershipEpoch(p) != 0 || failpoint.Out(failpoint.SecondCheck) }
	e.Deadlines = &Deadlines{clock: e.Clock, counts: &e.Counts}
	e.Deadlines.SetDefault(e.Config.RequestTimeout)
	e.Changes = &Changes{}
	e.Store, err = segment.New(segment.Config{
		Size: e.Config.L2Size, MaxValue: e.Config.MaxValue, Versions: e.HLC,
		Changed: e.Changes.Changed, Forgotten: e.Changes.Raise, Overdue: e.Deadlines.OverdueInStore,
		Serves: func(p uint16) bool { return e.Serves(p) },
	})
	if err != nil {
		return err
	}
	e.Names, err = namespaces.New(e.Config.Namespaces, namespaces.Parts{
		Store: e.Store, Ledger: e.Ledger, Leases: e.Leases, Shared: e.Shared.Writer, Memory: e.origins,
		Flushes: e.Shares.Join("other hosts"), Detach: e.Changes.DetachSlot,
		CaughtUp: func(ctx context.Context) error { return e.Owners.caughtUp(ctx) },
	})
	return err
}

// makeNode makes the node and the parts that it calls. If the node is alone, its
// ownerships begin at once. Of the parts, Watches and Tiers use the node only later:
// makeParts completes them.
func (e *Engine) makeNode() error {
	cfg := e.Config.Cluster
	cfg.Self.Epoch = newEpoch(e.Clock.Read().Wall)
	keys, err := invalidation.NewBarriers(invalidation.DefaultBarriers)
	if err != nil {
		return err
	}
	e.Handoff = handoff.New(handoff.Config{
		Self: cfg.Self, Store: e.Store, Ledger: e.Ledger, Names: e.Names, Clock: e.Clock,
		Log: e.Config.Log, Host: e.Changes,
	})
	e.Calls = &Calls{names: e.Names, counts: &e.Counts}
	e.Watches = newWatches(e.Clock, e.HLC, e.Ledger, e.Names)
	e.Barriers = &Barriers{
		clock: e.Clock, hlc: e.HLC, names: e.Names, handoff: e.Handoff, log: e.Log, keys: keys,
	}
	*e.Changes = Changes{
		clock: e.Clock, hlc: e.HLC, names: e.Names, ledger: e.Ledger, log: e.Log, l1: e.L1, leases: e.Leases,
		calls: e.Calls, watches: e.Watches, barriers: e.Barriers, shared: e.Shared,
	}
	e.Tiers = &Tiers{
		Handoff: e.Handoff, session: e.Config.Peer, policy: cfg.Policy, clock: e.Clock, hlc: e.HLC,
		names: e.Names, store: e.Store, l1: e.L1, changes: e.Changes, barriers: e.Barriers, counts: &e.Counts,
	}
	cfg.Versions, cfg.Tiers, cfg.Events, cfg.Budget, cfg.Mirror = e.HLC, e.Tiers, e.Log, e.Budget, e.Shared
	e.Node, err = cluster.New(cfg)
	return err
}

// makeParts makes the parts that need the node, and gives it to those that were made
// before it.
func (e *Engine) makeParts() {
	self := []byte(e.Config.Node)
	hot, loads := hotkeys.New(e.Clock.Read().Boot), &slow.List{}
	e.Watches.node, e.Shared.node = e.Node, e.Node
	e.Flushes = &Flushes{
		clock: e.Clock, hlc: e.HLC, names: e.Names, store: e.Store, node: e.Node, log: e.Log, changes: e.Changes,
		watches: e.Watches, shared: e.Shared,
	}
	e.Tiers.node, e.Tiers.flushes = e.Node, e.Flushes
	e.Owners = &Owners{clock: e.Clock, names: e.Names, node: e.Node, self: self,
		readPatience: cmp.Or(e.Config.ReadPatience, readPatience)}
	e.arrivals = &Arrivals{store: e.Store, node: e.Node, handoff: e.Handoff}
	e.Copies = &Copies{
		clock: e.Clock, hlc: e.HLC, names: e.Names, node: e.Node, ledger: e.Ledger, l1: e.L1, watches: e.Watches,
		counts: &e.Counts, shared: e.Shared,
	}
	e.Forwarder = &Forwarder{
		clock: e.Clock, names: e.Names, log: e.Config.Log, node: e.Node, owners: e.Owners, arrivals: e.arrivals,
		calls: e.Calls, copies: e.Copies, changes: e.Changes, counts: &e.Counts, deadlines: e.Deadlines,
	}
	e.Loads = &Loads{
		clock: e.Clock, hlc: e.HLC, names: e.Names, store: e.Store, node: e.Node, ledger: e.Ledger, owners: e.Owners,
		barriers: e.Barriers, slow: loads, shared: e.Shared, memory: e.origins,
	}
	e.Tokens = &Tokens{
		clock: e.Clock, self: self, maxValue: e.Config.MaxValue, store: e.Store, node: e.Node, arrivals: e.arrivals,
		leases: e.Leases, loads: e.Loads, deadlines: e.Deadlines,
	}
	e.Reads = &Reads{
		hlc: e.HLC, names: e.Names, store: e.Store, node: e.Node, arrivals: e.arrivals, owners: e.Owners,
		copies: e.Copies, loads: e.Loads, hot: hot, shared: e.Shared,
	}
	e.Inspection = newInspection(e, hot, loads)
	e.Writes = &Writes{
		maxValue: e.Config.MaxValue, names: e.Names, store: e.Store, node: e.Node, arrivals: e.arrivals,
		owners: e.Owners, barriers: e.Barriers, tokens: e.Tokens, deadlines: e.Deadlines,
	}
	e.many = &many{} // writes through end with a deletion at the owners, wherever these are
	e.through = &writeThrough{
		clock: e.Clock, maxValue: e.Config.MaxValue, names: e.Names, node: e.Node, owners: e.Owners,
		writes: e.Writes, deadlines: e.Deadlines,
		deleteAnywhere: e.many.delete,
	}
	e.keys = &keys{
		clock: e.Clock, names: e.Names, node: e.Node, arrivals: e.arrivals, owners: e.Owners, forwarder: e.Forwarder,
		loads: e.Loads, tokens: e.Tokens, reads: e.Reads, writes: e.Writes, looks: e.newLooks(), through: e.through,
	}
	*e.many = many{
		clock: e.Clock, names: e.Names, node: e.Node, owners: e.Owners, forwarder: e.Forwarder,
		loads: e.Loads, writes: e.Writes, through: e.through, keys: e.keys,
	}
	e.Hosts = &Hosts{name: e.Config.Node, names: e.Names, node: e.Node, deadlines: e.Deadlines}
	e.Acks = &Acks{
		clock: e.Clock, names: e.Names, node: e.Node, handoff: e.Handoff, log: e.Log, counts: &e.Counts,
	}
	e.warm = &warm{
		clock: e.Clock, logger: e.Config.Log, names: e.Names, store: e.Store, node: e.Node, owners: e.Owners,
		keys: e.keys,
	}
}

// newLooks makes the part that answers METAGET, from the parts that it uses.
func (e *Engine) newLooks() *Looks {
	return &Looks{
		clock: e.Clock, store: e.Store, arrivals: e.arrivals, leases: e.Leases, deadlines: e.Deadlines, loads: e.Loads,
		reads: e.Reads, writes: e.Writes,
	}
}

// Close frees what the engine stands on, after Node.Run has returned and the last request
// has ended. After a failed New some of it does not exist.
func (e *Engine) Close() (err error) {
	if e.Leases != nil {
		e.Leases.Close()
	}
	if e.Names != nil {
		e.Names.Close()
	}
	if e.L1 != nil {
		e.L1.Close()
	}
	if e.Store != nil {
		err = e.Store.Close()
	}
	return err
}

// newEpoch returns the epoch of a new process or stream; wall is the wall clock.
func newEpoch(wall int64) kv.Epoch {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return kv.NewEpoch(wall, binary.BigEndian.Uint32(b[:]))
}
