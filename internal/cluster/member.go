package cluster

import (
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// member is what this node knows of another node, and its poller. The machine has what the
// process tells about itself.
type member struct {
	id      kv.Process
	address string
	hint    uint64        // the count of its changes of weight and in, as gossip has told
	hintOut bool          // gossip says that the process is out
	toldAt  time.Duration // boot clock when the process itself last told, in a poll or in the answer to one
	reached bool          // it has answered a greeting at its address
	alive   bool
	goneAt  time.Duration // since when it is not alive, on the boot clock
	left    kv.Process    // the last process that has said goodbye
	trouble string        // why it is not talked to
	skewed  bool          // its clock was too far off at the last check
	stop    func()        // ends its poller; nil if there is none
	kick    chan struct{} // has an element if the next poll must not wait
	acquire chan struct{} // has an element for each ACQUIRE in flight
	auth    chan struct{} // has an element for each AUTH in flight
}

// maxAcquires limits the ACQUIREs to one member that are in flight. A further one is
// dropped, because the machine asks again.
const maxAcquires = 4

// maxAuths is the same for AUTHs. One is sent every B/4 and waits for B/2.
const maxAuths = 8

func newMember() *member {
	return &member{
		acquire: make(chan struct{}, maxAcquires), auth: make(chan struct{}, maxAuths), kick: make(chan struct{}, 1),
	}
}

// wake has one turn of a goroutine wait in its channel, which has room for one.
func wake(turns chan<- struct{}) {
	select {
	case turns <- struct{}{}:
	default:
	}
}

// after returns the member after gossip's report of it. Gossip's address counts until the
// process has answered there; then it is final for that process.
func (m *member) after(id kv.Process, g *gossip.Member) member {
	next := *m
	if m.id != id {
		next.reached, next.skewed = false, false
	}
	next.id, next.alive, next.hint, next.hintOut = id, g.Alive, g.Meta.State, !g.Meta.In
	if !next.reached {
		next.address = g.Meta.Address
	}
	return next
}

// members has the other nodes that gossip has told of.
type members map[kv.NodeID]*member

// process returns the member whose present process is id; nil if there is none.
func (ms members) process(id kv.Process) *member {
	if m := ms[id.Node]; m != nil && m.id == id {
		return m
	}
	return nil
}

// alive lists the processes of the members that gossip hears.
func (ms members) alive() (list []kv.Process) {
	for _, m := range ms {
		if m.alive {
			list = append(list, m.id)
		}
	}
	return list
}

// namesakes has gossip's last report about each name that belongs to two processes. Gossip
// repeats the report for as long as the conflict lasts.
type namesakes map[kv.NodeID]namesake

type namesake struct {
	at  time.Duration // on the boot clock
	why string
}

// namesakeFor is how long such a report counts.
const namesakeFor = time.Minute

// why returns the report about a name, or "".
func (ns namesakes) why(name kv.NodeID, now time.Duration) string {
	if now-ns[name].at >= namesakeFor {
		delete(ns, name)
	}
	return ns[name].why
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
	StateDrained = "drained" // it lives, and wants none: it was drained, or it leaves
	StateMissing = "missing" // gossip considers it dead
	StateLeft    = "left"    // it has said goodbye
	StateRefused = "refused" // it is not talked to; see Why
	StateUnknown = "unknown" // only gossip tells of it, and it counts for nothing
)

// States has all states of members.
var States = [...]string{StateIn, StateOut, StateDrained, StateMissing, StateLeft, StateRefused, StateUnknown}

// liveState returns the state of a member that lives. A weight of zero is told only by a
// member that is drained.
func liveState(in bool, weight uint32) string {
	switch {
	case weight == 0:
		return StateDrained
	case in:
		return StateIn
	}
	return StateOut
}
