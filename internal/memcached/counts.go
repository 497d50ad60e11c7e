package memcached

import (
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// count is a counter of stats. The names are memcached's.
type count uint8

const (
	cmdGet count = iota
	cmdSet
	cmdFlush
	cmdTouch
	cmdMeta
	getHits
	getMisses
	deleteHits
	deleteMisses
	incrHits
	incrMisses
	decrHits
	decrMisses
	casHits
	casMisses
	casBadval
	touchHits
	touchMisses
	storeTooLarge
	totalItems
	countsLen
)

var countNames = [countsLen]string{
	"cmd_get", "cmd_set", "cmd_flush", "cmd_touch", "cmd_meta", "get_hits", "get_misses", "delete_hits",
	"delete_misses", "incr_hits", "incr_misses", "decr_hits", "decr_misses", "cas_hits", "cas_misses", "cas_badval",
	"touch_hits", "touch_misses", "store_too_large",
	"total_items",
}

// counts count the commands of all connections since the start.
type counts [countsLen]atomic.Int64

// tally counts the commands of a batch, apart from the counters that all connections
// share.
type tally [countsLen]int64

// flush adds the tally to the counters.
func (n *tally) flush(c *counts) {
	for i, v := range n {
		if v != 0 {
			c[i].Add(v)
			n[i] = 0
		}
	}
}

// get counts a get that was answered with a status.
func (n *tally) get(s wire.Status) {
	n[cmdGet]++
	if s == wire.OK || s == wire.Stale {
		n[getHits]++
	} else {
		n[getMisses]++
	}
}

// outcome counts a request that found its key, or did not. Behind the counter of hits stands that of
// misses.
func (n *tally) outcome(r *wire.Reply, hits count) {
	switch r.Status {
	case wire.OK, wire.NotStored:
		n[hits]++
	case wire.Miss:
		n[hits+1]++
	}
}

// noteRequest counts a request, which has been answered.
func (n *tally) noteRequest(f *form, q *wire.Request, r *wire.Reply) {
	switch f.verb {
	case verbFixed:
		if f.line == tooLarge {
			n[storeTooLarge]++
		}
	case verbGet, verbGets, verbMetaGet:
		if q.Op != wire.OpMGet {
			n.get(r.Status)
		}
		for i := range r.Items {
			n.get(r.Items[i].Status)
		}
	case verbGat, verbGats, verbTouch:
		n[cmdTouch]++
		n.outcome(r, touchHits)
	case verbMetaDebug:
		n[cmdMeta]++
	case verbDelete, verbMetaDelete:
		n.outcome(r, deleteHits)
	case verbFlushAll:
		n[cmdFlush]++
	case verbIncr, verbMetaArithmetic:
		if q.Has(wire.Down) {
			n.outcome(r, decrHits)
		} else {
			n.outcome(r, incrHits)
		}
	default:
		n.set(f, r)
	}
}

// set counts a command that brings a value.
func (n *tally) set(f *form, r *wire.Reply) {
	n[cmdSet]++
	switch {
	case r.Status == wire.TooLarge:
		n[storeTooLarge]++
	case r.Status == wire.OK && !f.expired:
		n[totalItems]++
	}
	if f.mode != wire.ModeCAS {
		return
	}
	if n.outcome(r, casHits); r.Status == wire.Exists || r.Status == wire.Stale {
		n[casBadval]++
	}
}
