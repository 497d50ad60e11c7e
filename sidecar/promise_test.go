package sidecar

import (
	"fmt"
	"slices"
	"time"
)

// What apps were told in a world, and what it is judged by: a value ends with
// the next acknowledged write of its key, with an acknowledged flush, and with its
// time to live.

// vkey is one key's history. Its writes follow one upon the other.
type vkey struct {
	name    []byte
	writes  []vwrite // by sequence number less one
	touches []vtouch
	fresh   []freshRead
}

type vwrite struct {
	began     time.Time
	committed time.Time // in the database, where values are loaded
	del       bool
	all       bool      // acknowledged by all
	acked     time.Time // zero is not, or not yet
	unknown   bool
	by        string        // the process that it went through
	ttl       time.Duration // zero is none that the run could see
}

// vtouch gives a value another time to live.
type vtouch struct {
	after int       // the number of the write before it
	acked time.Time // zero is unknown
	by    string
	ttl   time.Duration
}

// vflush is a flush of the keys' namespace, or of all, on all hosts, that was
// acknowledged.
type vflush struct {
	began, acked time.Time
	by           string
}

// vread is a read that has begun.
type vread struct {
	began time.Time
	by    string
	fresh bool // from the key's holder
}

// fromOrigin says whether values come from a database, in which they are written
// before their keys are deleted from the cache.
func (w *world) fromOrigin() bool { return w.origin != nil && !w.ns.WriteThrough }

// loadWithin is how long a load takes at most from what it has read of the
// database until that is stored: what then lives for its time to live.
const loadWithin = 5 * time.Second

// grace is for how long after an end that was acknowledged through a process a
// read may still see what was before it.
func (w *world) grace(r vread, by string) time.Duration {
	if r.fresh || r.by == by {
		return 0
	}
	return w.bound
}

// judge says what is wrong with reading write n; nothing is "". The lock is held.
func (w *world) judge(k *vkey, n int, r vread) string {
	if n < 1 || n > len(k.writes) || w.origin == nil && k.writes[n-1].del {
		return fmt.Sprintf("%s through %s is %d, which nobody has written", k.name, r.by, n)
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
		return "" // from when on it counts is not known
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

// overtook says whether a write came after an earlier one of unknown outcome could
// take effect yet: that had been given up by then.
func (w *world) overtook(later, unknown vwrite) bool {
	return w.origin == nil && later.began.Sub(unknown.began) > requestTimeout
}

// flushedBy says whether a flush has ended write n: it was stored before, or, where
// it is loaded, no more in the database.
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

// expiry is when write n has ended by itself, as a read may see it; zero is not
// known. A host's deadlines are whole milliseconds, rounded up. What is loaded lives for its time to live from a load on that began
// before the next value was in the database.
func (w *world) expiry(k *vkey, n int, r vread) (end time.Time) {
	if w.fromOrigin() {
		if n < len(k.writes) && w.ns.DefaultTTL != nil && !k.writes[n].committed.IsZero() {
			end = k.writes[n].committed.Add(loadWithin + *w.ns.DefaultTTL*11/10)
		}
		return end
	}
	if w.origin != nil { // which has it still
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
		default: // who has not heard of it goes on with the end from before
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

// noteMiss counts a miss, by what has ended the last write of its key. The lock is
// held.
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
