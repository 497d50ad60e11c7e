package quota

import "slices"

// FairQueue is a queue with one line per tenant. The tenants take turns, and each line is
// first in, first out.
type FairQueue[K comparable, T any] struct {
	lines []*waitLine[K, T] // the first one has the next turn
	n     int
}

type waitLine[K comparable, T any] struct {
	of    K
	waits []T
}

// Len returns the number of items that wait.
func (r *FairQueue[K, T]) Len() int { return r.n }

// Push puts x at the end of its tenant's line.
func (r *FairQueue[K, T]) Push(of K, x T) {
	at := slices.IndexFunc(r.lines, func(l *waitLine[K, T]) bool { return l.of == of })
	if at < 0 {
		at = len(r.lines)
		r.lines = append(r.lines, &waitLine[K, T]{of: of})
	}
	r.lines[at].waits = append(r.lines[at].waits, x)
	r.n++
}

// Pop removes the next item. The queue must not be empty.
func (r *FairQueue[K, T]) Pop() T { return r.takeFrom(0, 0) }

// PopIf removes the first item that matches, of the next line that has one.
func (r *FairQueue[K, T]) PopIf(match func(T) bool) (x T, ok bool) {
	for i, l := range r.lines {
		if j := slices.IndexFunc(l.waits, match); j >= 0 {
			return r.takeFrom(i, j), true
		}
	}
	return x, false
}

// PopLast removes the last item of the next line. The queue must not be empty.
func (r *FairQueue[K, T]) PopLast() T { return r.takeFrom(0, len(r.lines[0].waits)-1) }

// takeFrom removes item j of line i, which has had its turn.
func (r *FairQueue[K, T]) takeFrom(i, j int) T {
	var zero T
	l := r.lines[i]
	x := l.waits[j]
	if j == 0 {
		l.waits[0] = zero
		l.waits = l.waits[1:]
	} else {
		l.waits = slices.Delete(l.waits, j, j+1)
	}
	r.lines = slices.Delete(r.lines, i, i+1)
	if len(l.waits) > 0 {
		r.lines = append(r.lines, l)
	}
	r.n--
	return x
}

// Remove removes the items that match.
func (r *FairQueue[K, T]) Remove(match func(T) bool) {
	for _, l := range r.lines {
		n := len(l.waits)
		l.waits = slices.DeleteFunc(l.waits, match)
		r.n -= n - len(l.waits)
	}
	r.lines = slices.DeleteFunc(r.lines, func(l *waitLine[K, T]) bool { return len(l.waits) == 0 })
}

// AccountQueue is a queue of requests. The tenants take turns, and so do the processes of a tenant.
type AccountQueue[T any] struct {
	tenants   FairQueue[*Account, *Account] // each as often as its processes have items
	processes map[*Account]*FairQueue[*Account, T]
}

// Len returns the number of items that wait.
func (q *AccountQueue[T]) Len() int { return q.tenants.Len() }

// Push puts x at the end of the line of the process above a connection's account.
func (q *AccountQueue[T]) Push(of *Account, x T) {
	tenant := of.up.up
	line := q.processes[tenant]
	if line == nil {
		if q.processes == nil {
			q.processes = map[*Account]*FairQueue[*Account, T]{}
		}
		line = &FairQueue[*Account, T]{}
		q.processes[tenant] = line
	}
	line.Push(of.up, x)
	q.tenants.Push(tenant, tenant)
}

// Pop removes the next item. The queue must not be empty.
func (q *AccountQueue[T]) Pop() T {
	tenant := q.tenants.Pop()
	line := q.processes[tenant]
	x := line.Pop()
	if line.Len() == 0 {
		delete(q.processes, tenant)
	}
	return x
}
