package cluster

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Config configures a Node. Zero values mean the defaults.
type Config struct {
	Self    kv.Process
	Cluster string // name of the cluster; nodes of other clusters are refused
	// Weight is the memory that this node offers, in a unit that is the same on all
	// nodes.
	Weight uint32

	// Bind is where gossip listens, host:port. Without it the node is alone.
	Bind string
	// PeerBind is where requests of other sidecars are served, host:port.
	PeerBind string
	// Advertise is the host under which other nodes reach this one. Default: the host
	// of Bind.
	Advertise string
	// Join lists gossip addresses of other nodes.
	Join []string
	// Secured says that Credentials is given. Without it all addresses must be loopback
	// addresses. Insecure lifts that rule, although nothing between hosts is encrypted
	// then.
	Secured, Insecure bool
	// Credentials returns what this node shows to other nodes and accepts from them, with
	// the keys of gossip. Call Renew after a change. Nil: nothing is encrypted.
	Credentials func() *peer.Credentials

	// Bound is B, the most that a copy may be behind. Default: 2 s; at least 500 ms.
	Bound time.Duration
	// MaxSkew is how far wall clocks may differ. Default: 500 ms.
	MaxSkew time.Duration
	// Policy is for the side of a split cluster that cannot reach a majority of the
	// voters. Available, the default: it continues. Consistent: it serves nothing that
	// the other side may change.
	Policy string
	// Voters are the names of 3 or 5 nodes, under policy Consistent. A majority of them
	// acknowledges every ownership.
	Voters []string
	// Settings must be the same on all nodes, as Bound must.
	Settings map[string]string
	// Digests are of the settings that change an answer, which other nodes compare.
	Digests Digests
	// Feeds are the feeds of changes.
	Feeds []Feed
	// LeaveTime limits the time in which others fetch the entries of this node when it is
	// drained or leaves; see Node.SetLeaveTime.
	LeaveTime time.Duration

	Clock    kv.Clock
	Versions *kv.HLC
	Delegate Delegate
	Mirror   Mirror
	// Budget limits the memory of requests and answers between hosts. Default: a budget
	// of its own.
	Budget *quota.Budget
	// Events is this process's log; nil without Bind. The code that ends ownership appends
	// to it.
	Events *invalidation.Log
	// MaxConns limits the connections from other sidecars. Default: 4,096.
	MaxConns int
	// PollEvery is the time between two polls of a member. Default and maximum:
	// Bound/4.
	PollEvery time.Duration
	Log       *slog.Logger

	// Network replaces the machine's network, for tests.
	Network Network
}

// Network is what the node needs of a network, and of a cluster in one process. Nil
// functions mean the machine's.
type Network struct {
	Table     func([]ownership.RingMember) *ownership.Ring // makes the ring; default: ownership.NewRing
	Listen    func(address string) (net.Listener, error)
	Dial      func(ctx context.Context, address string) (net.Conn, error)
	Transport func(address string) memberlist.Transport // for gossip
	Resolve   func(ctx context.Context, host string) ([]string, error)
	NoRelay   bool                // events travel by the logs only
	Nap       func(time.Duration) // sleeps for less than 1 ms
}

