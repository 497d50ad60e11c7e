package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l1"
)

// Calls are the reads of other hosts' keys under way: however many ask for a
// key, its owner is asked once.
type Calls struct {
	Joinable atomic.Int64 // calls in m; raised before one is sent

	mu sync.Mutex
	M  map[kv.Hash]*Call
}

// Call is one of them. What it brought is set before it ends.
type Call struct {
	Key   kv.Key // its bytes stay those of whoever makes the call
	asks  Question
	Owner *cluster.Owner
	at    time.Duration // before it was sent, on the boot clock
	until time.Duration // when it is given up

	Done chan struct{} // closed when it ends, for those who wait; nil without any
	Told []Joiner      // when it ends, those that do not wait

	copy  *l1.Copy      // the value
	reply wire.Reply    // or what there is instead
	Err   error         // or why there is no answer
	ends  time.Duration // of the value, a stale one too; zero is none
}

// Joiner is a read that has joined a call, and does not wait for it.
type Joiner interface {
	// Tell is called when the call has ended.
	Tell(a *rpc.Answers, cl *Call)
}

// Serves says whether what a call has brought is for a read that began at a
// moment: a value that had ended by then is not.
func (cl *Call) Serves(began time.Duration) bool {
	return cl.Err == nil && (cl.ends == 0 || began < cl.ends || failpoint.Out(failpoint.JoinEnded))
}

// Question is what a call asks of its key. Reads share a call that asks the same.
type Question struct {
	Lease   bool         // LEASE, else GET
	Options wire.Options // of asked
}

// QuestionOf is what a read asks of each of its keys.
func QuestionOf(q *wire.Request) Question { return Question{q.Op == wire.OpLease, q.Options & Asked} }

// Join returns the call for a key that is under way, if a read that begins now
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
func (s *Calls) Join(c *Engine, owner *cluster.Owner, key kv.Key, asks Question, now kv.Moment, until time.Duration, p Joiner) (cl *Call, lead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.M[key.Hash]
	if old != nil && old.asks == asks && old.Owner == owner && old.Key.Namespace == key.Namespace && string(old.Key.Bytes) == string(key.Bytes) &&
		(owner.Leased(now.Boot, c.Names.Bound(key.Namespace)) || failpoint.Out(failpoint.JoinRule)) {
		switch {
		case p == nil && old.Done == nil:
			old.Done = make(chan struct{})
		case p == nil:
		case until < old.until:
			return nil, false
		default:
			old.Told = append(old.Told, p)
		}
		c.Counts.Joined.Add(1)
		return old, false
	}
	cl = &Call{
		Key:  kv.Key{Hash: key.Hash, Namespace: key.Namespace, Bytes: append([]byte(nil), key.Bytes...)},
		asks: asks, Owner: owner, at: now.Boot, until: until,
	}
	c.Counts.PeerReads.Add(1)
	if asks.Options&wire.Fresh == 0 { // that one is nobody else's
		s.Put(cl)
	}
	return cl, true
}

// Put makes a call the one of its key that others may join. The lock is held.
func (s *Calls) Put(cl *Call) {
	if s.M[cl.Key.Hash] == nil {
		s.Joinable.Add(1)
	}
	s.M[cl.Key.Hash] = cl
}

// remove ends the joining of a hash's call. The lock is held.
func (s *Calls) remove(h kv.Hash) {
	if s.M[h] != nil {
		s.Joinable.Add(-1)
		delete(s.M, h)
	}
}

// detach ends the joining of a hash's call: it has changed.
func (s *Calls) detach(h kv.Hash) {
	if s.Joinable.Load() == 0 || failpoint.Out(failpoint.JoinRule) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(h)
}

// detachIf does the same for all keys that match.
func (s *Calls) detachIf(match func(kv.NamespaceID, kv.Hash) bool) {
	if failpoint.Out(failpoint.JoinRule) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, cl := range s.M {
		if match(cl.Key.Namespace, h) {
			s.remove(h)
		}
	}
}

// GiveUp ends the joining of a call that only its maker waits for, and says whether
// that is so.
func (s *Calls) GiveUp(cl *Call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cl.Done != nil || len(cl.Told) > 0 {
		return false
	}
	if s.M[cl.Key.Hash] == cl {
		s.remove(cl.Key.Hash)
	}
	return true
}

// End lets those who wait have what the call brought, and returns those who are
// to be told.
func (s *Calls) End(cl *Call) []Joiner {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.M[cl.Key.Hash] == cl {
		s.remove(cl.Key.Hash)
	}
	if cl.Done != nil {
		close(cl.Done)
	}
	return cl.Told
}
