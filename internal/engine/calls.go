package engine

import (
	"bytes"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l1"
)

// Calls are the reads of other hosts' keys that are under way. However many requests read
// a key, its owner is asked once.
type Calls struct {
	*base
	table flight.Table[*Call]
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

	copy   *l1.Copy      // the value
	source wire.Source   // of the value
	reply  wire.Reply    // or what there is instead of a value
	Err    error         // or why there is no answer
	ends   time.Duration // end of the value, a stale one too, on the boot clock; zero: no end
}

// FlightKey returns the key that is asked for.
func (cl *Call) FlightKey() kv.Key { return cl.Key }

// Joiner is a read that has joined a call and does not wait for it.
type Joiner interface {
	// Tell is called when the call has ended.
	Tell(a *transport.Answers, cl *Call)
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
func (c *Calls) Join(
	owner *cluster.Owner, key kv.Key, asks Question, now kv.Moment, until time.Duration, p Joiner,
) (cl *Call, lead bool) {
	c.table.Lock()
	defer c.table.Unlock()
	if old, ok := c.table.Find(key, func(cl *Call) bool { return cl.asks == asks }); ok {
		if old.Owner == owner &&
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
		c.table.Remove(old) // the new call takes its place
	}
	c.Counts.PeerReads.Add(1)
	if asks.Options&wire.Fresh != 0 { // a fresh read is never shared
		return newCall(owner, key, asks, now, until), true
	}
	return c.table.Add(key, func() *Call { return newCall(owner, key, asks, now, until) }), true
}

func newCall(owner *cluster.Owner, key kv.Key, asks Question, now kv.Moment, until time.Duration) *Call {
	key.Bytes = bytes.Clone(key.Bytes)
	return &Call{Key: key, asks: asks, Owner: owner, at: now.Boot, until: until}
}

// detach stops reads from joining the calls of a hash, because the key has changed.
func (c *Calls) detach(h kv.Hash) {
	if !failpoint.Out(failpoint.JoinRule) {
		c.table.Detach(h)
	}
}

// detachIf does the same for all keys that match.
func (c *Calls) detachIf(match func(kv.NamespaceID, kv.Hash) bool) {
	if !failpoint.Out(failpoint.JoinRule) {
		c.table.DetachIf(match)
	}
}

// GiveUp stops reads from joining a call, if no reader but its maker waits for it, and
// reports whether that is so.
func (c *Calls) GiveUp(cl *Call) bool {
	c.table.Lock()
	defer c.table.Unlock()
	if cl.Done != nil || len(cl.Told) > 0 {
		return false
	}
	c.table.Remove(cl)
	return true
}

// End wakes the readers that wait for the call, and returns those that are to be told.
func (c *Calls) End(cl *Call) []Joiner {
	c.table.Lock()
	defer c.table.Unlock()
	c.table.Remove(cl)
	if cl.Done != nil {
		close(cl.Done)
	}
	return cl.Told
}

// None reports whether no call is under way that reads may join.
func (c *Calls) None() bool { return c.table.None() }

// Asked are the options of a read that its owner is told of.
const Asked = wire.Fresh | wire.StaleOK | wire.NoLoad