// Delegate stores the entries. Begin, Ended, Late, StillLate and Offer are called under the node's lock, one
// call at a time; they must not block and must not call methods of the node. The others
// are called without it, and may be called concurrently.
type Delegate interface {
	// Begin starts ownership of partitions. Entries stored for them before become
	// unreachable, and the partitions are served as soon as Begin returns. The entries
	// of the releasers can be fetched from them. owner returns the Host of a process
	// that b names; some of these processes may be about to leave.
	Begin(b ownership.Begun, owner func(kv.Process) *Host)
	// Settle waits for the changes that are being made. No others follow in partitions
	// of which OwnershipEpoch is zero.
	Settle()
	// Ended says that the partitions are not served any more. Every acknowledged write
	// is older than asOf.
	Ended(partitions kv.PartitionSet, asOf kv.Version)
	// Late says that changes of some namespaces are told of too late from now on, or in time again.
	// When it returns, nothing is served of them that was loaded before. owned are the partitions
	// that this node owns.
	Late(names []string, late bool, owned kv.PartitionSet)
	// StillLate is called every Bound while they are late: what began before must not be joined.
	StillLate(names []string)
	// Offer lets a process fetch the entries of partitions whose ownership it has ended
	// with a ballot. It may be called again for the same partitions.
	Offer(to kv.Process, ballot *kv.Ballot, partitions kv.PartitionSet)
	// Exiting is called before this node hands over what it owns because it ends. If KeepsEntries says so from then
	// on, a later process may have the entries again that are handed over.
	Exiting()
	KeepsEntries() bool
	// Apply takes events of another process's log: those after a place, in their order.
	// It is not called under the node's lock. The events of one process arrive in one
	// call at a time.
	Apply(from kv.Process, after uint64, events []invalidation.Event)
	// Relayed takes events that may arrive in any order, more than once, after the end of their
	// process, or never.
	Relayed(events []invalidation.Event)
	// Reset stands for lost events. floor is above the versions of all of them.
	Reset(from kv.Process, marks []invalidation.Mark, floors []wire.Floor, floor kv.Version)
	// Floors returns the flushes of namespaces that this process knows.
	Floors() []wire.Floor
	// NoteFlush notes a flush. When it returns, no older value is served, nor any value that
	// was stored by then, and the flush is in the log. An error is a *wire.Error and
	// means that the flush cannot be noted. NoteFlush is not called under the node's lock.
	NoteFlush(f wire.Floor) error
	// LearnFlushes notes flushes that other nodes have noted. It is not called under the lock.
	LearnFlushes([]wire.Floor)
	// Awaited reports whether other nodes wait for something of this process that must
	// finish before it leaves.
	Awaited() bool
	// Calls returns the handler that serves another process's requests.
	Calls(from kv.Process) server.Handler
}

// Mirror shows to other processes what this node knows of the owners, so that they can serve
// values by themselves. All its methods but Leased, Running and Ran are called under the
// node's lock. They must not block and must not call methods of the node.
type Mirror interface {
	// Viewed says that a view has taken effect.
	Viewed(v *View)
	// Stopped says that this node does not serve some partitions any more.
	Stopped(partitions kv.PartitionSet)
	// Leased says that all that a process had accepted until a moment is applied here.
	Leased(o *Host, at time.Duration)
	// Paused says that no lease holds any more, since this process did not run.
	Paused()
	// Running and Ran are called around each look for a pause. until is the moment up to
	// which this node knows what it owns; zero: it owns nothing. What Running returns is
	// passed on to Ran.
	Running() (mark time.Duration)
	Ran(mark, until time.Duration)
}

// The defaults.
const (
	DefaultBound   = 2 * time.Second
	MinBound       = 500 * time.Millisecond
	DefaultMaxSkew = 500 * time.Millisecond
	DefaultCluster = "cachesidecar"
	maxNode        = 128 // bytes of a node's name
)

// The policies.
const (
	Available  = "available"
	Consistent = "consistent"
)

