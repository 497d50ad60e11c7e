package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
)

// conflict takes gossip's report of two processes with one name.
func (n *Node) conflict(node, known, other string) {
	n.counts.conflicts.Add(1)
	n.mu.Lock()
	n.named[kv.NodeID(node)] = namesake{at: n.cfg.Clock.Read().Boot, why: fmt.Sprintf("two processes call themselves %s, at %s and %s: names must be unique, set node", node, known, other)}
	n.mu.Unlock()
	if n.line("name", kv.NodeID(node)) {
		n.cfg.Log.Warn("two processes call themselves by one name: names must be unique, set node", "node", node, "known", known, "other", other)
	}
}

// namesake is gossip's last report about a name. Gossip repeats the report for as long
// as the conflict lasts.
type namesake struct {
	at  time.Duration // on the boot clock
	why string
}

// namesakeFor is how long such a report counts.
const namesakeFor = time.Minute

// twice returns the report that a name belongs to two processes, or "". n.mu is held.
func (n *Node) twice(name kv.NodeID) string {
	s, ok := n.named[name]
	if ok && n.cfg.Clock.Read().Boot-s.at >= namesakeFor {
		delete(n.named, name)
		return ""
	}
	return s.why
}

// greeted takes the result of this node's greeting of another node. refused takes any
// refusal, of this node's greetings and of other nodes'.
func (n *Node) greeted(node kv.NodeID, answered kv.Process, err error) {
	switch {
	case err == nil:
		n.met(answered)
		n.reached(answered)
		n.trouble(node, "")
	case answered == (kv.Process{}) && n.troubled(node):
		// The node's reason does not replace the one that this node has found.
		n.counts.refused.Add(1)
	default:
		n.refused(node, err)
	}
}

func (n *Node) refused(node kv.NodeID, err error) {
	if n.ownStop(err) {
		return
	}
	n.counts.refused.Add(1)
	n.metRefused(node)
	if n.trouble(node, err.Error()) && n.line("refused", node) {
		n.cfg.Log.Warn("a host is refused: this one does not talk to it", "node", node, "reason", err)
	}
}

func (n *Node) troubled(node kv.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[node]
	return m != nil && m.trouble != ""
}

// trouble records why a node is not talked to, and reports whether that is new.
func (n *Node) trouble(node kv.NodeID, why string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.members[node]
	if m == nil || m.trouble == why {
		return false
	}
	m.trouble = why
	return true
}

// Outcast returns why this node can neither answer for a key nor ask another node: it
// is out, other nodes are in, and every live member refuses it or is refused by it. It
// returns "" if that may change by itself.
func (n *Node) Outcast() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.outcastLocked()
}

func (n *Node) outcastLocked() (why string) {
	if n.machine.In() || len(n.machine.Entered()) > 0 {
		return ""
	}
	// stuck: this node cannot poll the members, and their trouble says why.
	stuck := n.machine.Trouble(n.cfg.Self.Node) != ""
	for _, m := range n.members {
		switch {
		case !m.alive:
		case m.trouble == "":
			return ""
		case (m.in || stuck) && (why == "" || m.trouble < why):
			why = m.trouble
		}
	}
	return why // if no member is in, this node may still come in
}

// Stats counts what has happened. Begun, Ended and Retired count partitions.
type Stats struct {
	Members               int // live members, this node included
	In                    bool
	Owned                 int
	Begun, Ended, Retired int64
	Pauses                int64
	Stopped               time.Duration // not running, in gaps that count
	Polls, PollFailures   int64
	Refused, Conflicts    int64

	// Events of logs.
	Applied, Gaps, Resets     int64
	Relayed, Unrelayed, Heard int64
	Lag                       time.Duration
	Links                     peer.Stats // connections from other nodes
	Leases                    []Lease

	Gossip gossip.Stats
	Met    Met // of processes that only gossip had told of
}

// Lease has the age of the lease on another process; negative if there is none.
type Lease struct {
	Node kv.NodeID
	Age  time.Duration
}

