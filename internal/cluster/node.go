package cluster

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Node is this process's part in the cluster. It composes the parts below, each of which
// has one duty. The driver has the lock under which ownership is decided; see there for
// the rules. Node is safe for concurrent use.
type Node struct {
	cfg           *Config
	counts        *counts
	driver        *driver        // drives the state machine: which process owns what now
	acquaintances *acquaintances // which of the processes that gossip tells of count
	admission     *admission     // whether another process's messages count
	watcher       *watcher       // the members, and how they come and go
	poller        *poller        // polls the members
	following     *following     // follows the logs of the members
	followers     *followers     // serves this process's log to the members
	relay         *relay         // sends and takes events in gossip
	flusher       *flusher       // flushes the cluster
	departure     *departure     // leaves the cluster in order
	Agreement     *Agreement     // compares the members' settings with this node's

	pool      *peer.Pool
	server    *peer.Server
	listening chan struct{} // closed when other nodes can find this one
}

// SingleNode reports whether there can never be another member.
func (n *Node) SingleNode() bool { return n.cfg.Bind == "" }

// Self returns this process.
func (n *Node) Self() kv.Process { return n.cfg.Self }

// Bound returns B.
func (n *Node) Bound() time.Duration { return n.cfg.Bound }

// SetLeaveTime limits the time in which others fetch the entries of this node when it is drained or
// leaves. It does not change a handover that is under way.
func (n *Node) SetLeaveTime(d time.Duration) { n.departure.leaveTime.Store(int64(d)) }

// LeaveTime returns it.
func (n *Node) LeaveTime() time.Duration { return time.Duration(n.departure.leaveTime.Load()) }

// View returns the present ring.
func (n *Node) View() *View { return n.driver.view.Load() }

// OwnershipEpoch returns the epoch of this node's ownership of a partition; zero if the
// node does not serve the partition. An epoch is never used again.
func (n *Node) OwnershipEpoch(p uint16) uint32 { return n.driver.epochs[p].Load() }

// ReleasedWith reports whether a change that this node has stamped with v belongs to an
// ownership that was released meanwhile, or is to be: the next owner gets the change.
// Call CheckPause before.
func (n *Node) ReleasedWith(p uint16, epoch uint32, v kv.Version) bool {
	var last lastOwnership
	n.driver.withState(func(s *state) { last = s.last[p] })
	return last.epoch == epoch && (last.asOf == 0 || v <= last.asOf)
}

// Owned returns the set of partitions that this node owns and serves.
func (n *Node) Owned() kv.PartitionSet { return n.driver.owned() }

// CheckPause ends ownerships after a pause of this process, and when their authority is
// over. now is a reading of the boot clock. Call it before any answer from what this
// node owns, and again before a write is acknowledged. If the process did not run for
// B, or for several stalls that add up to a pause, all ownerships have ended when
// CheckPause returns. With voters, ownerships have also ended that no majority of them
// has acknowledged for B.
func (n *Node) CheckPause(now time.Duration) { n.driver.checkPause(now) }

// Quorum reports whether a partition without an owner can be taken by a node that this
// one reaches. Under policy Consistent that needs a majority of the voters.
func (n *Node) Quorum() bool { return n.driver.quorum.Load() }

// SetWeight changes this node's share of the keys, relative to other nodes.
func (n *Node) SetWeight(weight uint32) {
	n.driver.step(func(s *state, now time.Duration) { s.machine.SetWeight(now, weight) })
}

// Drain makes this node own nothing: other nodes take over its partitions, with their
// entries. It returns once that is done, after the leave time, or when ctx ends; what has
// begun continues. Requests are answered throughout. A second call waits for the same
// end. Unless forced, Drain returns ErrNoHeir if no other node could take anything. A node
// that was just started may not know the others yet: Drain waits for them first, and
// returns ErrNotIn if ctx ends meanwhile.
// SetWeight does not end the drained state; Undrain does, and so does the process's end.
func (n *Node) Drain(ctx context.Context, force bool) (HandedOver, error) {
	if !force {
		if err := n.departure.awaitIn(ctx); err != nil {
			return HandedOver{}, err
		}
	}
	return n.departure.drain(ctx, force)
}

// Undrain takes Drain back, also in its middle: the call of Drain then returns ErrUndone.
// It reports whether the node was drained, and returns ErrStopping after HandOver.
func (n *Node) Undrain() (was bool, err error) { return n.departure.undrain() }

