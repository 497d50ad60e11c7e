package sidecar

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/strike"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l1"
)

// calls are the reads of other hosts' keys under way: however many ask for a
// key, its owner is asked once.
type calls struct {
	joinable atomic.Int64 // calls in m; raised before one is sent

	mu sync.Mutex
	m  map[kv.Hash]*call
}

// call is one of them. What it brought is set before it ends.
type call struct {
	key   kv.Key // its bytes stay those of whoever makes the call
	asks  question
	owner *cluster.Owner
	at    time.Duration // before it was sent, on the boot clock
	until time.Duration // when it is given up

	done chan struct{} // closed when it ends, for those who wait; nil without any
	told []joiner      // when it ends, those that do not wait

	copy  *l1.Copy      // the value
	reply wire.Reply    // or what there is instead
	err   error         // or why there is no answer
	ends  time.Duration // of the value, a stale one too; zero is none
}

// joiner is a read that has joined a call, and does not wait for it.
type joiner interface {
	// Tell is called when the call has ended.
	Tell(a *rpc.Answers, cl *call)
}

// serves says whether what a call has brought is for a read that began at a
// moment: a value that had ended by then is not.
func (cl *call) serves(began time.Duration) bool {
	return cl.err == nil && (cl.ends == 0 || began < cl.ends || strike.Out(strike.JoinEnded))
}

// question is what a call asks of its key. Reads share a call that asks the same.
type question struct {
	lease   bool         // LEASE, else GET
	options wire.Options // of asked
}

// questionOf is what a read asks of each of its keys.
func questionOf(q *wire.Request) question { return question{q.Op == wire.OpLease, q.Options & asked} }

// join returns the call for a key that is under way, if a read that begins now
// may have its answer, or a new one that the caller must make and end. It may
// where the lease on the owner is good and nothing that has been noted since the
// call was sent concerns the key (see detach): so whatever this host has
// acknowledged before the read, or knows of, is in it. Versions cannot tell: the
// owner's clock may be behind this one's when it stamps a write after the call.
// That its value has not ended before the read began is known once it is there
// (see serves).
//
// A pending request p is told of the end of a call that it has joined; without
// one the caller waits for it. There is no call for a p that one under way may
// outlast.
func (s *calls) join(c *core, owner *cluster.Owner, key kv.Key, asks question, now kv.Moment, until time.Duration, p joiner) (cl *call, lead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.m[key.Hash]
	if old != nil && old.asks == asks && old.owner == owner && old.key.Namespace == key.Namespace && string(old.key.Bytes) == string(key.Bytes) &&
		(owner.Leased(now.Boot, c.names.Bound(key.Namespace)) || strike.Out(strike.JoinRule)) {
		switch {
		case p == nil && old.done == nil:
			old.done = make(chan struct{})
		case p == nil:
		case until < old.until:
			return nil, false
		default:
			old.told = append(old.told, p)
		}
		c.counts.joined.Add(1)
		return old, false
	}
	cl = &call{
		key:  kv.Key{Hash: key.Hash, Namespace: key.Namespace, Bytes: append([]byte(nil), key.Bytes...)},
		asks: asks, owner: owner, at: now.Boot, until: until,
	}
	c.counts.peerReads.Add(1)
	if asks.options&wire.Fresh == 0 { // that one is nobody else's
		s.put(cl)
	}
	return cl, true
}

// put makes a call the one of its key that others may join. The lock is held.
func (s *calls) put(cl *call) {
	if s.m[cl.key.Hash] == nil {
		s.joinable.Add(1)
	}
	s.m[cl.key.Hash] = cl
}

// remove ends the joining of a hash's call. The lock is held.
func (s *calls) remove(h kv.Hash) {
	if s.m[h] != nil {
		s.joinable.Add(-1)
		delete(s.m, h)
	}
}

// detach ends the joining of a hash's call: it has changed.
func (s *calls) detach(h kv.Hash) {
	if s.joinable.Load() == 0 || strike.Out(strike.JoinRule) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(h)
}

// detachIf does the same for all keys that match.
func (s *calls) detachIf(match func(kv.NamespaceID, kv.Hash) bool) {
	if strike.Out(strike.JoinRule) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, cl := range s.m {
		if match(cl.key.Namespace, h) {
			s.remove(h)
		}
	}
}

// giveUp ends the joining of a call that only its maker waits for, and says whether
// that is so.
func (s *calls) giveUp(cl *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cl.done != nil || len(cl.told) > 0 {
		return false
	}
	if s.m[cl.key.Hash] == cl {
		s.remove(cl.key.Hash)
	}
	return true
}

// end lets those who wait have what the call brought, and returns those who are
// to be told.
func (s *calls) end(cl *call) []joiner {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m[cl.key.Hash] == cl {
		s.remove(cl.key.Hash)
	}
	if cl.done != nil {
		close(cl.done)
	}
	return cl.told
}
