package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
	"github.com/cachesidecar/cachesidecar/l2/ring"
)

// Config of a Node. Zero means the default.
type Config struct {
	Self    kv.Process
	Cluster string // its name; others are refused
	// Weight is the memory that this node offers, in any unit that all use.
	Weight uint32

	// Bind is where gossip listens, host:port; without it the node is alone.
	Bind string
	// PeerBind is where other sidecars' requests are served, host:port.
	PeerBind string
	// Advertise is the host that others reach this one under. Default: that of
	// Bind.
	Advertise string
	// Join are addresses of others' gossip.
	Join []string
	// Secured says that Keys and Credentials are given. Without them the addresses
	// are loopback's, unless Insecure lets them be others though nothing that
	// passes between hosts is encrypted.
	Secured, Insecure bool
	// Keys are those of gossip as they are now, and Credentials what this node
	// shows others and accepts of them; after a change of either, call Renew. Nil
	// is plain text.
	Keys        func() [][]byte
	Credentials func() *peer.Credentials

	// Bound is B, the most that a copy may be behind. Default 2 s, at least
	// 500 ms.
	Bound time.Duration
	// Detection is D, the silence after which a member that gossip misses
	// counts as dead. Default and least: 1.5 B.
	Detection time.Duration
	// MaxSkew is how far wall clocks may differ. Default 500 ms.
	MaxSkew time.Duration
	// Policy is what a side of a split cluster does that cannot reach a majority
	// of the voters: Available, the default, goes on; Consistent serves nothing
	// that others may change.
	Policy string
	// Voters are the names of 3 or 5 nodes, under policy Consistent: a majority of
	// them acknowledges whatever is held.
	Voters []string
	// Settings are what must be the same on all nodes, beside the bound.
	Settings map[string]string
	// LeaveTimeout bounds the handing over at the end, and all else that others
	// wait for. Default 10 s.
	LeaveTimeout time.Duration

	Clock    kv.Clock
	Versions *kv.HLC
	Tiers    Tiers
	// Budget bounds the memory of what is under way between hosts. Default: one
	// of its own.
	Budget *rpc.Budget
	// Events is this process's log. What ends holdings appends to it.
	Events *invalidation.Log
	// MaxConns bounds the connections from other sidecars. Default 4,096.
	MaxConns int
	// PollEvery is the time between two polls of a member. Default, and most:
	// Bound / 4.
	PollEvery time.Duration
	Log       *slog.Logger

	// Network replaces the machine's, for tests.
	Network Network
}

// Network is what the node needs of one, and of a cluster in one process.
type Network struct {
	Table     func([]ring.Member) *ring.Table // the ring's; default ring.New
	Listen    func(address string) (net.Listener, error)
	Dial      func(ctx context.Context, address string) (net.Conn, error)
	Transport func(address string) memberlist.Transport // for gossip
	NoRelay   bool                                      // events go by the logs alone
	Nap       func(time.Duration)                       // sleeps for less than a millisecond
}

// Tiers is who holds the entries. Its methods are called under the node's lock,
// one at a time: they do not block, and do not call the node's.
type Tiers interface {
	// Begin makes what is stored of the partitions unreachable; they are served
	// as soon as it returns. What the releasers had can be had from them. owner is
	// for processes that the Begun names, some of which may be about to leave.
	Begin(b ownership.Begun, owner func(kv.Process) *Owner)
	// Ended says that the partitions are not served any more. Every write that
	// was acknowledged is older than asOf.
	Ended(partitions kv.PartitionSet, asOf kv.Version)
	// Offer lets a process have the entries of partitions whose holding it has
	// ended with a ballot. It may be told again.
	Offer(to kv.Process, ballot *ownership.Ballot, partitions kv.PartitionSet)
	// Apply takes events of another process's log: those after a place, in their
	// order. It is not called under the node's lock; the events of one process
	// come one call at a time.
	Apply(from kv.Process, after uint64, events []invalidation.Event)
	// Relayed takes events that may come in any order, more than once, or never.
	Relayed(from kv.Process, after uint64, events []invalidation.Event)
	// Reset stands for events that are lost. floor is above all of them.
	Reset(from kv.Process, marks []invalidation.Mark, floors []wire.Floor, floor kv.Version)
	// Floors are the flushes of namespaces that this process knows of.
	Floors() []wire.Floor
	// Note notes one, and is not called under the node's lock: when it returns,
	// nothing older is served, nor what was there by then, and the flush is in the
	// log. An error, one of wire's, says that it cannot be noted.
	Note(f wire.Floor) error
	// Learn notes flushes that others have noted. It is not called under the lock.
	Learn([]wire.Floor)
	// Awaited says whether others wait for something of this process's that its
	// leaving must not cut short.
	Awaited() bool
	// Calls makes what serves another process's requests.
	Calls(from kv.Process) rpc.Handler
}

