// Package totals checks what apps observed of counters and of keys that are set and
// deleted. It shares no rules with the other checkers: they follow one writer of a key,
// this package follows any number of concurrent writers.
//
// Inputs are the requests of one key with their times and outcomes. Outputs are lines
// that describe violations. The package starts no goroutine, and only tests import it.
package totals

import (
	"fmt"
	"slices"
	"time"
)

// Kind is the kind of a request.
type Kind uint8

// The kinds. A flush of the key's namespace counts as a Delete of the key.
const (
	Incr   Kind = iota // by one; an absent key becomes 1
	Set                // to a number that no other Set of the key uses
	Delete             // acknowledged, whether or not there was a value
	Read               // that found a value
)

// Outcome is the outcome of a request.
type Outcome uint8

// The outcomes.
const (
	Done    Outcome = iota
	Unknown         // may be executed once, then or at any later time
	Refused         // certainly not executed
)

// Op is a request of one key. Times count from the start of the history.
type Op struct {
	Kind    Kind
	Outcome Outcome
	Host    string // the process that was asked; empty: one that no other request asked
	Began   time.Duration
	Ended   time.Duration
	Number  int64 // the total that INCR returned, what SET stored, what the read found
	Fresh   bool  // of a read: answered by the key's owner
}

func (o *Op) String() string {
	return fmt.Sprintf("%s of %d through %s, %.6f s to %.6f s", [...]string{"INCR", "SET", "DELETE", "read"}[o.Kind],
		o.Number, o.Host, o.Began.Seconds(), o.Ended.Seconds())
}

// Rules are what holds for the key.
type Rules struct {
	Bound    time.Duration // for how long another host may read an overwritten value
	Lossless bool          // nothing was killed, paused or cut: no value may be lost
}

// margin returns how long after the end of a the read may still see the state before a.
func (r Rules) margin(a, read *Op) time.Duration {
	if read.Kind != Read || read.Fresh || a.Host != "" && a.Host == read.Host {
		return 0
	}
	return r.Bound
}

// before reports whether b must see the effect of a.
func (r Rules) before(a, b *Op) bool { return a.Outcome == Done && a.Ended+r.margin(a, b) < b.Began }

// after reports whether the operation may have been executed at t or later.
func (o *Op) after(t time.Duration) bool {
	return o.Outcome == Unknown || o.Outcome == Done && o.Ended >= t
}

// Counter lists the violations in the totals of a counter that only INCR and DELETE
// change. A lost counter starts again at 1. Otherwise it never returns to an earlier
// total and never misses an INCR:
//
//   - A total is at most the number of INCRs that had begun.
//   - If b is at most an earlier total a (a read: less than a), or follows a deletion,
//     the counter has started again in between. So every number up to b was returned
//     by an INCR that may have been executed since, or INCRs of unknown outcome fill
//     the gaps.
//   - Without losses, only a deletion starts a counter again. If there is no deletion,
//     an INCR's total counts every INCR that was acknowledged before it began.
func (r Rules) Counter(ops []Op) (wrong []string) {
	deleted := slices.ContainsFunc(ops, func(o Op) bool { return o.Kind == Delete && o.Outcome != Refused })
	for i := range ops {
		b := &ops[i]
		if b.Outcome != Done || b.Kind != Incr && b.Kind != Read {
			continue
		}
		begun, acked := int64(0), int64(0)
		var last *Op // the last operation since which the counter has started again
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
		case last != nil && !since(ops, last.Began, b) &&
			!(last.Kind == Incr && last.Ended >= b.Began && since(ops, b.Began, last)):
			wrong = append(wrong, fmt.Sprintf("a total went back to an earlier one: %v; before it was %v", b, last))
		case r.Lossless && !deleted && b.Kind == Incr && b.Number <= acked:
			wrong = append(wrong, fmt.Sprintf("a total misses some of %d that were acknowledged: %v", acked, b))
		}
	}
	return wrong
}

// afresh reports whether b shows that the counter has started again since a began.
func (r Rules) afresh(a, b *Op) bool {
	switch {
	case a.Kind == Delete:
		return r.before(a, b)
	case a.Kind != Incr || a.Outcome != Done:
		return false
	case b.Kind == Read:
		return a.Number > b.Number && r.before(a, b)
	case a.Number == b.Number: // in either order, if they overlapped
		return a.Ended < b.Began || a.Began <= b.Began && b.Began <= a.Ended
	}
	return a.Number > b.Number && r.before(a, b)
}

// mayBeDeleted reports whether a deletion may have been executed between a and b.
func (r Rules) mayBeDeleted(ops []Op, a, b *Op) bool {
	return slices.ContainsFunc(ops, func(o Op) bool {
		return o.Kind == Delete && o.Began <= b.Ended && o.after(a.Began)
	})
}

// since reports whether a counter that started again after from can have reached the
// total of b.
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

// Key lists the violations in the reads of a key that any number of apps set and delete.
// Every value that is read was set, and not by a refused request. No value was ended, by
// a deletion or by another value, before the read began; for a read through another host,
// more than the bound before. A request of unknown outcome may take effect late, but only
// once: a value that was read and then ended does not return.
func (r Rules) Key(ops []Op) (wrong []string) {
	set := map[int64]*Op{}
	sure := map[int64]time.Duration{} // the time by which the value was surely there
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
			wrong = append(wrong, fmt.Sprintf("a value that was never set: %v", o))
			continue
		case w.Outcome == Refused:
			wrong = append(wrong, fmt.Sprintf("the value of a SET that was refused: %v; %v", o, w))
			continue
		case w.Began > o.Ended:
			wrong = append(wrong, fmt.Sprintf("a value before it was set: %v; %v", o, w))
			continue
		}
		for j := range ops {
			e := &ops[j]
			ends := e.Kind == Delete || e.Kind == Set && e.Number != o.Number
			if ends && e.Began > sure[o.Number] && r.before(e, o) {
				wrong = append(wrong, fmt.Sprintf("a value that was ended %v before: %v; it was %v",
					o.Began-e.Ended, o, e))
				break
			}
		}
	}
	return wrong
}
