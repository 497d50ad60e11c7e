package engine

import (
	"bytes"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l1"
)

// Remote answers requests of keys that other hosts own: from this host's copies, or from their owners (forward.go).
type Remote struct {
	*deps
	watches *Watches
	changes *Changes
}

// Get returns this host's copy of an entry that another host owns, or nil if the copy
// may not be served. It may be served if it came from the process that the ring names
// now, if this host has applied all changes that this process had accepted up to a moment
// within the bound, and if none of them has outdated the copy.
func (m *Remote) Get(key kv.Key, owner *cluster.Host, now kv.Moment) *l1.Copy {
	cp, ok := m.L1.Get(key)
	if !ok {
		return nil
	}
	if cp.Owner != &owner.Process && !failpoint.Out(failpoint.OwnerAtHit) ||
		!owner.Leased(now.Boot, m.Namespaces.Bound(key.Namespace)) && !failpoint.Out(failpoint.LeaseAtHit) ||
		cp.Deadline.Passed(now.Boot) ||
		!m.Ledger.Admit(key.Namespace, key.Hash, cp.Version, cp.AsOf) && !failpoint.Out(failpoint.AdmitAtHit) {
		m.Counts.CopiesRefused.Add(1)
		return nil
	}
	return cp
}

// appendTo answers a read from this host's copy of an entry that another host owns, or
// with MOVED. A request of an app with option Attest may be answered from a copy. A
// request of another sidecar with Attest may not: a copy of a copy would be behind by the
// lags of both.
func (m *Remote) appendTo(
	dst []byte, q *wire.Request, key kv.Key, limit int, now kv.Moment, share publication, r *wire.Reply,
) (out []byte, size int) {
	*r = Moved()
	if q.Has(wire.Fresh) || q.Has(wire.Attest) && !q.App {
		return dst, 0
	}
	owner := m.Node.View().AssignedOwner(key.Hash.Partition())
	if owner == nil || owner.Process == m.Node.Self() {
		return dst, 0
	}
	cp := m.Get(key, owner, now)
	if cp == nil {
		return dst, 0
	}
	if share.asOf != 0 {
		m.SharedMemory.copied(share, key, cp, owner)
	}
	source, value := wire.SourceL1, cp.Value()
	if len(value) > limit {
		source = 0
	}
	if !m.fill(q, cp, source, owner.LeasedAt(), now, r) && q.Has(wire.Attest) {
		*r = Moved()
		return dst, 0
	}
	if len(value) > limit {
		return dst, len(value)
	}
	return append(dst, value...), len(value)
}

// fill fills r from a copy, without the value. The copy was current when it was asked
// for, and at leased. The result reports whether the answer is attested, if the request
// asks for that.
func (m *Remote) fill(
	q *wire.Request, cp *l1.Copy, source wire.Source, leased time.Duration, now kv.Moment, r *wire.Reply,
) (attested bool) {
	*r = wire.Reply{}
	r.SetFacts(cp.Facts, now)
	if cp.Kind != kv.Absent {
		r.Source, r.AgeMS = source, uint64(max(0, now.Boot-max(cp.Since, leased))/time.Millisecond)
	}
	return q.Has(wire.Attest) && m.watches.Attest(cp, now, r)
}

// reply answers with the value of a copy. The value is shared and must not be changed.
func (m *Remote) reply(
	q *wire.Request, cp *l1.Copy, source wire.Source, leased time.Duration, now kv.Moment,
) (r wire.Reply) {
	m.fill(q, cp, source, leased, now, &r)
	r.Value = cp.Value()
	return r
}

// Take keeps the owner's answer for a call, and puts a value into L1 unless a change has
// outdated it.
func (m *Remote) Take(cl *Call, r *wire.Reply) {
	m.HLC.Observe(kv.Version(r.AsOf))
	if r.Attested || r.Status == wire.Stale { // an answer that must not be kept has no end
		cl.ends = handoff.EndOf(m.Clock, r.TTLMS, cl.at)
	}
	f := r.Facts(kv.Before(cl.ends))
	if r.Status != wire.OK && f.Kind != kv.Absent || !r.Attested {
		if cl.reply = owned(r); r.Status == wire.OK {
			cl.reply.Source = sourceOf(r)
		}
		return
	}
	id := &cl.owner.Process
	if string(r.Owner) != string(id.Node) || r.Epoch != uint64(id.Epoch) {
		cl.err = errors.New("the answer comes from another process")
		return
	}
	cp := &l1.Copy{
		Hash: cl.key.Hash, Namespace: cl.key.Namespace, Facts: f, Owner: id, AsOf: kv.Version(r.AsOf), Since: cl.at,
	}
	cp.SetBytes(cl.key.Bytes, r.Value)
	cl.copy, cl.source = cp, sourceOf(r)
	switch {
	case !m.Ledger.Admit(cp.Namespace, cp.Hash, cp.Version, cp.AsOf) && !failpoint.Out(failpoint.AdmitAtFill):
		m.Counts.FillsRefused.Add(1)
	case cl.asks.Options&wire.Fresh != 0: // a fresh read makes no copy, and leaves no older one
		m.L1.Replace(cp)
	default:
		m.L1.Put(cp)
	}
}

