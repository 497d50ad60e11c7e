package engine

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l1"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// deps has the dependencies that all parts of the engine share.
type deps struct {
	Config    Config
	Clock     kv.Clock
	HLC       *kv.HLC
	Counts    *Counts // apart from what is never written
	Deadlines *Deadlines

	Store        *segment.Store
	Namespaces   *namespaces.Table
	Node         *cluster.Node
	Handoff      *handoff.Handoff
	Ledger       *invalidation.Ledger
	SharedMemory *Publisher
	LeaseTokens  *flight.Leases
	Calls        flight.Table[*Call] // reads of other hosts' keys that are under way
	Log          *invalidation.Log   // Log and L1 are nil if the node is alone
	L1           *l1.Cache
	self         []byte // the node's name
}

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
	Cluster        cluster.Config // without what New adds: Delegate, Events, Versions, Budget, the epoch

	// Keep, if set, leaves the entries to the next process. It is for a host that is alone.
	Keep *Keep

	Clock  kv.Clock
	Log    *slog.Logger
	Access *access.Rules
	Budget *quota.Budget

	Program Program
	// Peer returns the handler of another sidecar's requests. It is called while
	// Node.Run runs.
	Peer func(kv.Process) server.Handler
}

// Program is the program around the engine, as operators' requests need it.
type Program struct {
	Stats   func() cachesidecar.Stats                           // of this host
	Reload  func(context.Context) (cachesidecar.Changes, error) // reads the configuration again; nil: there is none
	Stop    func()                                              // makes it end in order
	Ending  <-chan struct{}                                     // closed when it begins to end
	AloneOK func() bool                                         // whether this host may be alone
}

// MaxLeases bounds the keys whose token is out.
const MaxLeases = flight.MaxLeases

// newEpoch returns the epoch of a new process or stream; wall is the wall clock.
func newEpoch(wall int64) kv.Epoch {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return kv.NewEpoch(wall, binary.BigEndian.Uint32(b[:]))
}
