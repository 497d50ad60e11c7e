package rpc

import "slices"

// roundRobin is a queue with one line per owner. The owners take turns, and each line is
// first in, first out.
type roundRobin[K comparable, T any] struct {
	lines []*waitLine[K, T] // the first one has the next turn
	n     int
}

type waitLine[K comparable, T any] struct {
	of    K
	waits []T
}

// len returns the number of items that wait.
func (r *roundRobin[K, T]) len() int { return r.n }

// push puts x at the end of its owner's line.
func (r *roundRobin[K, T]) push(of K, x T) {
	at := slices.IndexFunc(r.lines, func(l *waitLine[K, T]) bool { return l.of == of })
	if at < 0 {
		at = len(r.lines)
		r.lines = append(r.lines, &waitLine[K, T]{of: of})
	}
	r.lines[at].waits = append(r.lines[at].waits, x)
	r.n++
}

// pop removes the next item. The queue must not be empty.
func (r *roundRobin[K, T]) pop() T {
	var zero T
	first := r.lines[0]
	x := first.waits[0]
	first.waits[0] = zero
	first.waits = first.waits[1:]
	r.lines = slices.Delete(r.lines, 0, 1)
	if len(first.waits) > 0 {
		r.lines = append(r.lines, first)
	}
	r.n--
	return x
}

// remove removes the items that match.
func (r *roundRobin[K, T]) remove(match func(T) bool) {
	for _, l := range r.lines {
		n := len(l.waits)
		l.waits = slices.DeleteFunc(l.waits, match)
		r.n -= n - len(l.waits)
	}
	r.lines = slices.DeleteFunc(r.lines, func(l *waitLine[K, T]) bool { return len(l.waits) == 0 })
}