// Stats returns the counts so far.
func (n *Node) Stats() Stats {
	c := &n.counts
	s := Stats{
		Members: 1 + n.others(), Begun: c.begun.Load(), Ended: c.ended.Load(), Retired: c.retired.Load(), Pauses: c.pauses.Load(), Stopped: time.Duration(c.stopped.Load()),
		Polls: c.polls.Load(), PollFailures: c.pollFailures.Load(), Refused: c.refused.Load(), Conflicts: c.conflicts.Load(),
	}
	s.Applied, s.Gaps, s.Resets = c.applied.Load(), c.gaps.Load(), c.resets.Load()
	s.Relayed, s.Unrelayed, s.Heard = c.relayed.Load(), c.unrelayed.Load(), c.heard.Load()
	s.Lag = time.Duration(c.lag.Load())
	s.Owned, s.Links = n.Owned().Len(), n.server.Stats()
	s.Met = n.meeting.stats()
	now := n.cfg.Clock.Read().Boot
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gossip != nil {
		s.Gossip = n.gossip.Stats()
	}
	s.In = n.machine.In()
	for id, o := range n.owners {
		switch at := o.LeasedAt(); {
		case id == n.cfg.Self:
		case at == 0:
			s.Leases = append(s.Leases, Lease{id.Node, -1})
		default:
			s.Leases = append(s.Leases, Lease{id.Node, now - at})
		}
	}
	slices.SortFunc(s.Leases, func(a, b Lease) int { return cmp.Compare(a.Node, b.Node) })
	return s
}

// Member is what this node knows about a node: another one, or itself.
type Member struct {
	ID      kv.Process
	Address string
	State   string // one of the states below
	Why     string
	Weight  uint32
	Owned   int // partitions that the ring assigns to it
	// MayOwn says that it owns something, or may come to. Operations on the whole
	// cluster wait for it. MayOwn is false for a process that has left or is considered
	// dead (gossip misses it, and nothing was heard of it on any path for the detection
	// time), and for a Stranger.
	MayOwn bool
	// Stranger says that it is refused and has never been in. It is no part of the
	// cluster.
	Stranger bool
}

// States of a member.
const (
	StateIn      = "in"      // it owns partitions
	StateOut     = "out"     // it lives, and owns none
	StateMissing = "missing" // gossip considers it dead
	StateLeft    = "left"    // it has said goodbye
	StateRefused = "refused" // it is not talked to; see Why
	StateUnknown = "unknown" // only gossip tells of it, and it counts for nothing
)

// Members lists this node and the others, sorted by name.
func (n *Node) Members() []Member {
	v := n.View()
	share := map[kv.NodeID]int{}
	for i, c := range v.Table.Counts() {
		share[v.Table.Members()[i].Node] = c
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	self := Member{ID: n.cfg.Self, Address: n.address, State: state(n.machine.In()), Weight: n.machine.Weight(), Owned: share[n.cfg.Self.Node], MayOwn: true, Why: cmp.Or(n.twice(n.cfg.Self.Node), n.outcastLocked(), n.machine.Trouble(n.cfg.Self.Node))}
	list := []Member{self}
	now := n.cfg.Clock.Read().Boot
	for name, m := range n.members {
		_, dead := n.machine.Silence(now, name)
		o := Member{ID: m.id, Address: m.address, Weight: m.weight, Owned: share[name], State: state(m.in), Stranger: m.stranger(), Why: cmp.Or(m.trouble, n.twice(name), n.machine.Trouble(name))}
		o.MayOwn = m.left != m.id && !(dead && !m.alive) && !o.Stranger
		switch {
		case m.left == m.id:
			o.State, o.Why = StateLeft, ""
		case !m.alive:
			o.State = StateMissing
			if o.Why == "" {
				o.Why = "gossip does not hear it any more"
			}
		case m.trouble != "":
			o.State = StateRefused
		}
		list = append(list, o)
	}
	list = append(list, n.unknown()...)
	slices.SortFunc(list, func(a, b Member) int { return a.ID.Compare(b.ID) })
	return list
}

func state(in bool) string {
	if in {
		return StateIn
	}
	return StateOut
}

// GossipAddress returns the address where others can join; "" before Run has begun.
func (n *Node) GossipAddress() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gossip == nil {
		return ""
	}
	return n.gossip.Address()
}
