package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
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
func (w *watcher) forget(node kv.NodeID) (known bool, err error) {
	w.driver.step(func(s *state, now time.Duration) {
		m := s.members[node]
		if m == nil {
			return
		}
		known = true
		silence, dead := s.machine.Silence(now, node)
		switch {
		case m.alive:
			err = fmt.Errorf("%w: gossip hears it, state %s", ErrLives, s.status(m))
		case !s.machine.Forget(now, node, 0):
			err = fmt.Errorf("%w, as far as is known yet: it was heard %v ago, and counts as dead after %v of silence",
				ErrLives, silence.Round(time.Millisecond), w.cfg.detection())
		default:
			w.drop(s, node, m)
			s.running.gossip.Forget(string(node))
			w.cfg.Log.Info("a host is forgotten, as told", "node", node, "dead", dead)
		}
	})
	return known, err
}

// drop ends what this node does for a forgotten member: its connections, its poller and
// follower.
func (w *watcher) drop(s *state, node kv.NodeID, m *member) {
	if m.stop != nil {
		m.stop()
	}
	w.pool.Remove(m.id)
	w.acquaintances.forget(m.id)
	delete(s.members, node)
	delete(s.namesakes, node)
	s.dropHosts()
}

// sweep forgets the members that have been gone for long enough. Strangers are
// forgotten at once.
func (w *watcher) sweep(s *state, now time.Duration) {
	if now < s.sweepAt {
		return
	}
	s.sweepAt = now + sweepEvery
	for node, m := range s.members {
		stranger, after := s.stranger(m), ForgetAfter
		if stranger {
			after = 0
		}
		kept := s.isolation.why != "" && m.left != m.id && !stranger
		if m.alive || kept || now-m.goneAt < after || !s.machine.Forget(now, node, after) {
			continue
		}
		w.drop(s, node, m)
		switch {
		case stranger:
			s.running.gossip.Forget(string(node))
			w.cfg.Log.Info("a host that was refused is gone", "node", node, "reason", m.trouble)
		case m.left == m.id:
			s.running.gossip.Forget(string(node))
		default:
			s.running.gossip.Drop(string(node))
			w.cfg.Log.Info("a host is forgotten: it is gone for long", "node", node, "silent_for", ForgetAfter)
		}
	}
	s.dropHosts()
}
