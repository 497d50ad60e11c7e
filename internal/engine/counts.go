package engine

import (
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Counts counts events that concern other hosts.
type Counts struct {
	PeerReads, Joined, PeerErrors atomic.Int64
	CopiesRefused, FillsRefused   atomic.Int64 // copies that were not served, or not kept
	Served                        atomic.Int64 // keys read or written for other sidecars
	Overdue                       atomic.Int64 // writes that came after their callers had given them up
	Strays                        atomic.Int64 // entries and partitions dropped after a split
}

// Count counts the outcome of a request of an app, or of the embedding program, on
// whatever host it was answered. Reads that a session answers in place are counted by the
// session's tally instead.
func (e *Engine) Count(q *wire.Request, r *wire.Reply) {
	if q.Subjects() == 0 {
		return
	}
	ns := e.Namespaces.Lookup(q.Namespace)
	if ns == nil {
		ns = e.Namespaces.None
	}
	one := func(r *wire.Reply) {
		o := namespaces.OutcomeOf(r)
		if q.Op.Reads() && o == namespaces.Done {
			o = namespaces.HitOf(r.Source)
		}
		ns.Counts[q.Op][o].Add(1)
	}
	if r.Status != wire.OK || q.Op != wire.OpMGet && q.Op != wire.OpDelete {
		one(r)
		return
	}
	for i := range r.Items {
		one(&r.Items[i])
	}
}
