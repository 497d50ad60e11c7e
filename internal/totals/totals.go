// Package totals judges what apps were told of counters and of keys that are
// deleted, without any of the rules by which the other checkers judge: those
// follow one writer of a key, this one follows any number of them at once.
//
// Inputs are the requests of one key with their times and outcomes; outputs are
// lines that say what is wrong. It has no goroutine, and is imported by tests
// alone.
package totals

import (
	"fmt"
	"slices"
	"time"
)

// Kind of a request.
type Kind uint8

// The kinds. A flush that empties the key's namespace is a Delete of the key.
const (
	Incr   Kind = iota // by one; an absent key becomes one
	Set                // to a number that no other Set of the key has
	Delete             // acknowledged, whether there was a value or none
	Read               // that found a value
)

// Outcome of a request.
type Outcome uint8

// The outcomes.
const (
	Done    Outcome = iota
	Unknown         // it may be executed once, then or at any later time
	Refused         // it surely was not executed
)

// Op is a request of one key. Times are since the history's begin.
type Op struct {
	Kind    Kind
	Outcome Outcome
	Host    string // the process that was asked; none is one that nobody else asked
	Began   time.Duration
	Ended   time.Duration
	Number  int64 // the total that INCR was told; what SET stores; what the read found
	Fresh   bool  // of a read: from the key's holder
}

func (o *Op) String() string {
	return fmt.Sprintf("%s of %d through %s, %.6f s to %.6f s", [...]string{"INCR", "SET", "DELETE", "read"}[o.Kind],
		o.Number, o.Host, o.Began.Seconds(), o.Ended.Seconds())
}

// Rules are what holds for the key.
type Rules struct {
	Bound    time.Duration // for how long another host may read what was overwritten
	Lossless bool          // nothing was killed, paused or cut: no value may be lost
}

// margin is how long after the end of a a read may still see what was before it.
func (r Rules) margin(a, read *Op) time.Duration {
	if read.Kind != Read || read.Fresh || a.Host != "" && a.Host == read.Host {
		return 0
	}
	return r.Bound
}

// before says whether b must see what a did.
func (r Rules) before(a, b *Op) bool { return a.Outcome == Done && a.Ended+r.margin(a, b) < b.Began }

// after says whether an operation may have been executed at a moment or later.
func (o *Op) after(t time.Duration) bool {
	return o.Outcome == Unknown || o.Outcome == Done && o.Ended >= t
}

// Counter lists what is wrong with the totals of a counter that is changed by
// INCR and DELETE alone. A counter that is lost starts afresh, at one; it never
// goes back to an earlier total otherwise, and never misses an INCR:
//
//   - A total is at most the number of INCRs that had begun.
//   - Whoever sees a total b after one of a ≥ b (a read: of a > b) was told, or after
//     a deletion, sees a counter that has started afresh since: so each number up
//     to b was told to an INCR that may have been executed since, or there are
//     as many INCRs whose outcome is unknown.
//   - Without losses, only a deletion starts a counter afresh; and where there is
//     none, an INCR's total counts each one that was acknowledged before it began.
func (r Rules) Counter(ops []Op) (wrong []string) {
	deleted := slices.ContainsFunc(ops, func(o Op) bool { return o.Kind == Delete && o.Outcome != Refused })
	for i := range ops {
		b := &ops[i]
		if b.Outcome != Done || b.Kind != Incr && b.Kind != Read {
			continue
		}
		begun, acked := int64(0), int64(0)
		var last *Op // what b's counter has started afresh after
		for j := range ops {
			a := &ops[j]
			if a.Kind == Incr && a.Outcome != Refused && a.Began <= b.Ended {
				begun++
			}
			if a == b {
				continue
			}
			if a.Kind == Incr && r.before(a, b) {
				acked++
			}
			if r.afresh(a, b) && (last == nil || a.Began > last.Began) {
				last = a
			}
		}
		switch {
		case b.Number > begun:
			wrong = append(wrong, fmt.Sprintf("a total above the %d that had begun: %v", begun, b))
		case last != nil && r.Lossless && last.Kind == Incr && !r.mayBeDeleted(ops, last, b):
			wrong = append(wrong, fmt.Sprintf("a total went back without a deletion or a loss: %v; it was %v", b, last))
		case last != nil && !since(ops, last.Began, b) && !(last.Kind == Incr && last.Ended >= b.Began && since(ops, b.Began, last)):
			wrong = append(wrong, fmt.Sprintf("a total went back to an earlier one: %v; before it was %v", b, last))
		case r.Lossless && !deleted && b.Kind == Incr && b.Number <= acked:
			wrong = append(wrong, fmt.Sprintf("a total misses some of %d that were acknowledged: %v", acked, b))
		}
	}
	return wrong
}

