package engine

import (
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Count counts the outcome of a request of an app, or of the embedding program, on
// whatever host it was answered. Reads that a session answers in place are counted by the
// session's tally instead.
func (c *Engine) Count(q *wire.Request, r *wire.Reply) {
	if namespaces.KeysIn(q) == 0 {
		return
	}
	ns := c.Names.Lookup(q.Namespace)
	if ns == nil {
		ns = c.Names.None
	}
	one := func(r *wire.Reply) {
		o := namespaces.OutcomeOf(r)
		if ReadOp(q.Op) && o == namespaces.Done {
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