// Call is one request to the owner of a key. However many requests read a key, its owner is asked once. The results
// are set before the call ends.
type Call struct {
	key      kv.Key // its bytes are the call's own copy
	asks     Question
	by       uint64 // the app that it is made for
	owner    *cluster.Host
	at       time.Duration // before it was sent, on the boot clock
	silent   time.Duration // when it is given up if the owner says nothing, on the boot clock
	until    time.Duration // when it is given up, on the boot clock
	slotless bool          // this host has no slot for the namespace, and keeps no copy

	done  chan struct{} // closed when it ends; nil if no caller waits
	heard atomic.Bool   // the owner has said that its load goes on
	told  []*Wait       // reads that are told of its end

	copy   *l1.Copy      // the value
	source wire.Source   // of the value
	reply  wire.Reply    // or what there is instead of a value
	err    error         // or why there is no answer
	ends   time.Duration // end of the value, a stale one too, on the boot clock; zero: no end
}

// FlightKey returns the key that is asked for.
func (cl *Call) FlightKey() kv.Key { return cl.key }

// Serves reports whether the result of the call may answer a read that began at the given
// moment. A value that had ended by then may not.
func (cl *Call) Serves(began time.Duration) bool {
	return cl.err == nil && (cl.ends == 0 || began < cl.ends || failpoint.Out(failpoint.JoinEnded))
}

// ofOne reports whether the answer is of use to the caller alone that has asked: a token, or that
// there was no answer in its time.
func (cl *Call) ofOne() bool { return cl.reply.Status == wire.Lease || cl.reply.Status == wire.Timeout }

// goesOn reports whether the owner's answer says that its load takes longer than it was asked to wait, and notes that.
func (cl *Call) goesOn(r *wire.Reply) bool {
	if r.Status != wire.Timeout {
		return false
	}
	cl.heard.Store(true)
	return true
}

// Question is what a call asks about its key. Reads share a call only if they ask the
// same.
type Question struct {
	Lease   bool         // LEASE, else GET
	Options wire.Options // those that its owner is told of
}

// questionOf returns what a read asks about each of its keys.
func questionOf(q *wire.Request) Question {
	return Question{q.Op == wire.OpLease, q.Options & (wire.Fresh | wire.StaleOK | wire.NoLoad)}
}

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
// The read waits until silent for an owner that says nothing. It does not join a call whose owner may say something
// only later: it would take an owner that lives for one that hangs.
//
// If w is not nil, it is told when a call that it has joined ends; if w is nil, the caller
// waits for the call. Join returns a nil call if the call under way may outlast w.
func (m *Remote) Join(
	owner *cluster.Host, key kv.Key, q *wire.Request, now kv.Moment, silent, until time.Duration, w *Wait,
) (cl *Call, lead bool) {
	asks := questionOf(q)
	m.Calls.Lock()
	defer m.Calls.Unlock()
	inTime := func(cl *Call) bool { return silent == until || silent >= cl.silent || cl.heard.Load() }
	if old, ok := m.Calls.Find(key, func(cl *Call) bool { return cl.asks == asks && inTime(cl) }); ok {
		if old.owner == owner &&
			(owner.Leased(now.Boot, m.Namespaces.Bound(key.Namespace)) || failpoint.Out(failpoint.JoinRule)) {
			switch {
			case w == nil && old.done == nil:
				old.done = make(chan struct{})
			case w == nil:
			case until < old.until:
				return nil, false
			default:
				old.told = append(old.told, w)
			}
			m.Counts.Joined.Add(1)
			return old, false
		}
		m.Calls.Remove(old) // the new call takes its place
	}
	m.Counts.PeerReads.Add(1)
	if asks.Options&wire.Fresh != 0 { // a fresh read is never shared
		return newCall(owner, key, q, now, silent, until), true
	}
	return m.Calls.Add(key, func() *Call { return newCall(owner, key, q, now, silent, until) }), true
}

func newCall(owner *cluster.Host, key kv.Key, q *wire.Request, now kv.Moment, silent, until time.Duration) *Call {
	key.Bytes = bytes.Clone(key.Bytes)
	return &Call{key: key, asks: questionOf(q), by: q.By, owner: owner, at: now.Boot, silent: silent, until: until}
}

// End wakes the readers that wait for the call, and returns those that are to be told.
func (m *Remote) End(cl *Call) []*Wait {
	m.Calls.Lock()
	defer m.Calls.Unlock()
	m.Calls.Remove(cl)
	if cl.done != nil {
		close(cl.done)
	}
	return cl.told
}

// outcome returns the result of a call for a read that began at the given moment.
func (m *Remote) outcome(cl *Call, q *wire.Request, began time.Duration) wire.Reply {
	switch {
	case !cl.Serves(began):
		if errors.Is(cl.err, rpc.ErrNoRoom) {
			return failed(wire.Busy, "%v", cl.err)
		}
		if cl.err != nil {
			m.Counts.PeerErrors.Add(1)
		}
		return unanswered(q, cl.owner)
	case cl.copy != nil:
		// The value was alive when the read began; the copy may have ended since.
		return m.reply(q, cl.copy, cl.source, 0, m.Clock.Read())
	case cl.reply.Status == wire.Unavailable:
		return degraded(q, "%s, which owns the key, cannot answer for it: %s", cl.owner.Node, cl.reply.Message)
	}
	return cl.reply
}

// Finish ends a call with the owner's answer, and answers all reads that have joined it.
func (m *Remote) Finish(a *transport.Answers, cl *Call, r *wire.Reply, err error) {
	if cl.err = err; err == nil {
		m.Take(cl, r)
	}
	for _, w := range m.End(cl) {
		w.tell(a, cl)
	}
}
