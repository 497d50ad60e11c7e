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

// conflict is gossip's word of two processes under one name.
func (n *Node) conflict(node, known, other string) {
	n.counts.conflicts.Add(1)
	n.mu.Lock()
	n.named[kv.NodeID(node)] = namesake{at: n.cfg.Clock.Read().Boot, why: fmt.Sprintf("two processes call themselves %s, at %s and %s: names must be unique, set node", node, known, other)}
	n.mu.Unlock()
	if n.line("name", kv.NodeID(node)) {
		n.cfg.Log.Warn("two processes call themselves by one name: names must be unique, set node", "node", node, "known", known, "other", other)
	}
}

// namesake is what gossip has told of a name, and when: it tells it again for as
// long as it lasts.
type namesake struct {
	at  time.Duration // on the boot clock
	why string
}

// namesakeFor is how long that counts.
const namesakeFor = time.Minute

// twice says that a name is that of two processes, if it is. The lock is held.
func (n *Node) twice(name kv.NodeID) string {
	s, ok := n.named[name]
	if ok && n.cfg.Clock.Read().Boot-s.at >= namesakeFor {
		delete(n.named, name)
		return ""
	}
	return s.why
}

// greeted and refused tell of greetings, this node's and others'.
func (n *Node) greeted(node kv.NodeID, answered kv.Process, err error) {
	switch {
	case err == nil:
		n.met(answered)
		n.reached(answered)
		n.trouble(node, "")
	case answered == (kv.Process{}) && n.troubled(node):
		n.counts.refused.Add(1) // what it says does not replace what this one has found
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

// trouble notes why a node is not talked to, and says whether that is news.
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

// Outcast says why this node can answer for no key and ask nobody: it is out,
// others are in, and all that live refuse it, or are refused by it. It is ""
// where that may change by itself.
func (n *Node) Outcast() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.outcastLocked()
}

func (n *Node) outcastLocked() (why string) {
	if n.machine.In() || len(n.machine.Entered()) > 0 {
		return ""
	}
	stuck := n.machine.Trouble(n.cfg.Self.Node) != "" // that it cannot poll those, of which this says why
	for _, m := range n.members {
		switch {
		case !m.alive:
		case m.trouble == "":
			return ""
		case (m.in || stuck) && (why == "" || m.trouble < why):
			why = m.trouble
		}
	}
	return why // where nobody is in, this node may come in yet
}

// Stats counts what has happened; Begun, Ended and Retired are of partitions.
type Stats struct {
	Members               int // that live, this one included
	In                    bool
	Owned                  int
	Begun, Ended, Retired int64
	Pauses                int64
	Stopped               time.Duration // in which the process did not run, in gaps that count
	Polls, PollFailures   int64
	Refused, Conflicts    int64

	// Of events of logs.
	Applied, Gaps, Resets     int64
	Relayed, Unrelayed, Heard int64
	Lag                       time.Duration
	Links                     peer.Stats // connections of others to this node
	Leases                    []Lease

	Gossip gossip.Stats
	Met    Met // of members that gossip alone had told of
}

// Lease is how old the lease on another process is, less than zero where there
// is none.
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

// Member is what this node knows of another, or of itself.
type Member struct {
	ID      kv.Process
	Address string
	State   string // one of the below
	Why     string
	Weight  uint32
	Owned    int // partitions that the ring gives it
	// MayHold says that it holds something, or may come to: what is for the whole
	// cluster waits for it. It is false for a process that has left or is held for
	// dead (gossip misses it, and nothing was heard of it for the detection time on
	// any path), and for one that is refused and has never been in.
	MayOwn bool
	// Stranger says that it is refused, and has never been in: it is no part of the
	// cluster.
	Stranger bool
}

// States of a member.
const (
	StateIn      = "in"      // it owns partitions
	StateOut     = "out"     // it lives, and owns none
	StateMissing = "missing" // gossip holds it for dead
	StateLeft    = "left"    // it has said goodbye
	StateRefused = "refused" // it is not talked to: Why says why
	StateUnknown = "unknown" // gossip alone tells of it, and it counts for nothing
)

// Members lists this node and the others, by name.
func (n *Node) Members() []Member {
	v := n.View()
	share := map[kv.NodeID]int{}
	for i, c := range v.Table.Counts() {
		share[v.Table.Members()[i].Node] = c
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	self := Member{ID: n.cfg.Self, Address: n.address, State: state(n.machine.In()), Weight: n.machine.Weight(), Owned: share[n.cfg.Self.Node], MayOwn: true, Why: cmp.Or(n.machine.Refused(), n.twice(n.cfg.Self.Node), n.outcastLocked(), n.machine.Trouble(n.cfg.Self.Node))}
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

// GossipAddress is where others can join, once Run has begun; "" before.
func (n *Node) GossipAddress() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gossip == nil {
		return ""
	}
	return n.gossip.Address()
}
