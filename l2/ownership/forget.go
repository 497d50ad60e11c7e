package ownership

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

// Forget drops a member that is held for dead, and of which nothing was heard for
// as long as silence. It says whether the member is unknown now.
//
// A member that is held for dead blocks nothing, so forgetting it lets nothing
// begin that could not begin before. What this node has promised and voted stays:
// that belongs to partitions, not to members, and the voters are a fixed list. If
// the same process is heard again, it comes as any other does: without a lease,
// and into the ring only once there is one.
func (m *Machine) Forget(now time.Duration, node kv.NodeID, silence time.Duration) bool {
	m.now = max(m.now, now)
	o := m.members[node]
	if o != nil {
		if !failpoint.Out(failpoint.ForgetDead) && (o.live() || m.now-o.heardAt < silence) {
			return false
		}
		delete(m.members, node)
		delete(m.cannot, node)
		m.settle()
	}
	return true
}

// Silence is how long nothing was heard of a member, and whether it is held for
// dead. One that is unknown is.
func (m *Machine) Silence(now time.Duration, node kv.NodeID) (silence time.Duration, dead bool) {
	if o := m.members[node]; o != nil {
		return now - o.heardAt, o.dead
	}
	return 0, true
}

// gone are processes that have been replaced or have said goodbye, and since when.
// Word of them is late. A process that is missing here, because it went longer ago
// than many others, counts as a member if there is word of it, until gossip misses
// it.
type gone map[kv.Process]went

// went says how a process is gone.
type went struct {
	at       time.Duration
	replaced bool // by another one of its name; else it has said goodbye
}

// maxGone bounds them: far more than may go while word of one is on its way.
const maxGone = 1024

func (g gone) has(id kv.Process) bool {
	_, ok := g[id]
	return ok
}

// add makes room by dropping the process that went first.
func (g gone) add(id kv.Process, w went) {
	if !g.has(id) && len(g) >= maxGone {
		var first kv.Process
		for o, w := range g {
			if at := g[first].at; w.at < at || w.at == at && o.Compare(first) < 0 || !g.has(first) {
				first = o
			}
		}
		delete(g, first)
	}
	g[id] = w
}
