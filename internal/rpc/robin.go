package rpc

import "slices"

// roundRobin is what waits, by whose it is. Each of those has its turn, and of each what
// has come first goes first.
type roundRobin[K comparable, T any] struct {
	lines []*waitLine[K, T] // the first one has the next turn
	n     int
}

type waitLine[K comparable, T any] struct {
	of    K
	waits []T
}

// len is how many wait.
func (r *roundRobin[K, T]) len() int { return r.n }

// push puts x behind what its owner has there.
func (r *roundRobin[K, T]) push(of K, x T) {
	at := slices.IndexFunc(r.lines, func(l *waitLine[K, T]) bool { return l.of == of })
	if at < 0 {
		at = len(r.lines)
		r.lines = append(r.lines, &waitLine[K, T]{of: of})
	}
	r.lines[at].waits = append(r.lines[at].waits, x)
	r.n++
}

// pop takes the next one out. There must be one.
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

// remove takes those out that match.
func (r *roundRobin[K, T]) remove(match func(T) bool) {
	for _, l := range r.lines {
		n := len(l.waits)
		l.waits = slices.DeleteFunc(l.waits, match)
		r.n -= n - len(l.waits)
	}
	r.lines = slices.DeleteFunc(r.lines, func(l *waitLine[K, T]) bool { return len(l.waits) == 0 })
}
