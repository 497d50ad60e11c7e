package ownership

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// gone are the processes that have been replaced or have said goodbye, and since
// when. A report of such a process is late. If a process left the list because many
// others went after it, and a report of it comes, it counts as a member until gossip
// reports it missing.
type gone map[kv.Process]went

// went says how a process is gone.
type went struct {
	at       time.Duration
	replaced bool // by another process of its name; false: it has said goodbye
}

// maxGone bounds gone: far more than may go while a report of one process is on its way.
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
