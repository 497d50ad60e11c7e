package history

import (
	"math"
	"slices"
	"time"
)

// The rules of counters, which only Incr, Delete and Flush change. A lost counter starts
// again at the Initial of an Incr. Otherwise it never returns to an earlier total, so that
// no two Incrs have one total: none is missed.
const (
	// Unreached: every total was reached in steps of one by Incrs that had begun.
	Unreached Rule = "a total that was not reached"
	// Back: if b is at most an earlier total a (a read: less than a), or follows a deletion,
	// the counter has started again in between. So every number from a start up to b was
	// returned by an Incr that may have been executed since, or Incrs of unknown outcome fill
	// the gaps.
	Back Rule = "a total went back to an earlier one"
	// Restarted: without losses, only a deletion starts a counter again.
	Restarted Rule = "a total went back without a deletion or a loss"
)

// counter is the history of one.
type counter struct {
	rules   Rules
	ops     []Op
	base    int64 // the lowest total at which it may start, less one
	told    map[int64]time.Duration
	unknown []*Op
}

func (o *Op) initial() int64 {
	if o.Initial == 0 {
		return 1
	}
	return o.Initial
}

// counter judges the history of one counter.
func (r Rules) counter(ops []Op) (wrong []Verdict) {
	c := &counter{rules: r, ops: ops, base: math.MaxInt64, told: map[int64]time.Duration{}}
	for i := range ops {
		o := &ops[i]
		switch {
		case o.Refused() || o.Kind != Incr:
			continue
		case o.Acked():
			if at, ok := c.told[o.Number]; !ok || o.Began < at {
				c.told[o.Number] = o.Began
			}
		default:
			c.unknown = append(c.unknown, o)
		}
		c.base = min(c.base, o.initial()-1)
	}
	for i := range ops {
		if b := &ops[i]; b.Outcome == Done && (b.Kind == Incr || b.Kind == Read) {
			if v := c.judge(b); v.Rule != "" {
				wrong = append(wrong, v)
			}
		}
	}
	return wrong
}

func (c *counter) judge(b *Op) (v Verdict) {
	var last *Op // the last operation since which the counter has started again
	for j := range c.ops {
		a := &c.ops[j]
		if a != b && c.afresh(a, b) && (last == nil || a.Began > last.Began) {
			last = a
		}
	}
	v = Verdict{Op: *b, By: last}
	switch {
	case !c.reached(b):
		v.Rule = Unreached
	case last != nil && c.rules.Lossless && last.Kind == Incr && !c.mayBeDeleted(last, b):
		v.Rule = Restarted
	case last != nil && !c.since(last.Began, b) &&
		!(last.Kind == Incr && last.Ended >= b.Began && c.since(b.Began, last)):
		v.Rule = Back
	}
	return v
}

// before reports whether b must see the effect of a.
func (c *counter) before(a, b *Op) bool {
	margin := c.rules.Slack
	if b.Kind == Read && !b.Fresh && (a.Host == "" || a.Host != b.Host) {
		margin += c.rules.Bound
	}
	return a.Acked() && a.Ended+margin < b.Began
}

// after reports whether an operation may have been executed at t or later.
func (c *counter) after(o *Op, t time.Duration) bool {
	if o.unknown() {
		return c.rules.Late == 0 || o.Began+c.rules.Late >= t
	}
	return o.Acked() && o.Ended >= t
}

// afresh reports whether b shows that the counter has started again since a began.
func (c *counter) afresh(a, b *Op) bool {
	switch {
	case a.Kind == Delete || a.Kind == Flush:
		return c.before(a, b)
	case a.Kind != Incr || a.Outcome != Done:
		return false
	case b.Kind == Incr && a.Number == b.Number: // in either order, if they overlapped
		return a.Ended < b.Began || a.Began <= b.Began && b.Began <= a.Ended
	}
	return a.Number > b.Number && c.before(a, b)
}

// mayBeDeleted reports whether a deletion may have been executed between a and b.
func (c *counter) mayBeDeleted(a, b *Op) bool {
	return slices.ContainsFunc(c.ops, func(o Op) bool {
		return (o.Kind == Delete || o.Kind == Flush) && o.Began <= b.Ended && c.after(&o, a.Began)
	})
}

// reached reports whether the total of b was reached: some Incr has returned the number
// before it, or Incrs of unknown outcome fill the gap from the last that was returned.
func (c *counter) reached(b *Op) bool {
	n := b.Number
	if b.Kind == Incr {
		if n == b.initial() {
			return true
		}
		n--
	}
	var starts map[int64]bool
	room := 0
	for ; n > c.base; n-- {
		if at, ok := c.told[n]; ok && at <= b.Ended {
			return true
		}
		if starts == nil {
			starts = map[int64]bool{}
			for _, o := range c.unknown {
				if o.Began <= b.Ended {
					starts[o.initial()] = true
					room++
				}
			}
		}
		if room--; room < 0 {
			return false
		}
		if starts[n] {
			return true
		}
	}
	return false
}

// since reports whether a counter that started again after from can have reached the total
// of b.
func (c *counter) since(from time.Duration, b *Op) bool {
	told, starts := map[int64]bool{}, map[int64]bool{}
	room := 0
	for i := range c.ops {
		o := &c.ops[i]
		switch {
		case o.Kind != Incr || o.Began > b.Ended || !c.after(o, from):
		case o.unknown():
			room++
			starts[o.initial()] = true
		case o.Number <= b.Number:
			told[o.Number] = true
			starts[o.Number] = starts[o.Number] || o.Number == o.initial()
		}
	}
	for n := b.Number; n > c.base; n-- {
		if !told[n] {
			if room--; room < 0 {
				return false
			}
		}
		if starts[n] {
			return true
		}
	}
	return false
}
