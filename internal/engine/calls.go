package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l1"
)

// Calls is the set of reads of other hosts' keys that are under way. However many
// requests read a key, its owner is asked once.
type Calls struct {
	Joinable atomic.Int64 // calls in M; raised before one is sent

	mu sync.Mutex
	M  map[kv.Hash]*Call
}

// Call is one request to the owner of a key. Its results are set before it ends.
type Call struct {
	Key   kv.Key // its bytes are the call's own copy
	asks  Question
	Owner *cluster.Owner
	at    time.Duration // before it was sent, on the boot clock
	until time.Duration // when it is given up, on the boot clock

	Done chan struct{} // closed when it ends; nil if no caller waits
	Told []Joiner      // reads that are told of its end and do not wait

	copy  *l1.Copy      // the value
	reply wire.Reply    // or what there is instead of a value
	Err   error         // or why there is no answer
	ends  time.Duration // end of the value, a stale one too, on the boot clock; zero: no end
}

// Joiner is a read that has joined a call and does not wait for it.
type Joiner interface {
	// Tell is called when the call has ended.
	Tell(a *rpc.Answers, cl *Call)
}

// Serves reports whether the result of the call may answer a read that began at the given
// moment. A value that had ended by then may not.
func (cl *Call) Serves(began time.Duration) bool {
	return cl.Err == nil && (cl.ends == 0 || began < cl.ends || failpoint.Out(failpoint.JoinEnded))
}

// Question is what a call asks about its key. Reads share a call only if they ask the
// same.
type Question struct {
	Lease   bool         // LEASE, else GET
	Options wire.Options // those of Asked
}

// QuestionOf returns what a read asks about each of its keys.
func QuestionOf(q *wire.Request) Question { return Question{q.Op == wire.OpLease, q.Options & Asked} }

// Join returns the call for a key that is under way, if a read that begins now may have
// its answer. Otherwise it returns a new call, with lead set, that the caller must make
// and end.
//
// The read may join if the lease on the owner is good and no change that was noted since
// the call was sent concerns the key (see detach). The answer then includes every change
// that this host has acknowledged, or knows of, before the read. Versions cannot tell
// this: the owner's clock may be behind this host's when the owner stamps a write after
// the call. Whether the value had ended before the read began is known only once it is
// there (see Serves).
//
// If p is not nil, p is told when a call that it has joined ends; if p is nil, the caller
// waits for the call. Join returns a nil call if the call under way may outlast p.
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
	if asks.Options&wire.Fresh == 0 { // a fresh read is never shared
		s.Put(cl)
	}
	return cl, true
}

// Put makes a call the one that other reads of its key may join. The caller holds the
// lock.
func (s *Calls) Put(cl *Call) {
	if s.M[cl.Key.Hash] == nil {
		s.Joinable.Add(1)
	}
	s.M[cl.Key.Hash] = cl
}

// remove stops reads from joining the call of a hash. The caller holds the lock.
func (s *Calls) remove(h kv.Hash) {
	if s.M[h] != nil {
		s.Joinable.Add(-1)
		delete(s.M, h)
	}
}

// detach stops reads from joining the call of a hash, because the key has changed.
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

// GiveUp stops reads from joining a call, if no reader but its maker waits for it, and
// reports whether that is so.
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

// End wakes the readers that wait for the call, and returns those that are to be told.
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
