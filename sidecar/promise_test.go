package sidecar

import (
	"fmt"
	"slices"
	"time"
)

// The history of a world, as the apps were told it, and the rules that judge it. A value
// ends with the next acknowledged write of its key, with an acknowledged flush, and with
// its TTL.

// vkey is the history of one key. Its writes do not overlap.
type vkey struct {
	name    []byte
	writes  []vwrite // by sequence number less one
	touches []vtouch
	fresh   []freshRead
}

type vwrite struct {
	began     time.Time
	committed time.Time // in the database, if values are loaded from it
	del       bool
	all       bool      // acknowledged by all hosts
	acked     time.Time // zero: not acknowledged, or not yet
	unknown   bool
	by        string        // the process that it was sent to
	ttl       time.Duration // zero: the run could not see its end
}

// vtouch gives a value another TTL.
type vtouch struct {
	after int       // number of the write before it
	acked time.Time // zero: unknown
	by    string
	ttl   time.Duration
}

// vflush is an acknowledged flush of the keys' namespace, or of all namespaces, on all
// hosts.
type vflush struct {
	began, acked time.Time
	by           string
}

// vread is a read that has begun.
type vread struct {
	began time.Time
	by    string
	fresh bool // from the key's owner
}

// fromOrigin reports whether values come from a database, in which they are written
// before their keys are deleted from the cache.
func (w *world) fromOrigin() bool { return w.origin != nil && !w.ns.WriteThrough }

// loadWithin is the longest time of a load from its read of the database until the value
// is stored. The value's TTL begins then.
const loadWithin = 5 * time.Second

// grace returns how long a read may still return the value from before an end, after a
// process has acknowledged that end.
func (w *world) grace(r vread, by string) time.Duration {
	if r.fresh || r.by == by {
		return 0
	}
	return w.bound
}

// judge returns what is wrong with a read of write n, or "" if nothing is. The caller
// holds the lock.
func (w *world) judge(k *vkey, n int, r vread) string {
	if n < 1 || n > len(k.writes) || w.origin == nil && k.writes[n-1].del {
		return fmt.Sprintf("%s through %s is %d, which no app has written", k.name, r.by, n)
	}
	unknown := k.writes[n-1].unknown && !w.fromOrigin()
	ended := func(late time.Duration, how string, args ...any) string {
		return fmt.Sprintf("%s through %s is write %d, %s %v before", k.name, r.by, n, fmt.Sprintf(how, args...), late)
	}
	for i, later := range k.writes[n:] {
		if later.acked.IsZero() || unknown && !w.overtook(later, k.writes[n-1]) {
			continue
		}
		grace := w.grace(r, later.by)
		if later.all {
			grace = 0
		}
		if late := r.began.Sub(later.acked); late > grace {
			return ended(late, "though %d was acknowledged through %s", n+1+i, later.by)
		}
	}
	if unknown {
		return "" // it is not known from when on the write counts
	}
	for _, f := range w.flushes {
		if late := r.began.Sub(f.acked); late > w.grace(r, f.by) && w.flushedBy(k, n, f) {
			return ended(late, "though a flush was acknowledged through %s", f.by)
		}
	}
	if end := w.expiry(k, n, r); !end.IsZero() && r.began.After(end) {
		return ended(r.began.Sub(end), "whose time to live had ended")
	}
	return ""
}

// overtook reports whether a write began when an earlier write of unknown outcome could
// no longer take effect: that write had been given up by then.
func (w *world) overtook(later, unknown vwrite) bool {
	return w.origin == nil && later.began.Sub(unknown.began) > requestTimeout
}

// flushedBy reports whether a flush has ended write n. The write was stored before the
// flush, or, if values are loaded, was no longer in the database.
func (w *world) flushedBy(k *vkey, n int, f vflush) bool {
	switch v := &k.writes[n-1]; {
	case w.origin == nil:
		return !v.unknown && v.acked.Before(f.began)
	case w.fromOrigin() && n < len(k.writes):
		next := k.writes[n].committed
		return !next.IsZero() && next.Before(f.began)
	}
	return false
}

// expiry returns when write n has ended by itself, as a read may see it; zero: not known.
// A host's deadlines are whole milliseconds, rounded up. A loaded value lives for its TTL
// after a load that began before the next value was in the database.
func (w *world) expiry(k *vkey, n int, r vread) (end time.Time) {
	if w.fromOrigin() {
		if n < len(k.writes) && w.ns.DefaultTTL != nil && !k.writes[n].committed.IsZero() {
			end = k.writes[n].committed.Add(loadWithin + *w.ns.DefaultTTL*11/10)
		}
		return end
	}
	if w.origin != nil { // the origin still has the value
		return end
	}
	v := &k.writes[n-1]
	if v.ttl > 0 {
		end = v.acked.Add(v.ttl + time.Millisecond)
	}
	for _, t := range k.touches {
		switch {
		case t.after < n:
		case t.acked.IsZero():
			return time.Time{}
		default: // a host that has not heard of it keeps the end from before
			unheard := t.acked.Add(w.grace(r, t.by))
			if !end.IsZero() && end.Before(unheard) {
				unheard = end
			}
			if end = t.acked.Add(t.ttl + time.Millisecond); unheard.After(end) {
				end = unheard
			}
		}
	}
	return end
}

// noteMiss counts a miss by what has ended the last write of its key. The caller holds
// the lock.
func (w *world) noteMiss(k *vkey, r vread) {
	w.misses++
	n := len(k.writes)
	if n == 0 || w.origin != nil || k.writes[n-1].unknown || k.writes[n-1].del {
		return
	}
	r.fresh = true
	if end := w.expiry(k, n, r); !end.IsZero() && r.began.After(end) {
		w.seen["misses after expiry"]++
	}
	if slices.ContainsFunc(w.flushes, func(f vflush) bool { return w.flushedBy(k, n, f) && r.began.After(f.acked) }) {
		w.seen["misses after a flush"]++
	}
}