func (c Config) withDefaults() (Config, error) {
	c.Bound = cmp.Or(c.Bound, DefaultBound)
	c.MaxSkew = cmp.Or(c.MaxSkew, DefaultMaxSkew)
	c.PollEvery = cmp.Or(c.PollEvery, c.Bound/4)
	c.Cluster = cmp.Or(c.Cluster, DefaultCluster)
	c.Policy = cmp.Or(c.Policy, Available)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	c.MaxConns = cmp.Or(c.MaxConns, 4096)
	c.Weight = cmp.Or(c.Weight, 1)
	if c.Bound < MinBound {
		return c, settings.Problemf("max_staleness", "%v: give at least %v", c.Bound, MinBound)
	}
	wrong := c.checkVoters()
	if c.Bind == "" {
		if len(c.Join) > 0 {
			wrong = errors.Join(wrong, settings.Problemf("join", ": there is no bind address: give one, such as "+
				"127.0.0.1:7946"))
		}
		return c, wrong
	}
	if wrong = errors.Join(wrong, c.checkAddresses()); wrong != nil {
		return c, wrong
	}
	if c.Network.Listen == nil {
		c.Network.Listen = func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	return c, nil
}

// Check returns what is wrong with a configuration, or nil.
func (c Config) Check() error {
	_, err := c.withDefaults()
	return err
}

// WeightOf returns the weight of a node that offers so many bytes of memory: one per
// MiB, at least 1.
func WeightOf(bytes int64) uint32 { return uint32(min(max(bytes>>20, 1), math.MaxUint32)) }

// Margin returns how long to wait here for a time d that another clock measures.
func Margin(d time.Duration) time.Duration { return ownership.Margin(d) }

// detection returns D: a member that gossip misses counts as dead after so long a silence.
func (c *Config) detection() time.Duration { return c.Bound * 3 / 2 }

// settings returns what must be the same on all nodes, as PEER_HELLO sends it.
func (c *Config) settings() map[string]string {
	s := map[string]string{
		"max_staleness": c.Bound.String(), "detection": c.detection().String(),
		"partitions": strconv.Itoa(kv.Partitions), "partition_policy": c.Policy,
	}
	if c.Policy == Consistent {
		s["voters"] = strings.Join(slices.Sorted(slices.Values(c.Voters)), ",")
	}
	maps.Copy(s, c.Settings)
	return s
}

// limits returns the limits of the server for other sidecars.
func (c *Config) limits() server.Limits {
	return server.Limits{MaxConns: c.MaxConns, MaxFrame: 64 << 20, Budget: c.Budget}
}

// followWait returns how long an answer to FOLLOW waits for an event.
func (c *Config) followWait() time.Duration { return c.Bound / 4 }

// majority returns how many voters are a majority.
func (c *Config) majority() int { return len(c.Voters)/2 + 1 }

// checkVoters returns what is wrong with the policy and the voters, or nil.
func (c *Config) checkVoters() error {
	voters := strings.Join(c.Voters, ",")
	switch {
	case c.Policy != Available && c.Policy != Consistent:
		return settings.Problemf("partition_policy", "%q: give %s or %s", c.Policy, Available, Consistent)
	case c.Policy == Available && len(c.Voters) > 0:
		return settings.Problemf("voters", "%s: they count under partition_policy %s alone, and it is %s: "+
			"set it, or leave voters out", voters, Consistent, c.Policy)
	case c.Policy == Available:
		return nil
	case len(c.Voters) == 0:
		return settings.Problemf("partition_policy", "%s: there are no voters: give the names of 3 or 5 nodes, "+
			"the same on all",
			Consistent)
	case len(c.Voters) != 3 && len(c.Voters) != 5:
		return settings.Problemf("voters", "%s: %d are given: give the names of 3 or 5 nodes", voters, len(c.Voters))
	case c.Bind == "":
		return settings.Problemf("partition_policy", "%s: there is no bind address, and no voter could be asked: "+
			"give one, such as 127.0.0.1:7946", Consistent)
	}
	names := slices.Sorted(slices.Values(c.Voters))
	for i, n := range names {
		if n == "" || len(n) > maxNode || strings.ContainsAny(n, " ,\t\r\n\x00") {
			return settings.Problemf("voters", ": %q is no node's name: give 1 to %d bytes without blanks and "+
				"commas", n, maxNode)
		}
		if i > 0 && names[i-1] == n {
			return settings.Problemf("voters", "%s: %s is given twice: give the names of 3 or 5 nodes", voters, n)
		}
	}
	return nil
}

func nodes(names []string) []kv.NodeID {
	out := make([]kv.NodeID, len(names))
	for i, s := range names {
		out[i] = kv.NodeID(s)
	}
	return out
}
