package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// A member that is gone stays known for a while: an operator can see it, and its
// address is tried. Operations on the whole cluster wait for it, or name it. It is
// therefore forgotten, when an operator says so or after ForgetAfter. Each host forgets
// by itself, because hosts do not tell each other about dead members.

// ForgetAfter is how long a member that is considered dead, or has left, must be silent
// before it is forgotten.
const ForgetAfter = time.Hour

// sweepEvery is how often a node looks for members to forget.
const sweepEvery = time.Second

// Errors of Forget.
var (
	ErrSelf  = errors.New("a host does not forget itself")
	ErrLives = errors.New("it lives")
)

// Forget drops all that this node knows about another node that is considered dead or
// has left. It reports whether the node was known. It returns ErrSelf for this node,
// and ErrLives for a node that lives or is not known to be dead yet. Other hosts are
// not told. If a process with that name comes back later, it joins like any other.
func (n *Node) Forget(node kv.NodeID) (known bool, err error) {
	if node == n.cfg.Self.Node {
		return true, ErrSelf
	}
	n.step(func(m *ownership.Machine, now time.Duration) {
		o := n.members[node]
		if o == nil {
			return
		}
		known = true
		silence, dead := m.Silence(now, node)
		switch {
		case o.alive:
			err = fmt.Errorf("%w: gossip hears it, state %s", ErrLives, o.word())
		case !m.Forget(now, node, 0):
			err = fmt.Errorf("%w, as far as is known yet: it was heard %v ago, and counts as dead after %v of silence",
				ErrLives, silence.Round(time.Millisecond), n.cfg.Detection)
		default:
			n.drop(node, o)
			n.gossip.Forget(string(node))
			n.cfg.Log.Info("a host is forgotten, as told", "node", node, "dead", dead)
		}
	})
	return known, err
}

// word returns the member's state as Members shows it.
func (m *member) word() string {
	if m.trouble != "" {
		return StateRefused
	}
	return state(m.in)
}

// stranger reports whether a process was refused, or refuses this one, and has never
// been in. Such a process owns nothing, and nothing waits for it.
func (m *member) stranger() bool { return m.trouble != "" && !m.wasIn }

// drop ends what this node does for a forgotten member: its connections, its poller and
// follower, its lease. n.mu is held.
func (n *Node) drop(node kv.NodeID, o *member) {
	if o.stop != nil {
		o.stop()
	}
	n.pool.Remove(o.id)
	n.known.drop(o.id)
	delete(n.members, node)
	delete(n.named, node)
	n.dropOwners()
	n.readers.drop(n.cfg.Clock.Read().Boot, Margin(n.cfg.Bound))
}

// sweep forgets the members that have been gone for long enough. Strangers are
// forgotten at once. n.mu is held.
func (n *Node) sweep(m *ownership.Machine, now time.Duration) {
	if now < n.sweepAt {
		return
	}
	n.sweepAt = now + sweepEvery
	for node, o := range n.members {
		if o.alive || now-o.goneAt < n.forgetAfter(o) || !m.Forget(now, node, n.forgetAfter(o)) {
			continue
		}
		n.drop(node, o)
		switch {
		case o.stranger():
			n.gossip.Forget(string(node))
			n.cfg.Log.Info("a host that was refused is gone", "node", node, "reason", o.trouble)
		case o.left == o.id:
			n.gossip.Forget(string(node))
		default:
			n.gossip.Drop(string(node))
			n.cfg.Log.Info("a host is forgotten: it is gone for long", "node", node, "silent_for", ForgetAfter)
		}
	}
	n.dropOwners()
}

func (n *Node) forgetAfter(o *member) time.Duration {
	if o.stranger() {
		return 0
	}
	return ForgetAfter
}

// about is step for information about a process. It does nothing if the process is not
// known any more: late information must not bring back a forgotten member.
func (n *Node) about(id kv.Process, f func(m *ownership.Machine, now time.Duration)) {
	n.step(func(m *ownership.Machine, now time.Duration) {
		if o := n.members[id.Node]; o != nil && o.id == id {
			f(m, now)
		}
	})
}

// from is step for a request of a process. If gossip does not know the process, its
// silence counts like that of a member that gossip has lost.
func (n *Node) from(id kv.Process, f func(m *ownership.Machine, now time.Duration)) {
	n.step(func(m *ownership.Machine, now time.Duration) {
		f(m, now)
		if n.members[id.Node] == nil {
			m.Missing(now, id.Node)
		}
	})
}