// afresh says whether b shows that the counter has started afresh since a began.
func (r Rules) afresh(a, b *Op) bool {
	switch {
	case a.Kind == Delete:
		return r.before(a, b)
	case a.Kind != Incr || a.Outcome != Done:
		return false
	case b.Kind == Read:
		return a.Number > b.Number && r.before(a, b)
	case a.Number == b.Number: // whichever was first, if they met
		return a.Ended < b.Began || a.Began <= b.Began && b.Began <= a.Ended
	}
	return a.Number > b.Number && r.before(a, b)
}

// mayBeDeleted says whether a deletion may have come between a and b.
func (r Rules) mayBeDeleted(ops []Op, a, b *Op) bool {
	return slices.ContainsFunc(ops, func(o Op) bool { return o.Kind == Delete && o.Began <= b.Ended && o.after(a.Began) })
}

// since says whether a counter that started afresh after a moment can have come
// to what b was told.
func since(ops []Op, from time.Duration, b *Op) bool {
	told := map[int64]bool{}
	unknown := int64(0)
	for i := range ops {
		switch o := &ops[i]; {
		case o.Kind != Incr || o.Began > b.Ended:
		case o.Outcome == Unknown:
			unknown++
		case o.after(from) && o.Number <= b.Number:
			told[o.Number] = true
		}
	}
	return int64(len(told))+unknown >= b.Number
}

// Key lists what is wrong with the reads of a key that any number of apps set and
// delete: each was set, and by nothing that was refused; and none was ended, by a
// deletion or another value, before the read began, or, seen through another host,
// the bound and more before. What is of unknown outcome may come late, but once:
// what was read and then ended does not come back.
func (r Rules) Key(ops []Op) (wrong []string) {
	set := map[int64]*Op{}
	sure := map[int64]time.Duration{} // by when the value was there
	for i := range ops {
		switch o := &ops[i]; {
		case o.Kind == Set:
			if set[o.Number] = o; o.Outcome == Done {
				sure[o.Number] = o.Ended
			}
		}
	}
	for i := range ops {
		if o := &ops[i]; o.Kind == Read && o.Outcome == Done {
			if t, ok := sure[o.Number]; !ok || o.Ended < t {
				sure[o.Number] = o.Ended
			}
		}
	}
	for i := range ops {
		o := &ops[i]
		if o.Kind != Read || o.Outcome != Done {
			continue
		}
		switch w := set[o.Number]; {
		case w == nil:
			wrong = append(wrong, fmt.Sprintf("a value that nobody has set: %v", o))
			continue
		case w.Outcome == Refused:
			wrong = append(wrong, fmt.Sprintf("the value of a SET that was refused: %v; %v", o, w))
			continue
		case w.Began > o.Ended:
			wrong = append(wrong, fmt.Sprintf("a value before it was set: %v; %v", o, w))
			continue
		}
		for j := range ops {
			if e := &ops[j]; (e.Kind == Delete || e.Kind == Set && e.Number != o.Number) && e.Began > sure[o.Number] && r.before(e, o) {
				wrong = append(wrong, fmt.Sprintf("a value that was ended %v before: %v; it was %v", o.Began-e.Ended, o, e))
				break
			}
		}
	}
	return wrong
}
