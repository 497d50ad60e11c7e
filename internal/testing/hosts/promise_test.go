package hosts

import (
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/history"
	"github.com/cachesidecar/cachesidecar/internal/testing/linear"
)

// The history of a world, as the apps were told it. Package verify judges each read at once.

// vkey is a key. Its writes do not overlap.
type vkey struct {
	name   []byte
	writes []*history.Running // by sequence number less one
	fresh  []history.Op       // reads from the owner: a value, or a plain miss
}

// fromOrigin reports whether values come from a database, in which they are written
// before their keys are deleted from the cache.
func (w *world) fromOrigin() bool { return w.origin != nil && !w.ns.WriteThrough }

// loadWithin is the longest time of a load from its read of the database until the value
// is stored. The value's TTL begins then.
const loadWithin = 5 * time.Second

// now returns the time in the history, which is not zero.
func (w *world) now() time.Duration { return time.Since(w.begun) + 1 }

// beginLocked begins an operation. The caller holds the lock.
func (w *world) beginLocked(o history.Op) *history.Running {
	if w.history == nil {
		r := history.Rules{Bound: w.bound, Load: loadWithin}
		if w.origin == nil {
			r.Late = requestTimeout
		}
		w.history = history.NewChecker(r)
	}
	if o.Began = w.now(); o.Origin && !w.ns.WriteThrough {
		o.Committed = o.Began
	}
	r := w.history.Begin(o)
	r.Outcome = history.Unknown
	return r
}

func (w *world) begin(o history.Op) *history.Running {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.beginLocked(o)
}

// endLocked ends an operation. The caller holds the lock.
func (w *world) endLocked(r *history.Running, out history.Outcome) {
	r.Outcome, r.Ended = out, w.now()
	if out == history.Absent && r.Kind == history.Read && w.rows[r.Key] {
		w.breaks("a read of %s through %s says that there is none, but there is a row", r.Key, r.Host)
	}
	if v := w.history.End(r); v.Rule != "" {
		w.breaks("%v", v)
	}
}

// noteMiss counts a miss by what has ended the last write of its key. The caller holds
// the lock.
func (w *world) noteMiss(k *vkey, r *history.Running) {
	w.misses++
	if n := len(k.writes); n > 0 && w.origin == nil && k.writes[n-1].Kind == history.Set {
		flushed, expired := w.history.Misses(r, int64(n))
		if flushed {
			w.seen["misses after a flush"]++
		}
		if expired {
			w.seen["misses after expiry"]++
		}
	}
}

// judgeFresh judges the fresh reads of all keys. A miss says that the value is lost, and no
// value that was lost comes back: the miss is like a deletion. If values are loaded, one read
// may return the new value before it is announced, and another read may still return the old
// value.
func (w *world) judgeFresh() {
	for _, k := range w.keys {
		w.seen["fresh reads"] += int64(len(k.fresh))
		if w.origin != nil {
			continue
		}
		ops := slices.Clone(k.fresh)
		for i := range ops {
			if o := &ops[i]; o.Outcome == history.Absent {
				o.Kind, o.Outcome = history.Delete, history.Done
			}
		}
		for _, r := range k.writes {
			ops = append(ops, r.Op)
		}
		if broken := linear.Broken(ops, true); len(broken) > 0 {
			w.breaks("the fresh reads of %s are not linearizable", k.name)
		}
	}
}
