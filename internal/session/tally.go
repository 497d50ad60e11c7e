package session

import (
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Tally counts the reads of a batch, apart from the counters that all connections share.
type Tally struct {
	served *atomic.Int64 // for another sidecar: counts all reads, whatever their outcome
	ns     *namespaces.Namespace
	op     wire.Op
	n      [namespaces.Outcomes]int64
}

// Add counts an outcome.
func (t *Tally) Add(ns *namespaces.Namespace, op wire.Op, o namespaces.Outcome) {
	if t.ns != ns || t.op != op {
		t.Flush()
		t.ns, t.op = ns, op
	}
	t.n[o]++
}

// Flush adds the counts to those that all connections share.
func (t *Tally) Flush() {
	for o, n := range t.n {
		switch {
		case n == 0:
			continue
		case t.served != nil:
			t.served.Add(n)
		default:
			t.ns.Counts[t.op][o].Add(n)
		}
		t.n[o] = 0
	}
}
