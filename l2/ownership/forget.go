package ownership

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Forget drops a member that is considered dead and was silent for at least the given
// time. It says whether the member is unknown now.
//
// A member that is considered dead blocks nothing, so forgetting it lets nothing
// begin that could not begin before. This node's promises and votes stay: they belong
// to partitions, not to members, and the voters are a fixed list. If the same process
// is heard again, it comes as any other does: without a lease, and into the ring only
// once there is a lease.
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

// Silence returns how long a member has been silent, and whether it is considered
// dead. An unknown member counts as dead.
func (m *Machine) Silence(now time.Duration, node kv.NodeID) (silence time.Duration, dead bool) {
	if o := m.members[node]; o != nil {
		return now - o.heardAt, o.dead
	}
	return 0, true
}

// gone are the processes that have been replaced or have said goodbye, and since
// when. Word of such a process is late. If a process left the list because many
// others went after it, and there is word of it, it counts as a member until gossip
// reports it missing.
type gone map[kv.Process]went

// went says how a process is gone.
type went struct {
	at       time.Duration
	replaced bool // by another process of its name; false: it has said goodbye
}

// maxGone bounds gone: far more than may go while word of one process is on its way.
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
