package cluster

import (
	"sync"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// acquaintances decides which of the processes that gossip tells of count. Gossip tells
// where a process may be found. Nothing else in it counts, because without a key anyone
// can send gossip. A process counts once it is an acquaintance:
//
//	met         the two processes have greeted each other over the peer port, whichever
//	            of them began, and even if one refused the other
//	introduced  a process that was met says that this one is in
//
// A process is a name and an epoch. A later process of the same name is unknown again,
// and the earlier one keeps its place until the later one is known.
type acquaintances struct {
	set    processSet
	self   kv.NodeID
	driver *driver
}

// known reports whether a node that gossip tells of counts. Gossip calls it under its
// own lock.
func (a *acquaintances) known(node string, m gossip.Meta) bool {
	id := kv.Process{Node: kv.NodeID(node), Epoch: kv.Epoch(m.Epoch)}
	return a.set.has(id) || failpoint.Out(failpoint.Acquaintance)
}

// meet records that a process was met.
func (a *acquaintances) meet(id kv.Process) {
	if !a.set.add(id) {
		return
	}
	if g := a.driver.gossip(); g != nil {
		g.Met(string(id.Node))
	}
}

// introduce takes what an acquaintance says about other processes. A process that it
// says is in becomes an acquaintance too.
func (a *acquaintances) introduce(list []wire.Standing) {
	for _, s := range list[:min(len(list), maxKnown/4)] {
		id := fromProcess(s.Process)
		if id.Node == a.self {
			continue
		}
		if s.In {
			a.meet(id)
		}
		a.driver.mu.Lock()
		a.driver.members.recordState(id, s.State, s.Weight, s.In)
		a.driver.mu.Unlock()
	}
}

func processOf(u *gossip.Unknown) kv.Process {
	return kv.Process{Node: kv.NodeID(u.Node), Epoch: kv.Epoch(u.Meta.Epoch)}
}

// maxKnown limits how many processes are remembered: twice the members, two each.
const maxKnown = 8192

// processSet is a bounded set of processes. It has its own lock, because gossip calls
// has under gossip's lock. It is safe for concurrent use.
type processSet struct {
	mu sync.Mutex
	m  map[kv.Process]bool
}

func (s *processSet) has(id kv.Process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[id]
}

// add reports whether the process was unknown before. If the set is full, another
// process is dropped and must be met again.
func (s *processSet) add(id kv.Process) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[id] {
		return false
	}
	if len(s.m) >= maxKnown {
		for o := range s.m {
			delete(s.m, o)
			break
		}
	}
	if s.m == nil {
		s.m = map[kv.Process]bool{}
	}
	s.m[id] = true
	return true
}

func (s *processSet) drop(id kv.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, id)
}
