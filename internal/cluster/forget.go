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
// by itself, because hosts do not tell each other about dead members. A host that is
// isolated forgets no member by itself: the others may live, and it is cut off from them.

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

// forget drops all that this node knows about another node; see Node.Forget.
func (ms *membership) forget(node kv.NodeID) (known bool, err error) {
	ms.driver.step(func(m *ownership.Machine, now time.Duration) {
		o := ms.driver.members[node]
		if o == nil {
			return
		}
		known = true
		silence, dead := m.Silence(now, node)
		switch {
		case o.alive:
			err = fmt.Errorf("%w: gossip hears it, state %s", ErrLives, ms.driver.status(o))
		case !m.Forget(now, node, 0):
			err = fmt.Errorf("%w, as far as is known yet: it was heard %v ago, and counts as dead after %v of silence",
				ErrLives, silence.Round(time.Millisecond), ms.cfg.detection())
		default:
			ms.drop(node, o)
			ms.driver.running.gossip.Forget(string(node))
			ms.cfg.Log.Info("a host is forgotten, as told", "node", node, "dead", dead)
		}
	})
	return known, err
}

// drop ends what this node does for a forgotten member: its connections, its poller and
// follower. The driver's lock is held.
func (ms *membership) drop(node kv.NodeID, o *member) {
	if o.stop != nil {
		o.stop()
	}
	ms.pool.Remove(o.id)
	ms.acquaintances.forget(o.id)
	delete(ms.driver.members, node)
	delete(ms.named, node)
	ms.driver.dropOwners()
}

// sweep forgets the members that have been gone for long enough. Strangers are
// forgotten at once.
func (ms *membership) sweep(m *ownership.Machine, now time.Duration) {
	if now < ms.sweepAt {
		return
	}
	ms.sweepAt = now + sweepEvery
	for node, o := range ms.driver.members {
		stranger, after := ms.driver.stranger(o), ForgetAfter
		if stranger {
			after = 0
		}
		kept := ms.isolation.why != "" && o.left != o.id && !stranger
		if o.alive || kept || now-o.goneAt < after || !m.Forget(now, node, after) {
			continue
		}
		ms.drop(node, o)
		switch {
		case stranger:
			ms.driver.running.gossip.Forget(string(node))
			ms.cfg.Log.Info("a host that was refused is gone", "node", node, "reason", o.trouble)
		case o.left == o.id:
			ms.driver.running.gossip.Forget(string(node))
		default:
			ms.driver.running.gossip.Drop(string(node))
			ms.cfg.Log.Info("a host is forgotten: it is gone for long", "node", node, "silent_for", ForgetAfter)
		}
	}
	ms.driver.dropOwners()
}