// AwaitVoters waits until the other voters can do without this node, for at most
// waitsWithin, and HandOver is Drain for a node that is about to end. Undrain is refused
// from now on. A node from which no other could take anything keeps what it owns. Run
// does the same when its context ends; a caller that does it before can go on serving
// meanwhile.
func (n *Node) AwaitVoters(ctx context.Context) { n.departure.awaitVoters(ctx) }

// HandOver is described at AwaitVoters.
func (n *Node) HandOver(ctx context.Context) { n.departure.handOver(ctx) }

// Changed returns a channel that is closed when the view or an ownership changes. To
// wait for a condition, call Changed first and check the condition afterwards.
func (n *Node) Changed() (changed <-chan struct{}) {
	n.driver.withState(func(s *state) { changed = s.changed })
	return changed
}

// Do sends a request to another process and waits for its answer; see peer.Pool.Do.
func (n *Node) Do(ctx context.Context, to kv.Process, timeout time.Duration, q *wire.Request, a *peer.Answer) error {
	return n.pool.Do(ctx, to, peer.Call, timeout, q, a)
}

// CheckVersion returns an error if newest, the newest version in an answer of a process, is
// too far ahead. The caller must then ignore the answer. Do has called CheckVersion already.
func (n *Node) CheckVersion(from kv.Process, newest uint64) error {
	return n.pool.Admit(from, newest)
}

// Live returns the connection for calls to another process; nil if there is none.
func (n *Node) Live(to kv.Process) *rpc.Client { return n.pool.Live(to, peer.Call) }

// Applied waits until every process that may have a lease on this one has applied its
// log up to a place. It waits for Margin(B) at most: by then no lease from before can
// be valid. It returns false if ctx ends first.
func (n *Node) Applied(ctx context.Context, place uint64) bool {
	return n.followers.applied(ctx, place)
}

// Flush flushes a namespace on all nodes, or all namespaces if the name is empty, and
// returns the flush's version. Until ctx ends it asks again the processes that have not
// answered.
func (n *Node) Flush(ctx context.Context, name string) (kv.Version, *wire.Error) {
	return n.flusher.flush(ctx, name)
}

// Forget drops all that this node knows about another node that is considered dead or
// has left. It reports whether the node was known. It returns ErrSelf for this node,
// and ErrLives for a node that lives or is not known to be dead yet. Other hosts are
// not told. If a process with that name comes back later, it joins like any other.
func (n *Node) Forget(node kv.NodeID) (known bool, err error) {
	if node == n.cfg.Self.Node {
		return true, ErrSelf
	}
	return n.watcher.forget(node)
}

// Outcast returns why this node can neither answer for a key nor ask another node: it
// is out, other nodes are in, and every live member refuses it or is refused by it. It
// returns "" if that may change by itself.
func (n *Node) Outcast() (why string) {
	n.driver.withState(func(s *state) { why = s.outcast() })
	return why
}

// Certified says that everything is deleted that readers of a feed's origin saw at a moment of the boot
// clock, and the checkpoint of its stream then.
func (n *Node) Certified(feed string, at time.Duration, checkpoint string) {
	n.driver.step(func(s *state, now time.Duration) {
		if c := s.feeds.named(feed); c != nil && (!c.heard || at > c.at) {
			c.heard, c.at, c.state = true, at, checkpoint
			s.judgeFeeds(now)
		}
	})
}

// FeedCheckpoint returns that checkpoint, of the last moment that this node has heard of.
func (n *Node) FeedCheckpoint(feed string) (checkpoint string) {
	n.driver.withState(func(s *state) {
		if c := s.feeds.named(feed); c != nil {
			checkpoint = c.state
		}
	})
	return checkpoint
}

// FeedLag returns the age of what is certified of a feed, and whether that is too much for its
// namespaces to be served. bounded is whether its lag is bounded at all; an age of zero means that
// nothing was certified yet.
func (n *Node) FeedLag(feed string) (age time.Duration, late, bounded bool) {
	n.driver.withState(func(s *state) {
		c := s.feeds.named(feed)
		if c == nil || c.MaxLag == 0 {
			return
		}
		if c.heard {
			age = max(1, n.cfg.Clock.Read().Boot-c.at)
		}
		late, bounded = c.late, true
	})
	return age, late, bounded
}
