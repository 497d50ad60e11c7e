package history

import (
	"math"
	"slices"
	"time"
)

// Checker judges reads as they end, by what had happened before. It is given the begin and
// the end of each operation in the order in which they happen; that order decides, not the
// times, which may be equal. Later operations never change a verdict: whatever has ended a
// value, and whatever shows that the value was stored before, has itself ended before the
// read began.
//
// It keeps what a read may still depend on: the changes within the bound, and those of unknown
// outcome. Counters are for Check. A Checker must not be used by two goroutines at once.
type Checker struct {
	rules   Rules
	now     moment
	keys    map[string]*key
	flushes []*change
	first   *Running // the reads under way, in the order of their begins
	last    *Running
}

// moment is a time with its place in the order of all begins and ends.
type moment struct {
	at    time.Duration
	order int64
}

var never = moment{math.MaxInt64, math.MaxInt64}

// Running is an operation under way.
type Running struct {
	Op
	began      moment
	change     *change
	touch      *touched
	prev, next *Running // among the reads
}

// key is what is known of a key.
type key struct {
	changes  []*change // in the order of their begins
	values   map[int64]*change
	touches  []*touched
	dropped  int64 // the highest number of a value that was forgotten, because it had ended
	forgetAt int   // changes are forgotten from this number on
}

// change is a Set, Delete or Flush.
type change struct {
	op        Op
	began     moment
	acked     moment
	effective moment // by when it had surely taken effect
	settled   moment // by when it had, or never will
	committed moment // of a value in the origin: by when the origin had it
	replaced  moment // of a value in the origin: by when the origin had another
	ended     moment // never: it is under way
	read      bool
}

// touched is a Touch.
type touched struct {
	op    Op
	ended moment // never: it is under way, or its outcome is unknown
}

// NewChecker returns a Checker of a history that begins.
func NewChecker(rules Rules) *Checker { return &Checker{rules: rules, keys: map[string]*key{}} }

func (c *Checker) tick(at time.Duration) moment {
	c.now = moment{max(c.now.at, at), c.now.order + 1}
	return c.now
}

func (c *Checker) key(name string) *key {
	k := c.keys[name]
	if k == nil {
		k = &key{values: map[int64]*change{}, dropped: math.MinInt64, forgetAt: 16}
		c.keys[name] = k
	}
	return k
}

// Begin is called before an operation is sent, and returns it. The caller then writes the
// outcome into it, and calls End.
func (c *Checker) Begin(o Op) *Running {
	r := &Running{Op: o, began: c.tick(o.Began)}
	switch o.Kind {
	case Read:
		if r.prev = c.last; c.last != nil {
			c.last.next = r
		} else {
			c.first = r
		}
		c.last = r
	case Touch:
		r.touch = &touched{op: o, ended: never}
		k := c.key(o.Key)
		k.touches = append(k.touches, r.touch)
	case Set, Delete, Flush:
		w := &change{op: o, began: r.began, acked: never, effective: never, settled: never,
			committed: never, replaced: never, ended: never}
		r.change = w
		if o.Kind == Flush {
			c.flushes = append(c.flushes, w)
			break
		}
		k := c.key(o.Key)
		k.changes = append(k.changes, w)
		if o.Kind == Set && k.values[o.Number] == nil {
			k.values[o.Number] = w
		}
		if o.Committed != 0 && o.Committed <= o.Began {
			k.noteCommit(w, r.began)
		}
	}
	return r
}

// End is called after an operation has ended, and judges it.
func (c *Checker) End(r *Running) Verdict {
	now := c.tick(r.Ended)
	switch r.Kind {
	case Read:
		c.leave(r)
		if r.Outcome == Done {
			return c.judgeRead(r, now)
		}
	case Touch:
		switch {
		case r.Refused(): // it has touched nothing
			k := c.key(r.Key)
			k.touches = slices.DeleteFunc(k.touches, func(t *touched) bool { return t == r.touch })
		case r.Acked():
			r.touch.op, r.touch.ended = r.Op, now
		}
	case Set, Delete, Flush:
		return c.judgeChange(r, now)
	}
	return Verdict{}
}

// leave notes that a read is not under way any more.
func (c *Checker) leave(r *Running) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		c.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		c.last = r.prev
	}
	r.prev, r.next = nil, nil
}

// judgeChange judges a change that has ended, and notes its outcome.
func (c *Checker) judgeChange(r *Running, now moment) (v Verdict) {
	w := r.change
	w.op, w.ended = r.Op, now
	if r.Kind == Flush {
		if !r.Acked() {
			c.flushes = slices.DeleteFunc(c.flushes, func(f *change) bool { return f == w })
			return v
		}
		w.acked, w.effective, w.settled = now, now, now
		c.forgetFlushes()
		return v
	}
	k := c.key(r.Key)
	switch {
	case r.Kind == Set && k.values[r.Number] != w:
		v = Verdict{Rule: Twice, Op: r.Op, By: &k.values[r.Number].op}
	case r.Kind == Set && r.Refused() && w.read:
		v = Verdict{Rule: ReadRefused, Op: r.Op}
	}
	switch {
	case r.Acked():
		w.acked = now
		if w.effective == never {
			w.effective = now
		}
		if w.settled == never {
			w.settled = now
		}
	case r.Kind == Delete:
		k.changes = slices.DeleteFunc(k.changes, func(d *change) bool { return d == w }) // it ends nothing for sure
	}
	if r.Committed != 0 {
		k.noteCommit(w, now)
	}
	c.forget(k)
	return v
}

// noteCommit notes that the origin has a value, and has no earlier one any more.
func (k *key) noteCommit(w *change, now moment) {
	if w.committed != never {
		return
	}
	w.committed = now
	if w.settled == never {
		w.settled = now
	}
	for _, v := range k.changes {
		if v.committed.order < now.order && v.replaced == never {
			v.replaced = now
		}
	}
}
