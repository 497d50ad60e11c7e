package sidecar

import (
	"math"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l1"
)

// calls are the reads of other hosts' keys under way: however many ask for a
// key, its owner is asked once.
type calls struct {
	mu sync.Mutex
	m  map[kv.Hash]*call
}

// call is one of them. What follows done is set before that is closed.
type call struct {
	key   kv.Key // its bytes are the call's own
	owner *cluster.Owner
	begun kv.Version // before it was sent

	done  chan struct{}
	copy  *l1.Copy   // the value
	reply wire.Reply // or what there is instead
	err   error      // or why there is no answer
}

// join returns the call for a key that is under way, if a read that begins now
// may have its answer, or a new one that the caller must make and end. It may
// where it could be served a copy made when the call was sent: so every write
// that this host has acknowledged before the read is in it.
func (s *calls) join(c *core, owner *cluster.Owner, key kv.Key, alone bool, now kv.Moment) (cl *call, lead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.m[key.Hash]
	if old != nil && !alone && old.owner == owner && old.key.Namespace == key.Namespace && string(old.key.Bytes) == string(key.Bytes) &&
		owner.Leased(now.Boot, c.names.bound(key.Namespace)) && c.ledger.Admit(key.Namespace, key.Hash, math.MaxUint64, old.begun) {
		c.counts.joined.Add(1)
		return old, false
	}
	cl = &call{
		key:   kv.Key{Hash: key.Hash, Namespace: key.Namespace, Bytes: append([]byte(nil), key.Bytes...)},
		owner: owner, begun: c.hlc.Next(now.Wall), done: make(chan struct{}),
	}
	c.counts.peerReads.Add(1)
	if !alone {
		s.m[key.Hash] = cl
	}
	return cl, true
}

// end lets everyone have what the call brought.
func (s *calls) end(cl *call) {
	s.mu.Lock()
	if s.m[cl.key.Hash] == cl {
		delete(s.m, cl.key.Hash)
	}
	s.mu.Unlock()
	close(cl.done)
}