// The defaults.
const (
	DefaultBound     = 2 * time.Second
	MinBound         = 500 * time.Millisecond
	DefaultMaxSkew   = 500 * time.Millisecond
	DefaultCluster   = "cachesidecar"
	defaultLeaveTime = 10 * time.Second
	maxNode          = 128 // bytes of a node's name
)

// The policies.
const (
	Available  = "available"
	Consistent = "consistent"
)

func (c Config) withDefaults() (Config, error) {
	c.Bound = cmp.Or(c.Bound, DefaultBound)
	c.Detection = cmp.Or(c.Detection, c.Bound*3/2)
	c.MaxSkew = cmp.Or(c.MaxSkew, DefaultMaxSkew)
	c.PollEvery = cmp.Or(c.PollEvery, c.Bound/4)
	c.LeaveTimeout = cmp.Or(c.LeaveTimeout, defaultLeaveTime)
	c.Cluster = cmp.Or(c.Cluster, DefaultCluster)
	c.Policy = cmp.Or(c.Policy, Available)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	c.MaxConns = cmp.Or(c.MaxConns, 4096)
	if c.Weight == 0 {
		c.Weight = 1
	}
	switch {
	case c.Bound < MinBound:
		return c, fmt.Errorf("max_staleness %v: give at least %v", c.Bound, MinBound)
	case c.Detection < c.Bound*3/2:
		return c, fmt.Errorf("detection time %v: give at least %v, 1.5 × max_staleness", c.Detection, c.Bound*3/2)
	}
	if err := c.checkVoters(); err != nil {
		return c, err
	}
	if c.Events == nil { // nobody follows it
		c.Events, _ = invalidation.NewLog(1)
	}
	if c.Bind == "" {
		if len(c.Join) > 0 {
			return c, errors.New("join: there is no bind address: give one, such as 127.0.0.1:7946")
		}
		return c, nil
	}
	if err := c.checkAddresses(); err != nil {
		return c, err
	}
	if c.Network.Listen == nil {
		c.Network.Listen = func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	return c, nil
}

// Check says what is wrong with a configuration, if so.
func (c Config) Check() error {
	_, err := c.withDefaults()
	return err
}

// WeightOf is the weight of a node that offers so much memory, in bytes: in
// units of 1 MiB.
func WeightOf(bytes int64) uint32 { return uint32(min(max(bytes>>20, 1), math.MaxUint32)) }

// settings are what must be the same on all nodes, as HELLO tells them.
func (c *Config) settings() map[string]string {
	s := map[string]string{
		"max_staleness": c.Bound.String(), "detection": c.Detection.String(), "partitions": strconv.Itoa(kv.Partitions),
	}
	s["partition_policy"] = c.Policy
	if c.Policy == Consistent {
		s["voters"] = strings.Join(slices.Sorted(slices.Values(c.Voters)), ",")
	}
	for k, v := range c.Settings {
		s[k] = v
	}
	return s
}

// checkVoters says what is wrong with the policy and the voters, if so.
func (c *Config) checkVoters() error {
	switch {
	case c.Policy != Available && c.Policy != Consistent:
		return fmt.Errorf("partition_policy %q: give %s or %s", c.Policy, Available, Consistent)
	case c.Policy == Available && len(c.Voters) > 0:
		return fmt.Errorf("voters %s: they count under partition_policy %s alone, and it is %s: set it, or leave voters out", strings.Join(c.Voters, ","), Consistent, c.Policy)
	case c.Policy == Available:
		return nil
	case len(c.Voters) == 0:
		return fmt.Errorf("partition_policy %s: there are no voters: give the names of 3 or 5 nodes, the same on all", Consistent)
	case len(c.Voters) != 3 && len(c.Voters) != 5:
		return fmt.Errorf("voters %s: %d are given: give the names of 3 or 5 nodes", strings.Join(c.Voters, ","), len(c.Voters))
	case c.Bind == "":
		return fmt.Errorf("partition_policy %s: there is no bind address, and no voter could be asked: give one, such as 127.0.0.1:7946", Consistent)
	}
	names := slices.Sorted(slices.Values(c.Voters))
	for i, n := range names {
		if n == "" || len(n) > maxNode || strings.ContainsAny(n, " ,\t\r\n\x00") {
			return fmt.Errorf("voters: %q is no node's name: give 1 to %d bytes without blanks and commas", n, maxNode)
		}
		if i > 0 && names[i-1] == n {
			return fmt.Errorf("voters %s: %s is given twice: give the names of 3 or 5 nodes", strings.Join(c.Voters, ","), n)
		}
	}
	return nil
}
