package faults

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// kind of a request.
type kind int

const (
	get kind = iota
	set
	del
	flush // of all keys
)

// outcome of a request, as an app sees it.
type outcome int

const (
	done        outcome = iota
	absent              // a miss of a key that has no value
	degraded            // a miss, because the owner could not be asked
	unavailable         // certainly not executed
	busy                // certainly not executed
	unknown             // timed out: it may have been executed
	silent              // the same, without any answer from the sidecar
	failed              // the origin has failed, and no stored value may be returned
	old                 // a stale value that the read accepts: no rule applies to it
	odd                 // anything else, which is a bug
	outcomes
)

func (o outcome) String() string {
	return [...]string{"done", "absent", "degraded", "unavailable", "busy", "unknown", "silent", "failed", "old", "odd"}[o]
}

// op is one request for one key, with its result. Times count from the start of the
// history.
type op struct {
	kind       kind
	key        int
	seq        int // the number of the write, or of the value that a get read
	node       int // the sidecar that was asked
	life       int // the number of its process
	downs      int // how often apps had stopped using it before
	start, end time.Duration
	allowed    time.Duration // the request's timeout
	out        outcome
	gone       bool   // the process ended or was paused meanwhile
	note       string // text of an error; source of a value
	ttl        time.Duration
}

// late returns how long after its timeout the answer came.
func (o *op) late() time.Duration { return o.end - o.start - o.allowed }

// ok reports whether a write was acknowledged. That includes a delete of an absent key.
func (o *op) ok() bool { return o.out == done || o.out == absent }

func (o *op) String() string {
	what := [...]string{"get", "set", "delete", "flush"}[o.kind]
	return fmt.Sprintf("%s of key %d, number %d, through node %d (life %d), %.3f s to %.3f s: %v %s",
		what, o.key, o.seq, o.node, o.life, o.start.Seconds(), o.end.Seconds(), o.out, o.note)
}

// rules are the rules that a history is checked against. One goroutine writes a key at a
// time, so a key's writes are in the order of their numbers.
//
//   - Every value that is read was written, under that key, by a write that had begun
//     and was not refused.
//   - F1: a read returns no value that an acknowledged write or delete through the same
//     process has ended before the read began.
//   - F2: a read returns no value that an acknowledged write or delete through another
//     process has ended more than bound before.
//   - The same two rules hold for a flush that began after the write was acknowledged.
//     An expired value is not read through any process.
//   - Each request is answered within its timeout, if the process lives.
//   - No answer is odd. A read that cannot be answered is a miss and not an error, with
//     two exceptions: its origin is down, or its timeout ended while the machine stood
//     still.
//
// A write of unknown outcome may take effect at any later time, once. It ends no value. A
// read may return its value until something ends it that began after the value was first
// read.
type rules struct {
	bound time.Duration // of F2
	slack time.Duration // beyond a request's timeout, for the machine
	// stalled returns for how long, between two times, the machine ran no process,
	// including the test; nil: never.
	stalled func(from, to time.Duration) time.Duration
	// split reports whether two sides were separate clusters at a time. Reads that began
	// in a split are exempt from F2.
	split func(time.Duration) bool
	// outage reports whether the origin was down at a time. Reads that end in an outage
	// may fail or be refused.
	outage func(time.Duration) bool
}

// still returns for how long the machine stood still during a request.
func (r rules) still(o *op) time.Duration {
	if r.stalled == nil {
		return 0
	}
	return r.stalled(o.start, o.end)
}

// broken lists the violations of the rules in a history, shortened.
func (r rules) broken(history []op) []string {
	var bad list
	writes := map[int][]*op{}
	reads := map[int][]*op{}
	var flushes []*op
	for i := range history {
		o := &history[i]
		switch {
		case o.out == odd:
			bad.add("an odd answer: %v", o)
		case o.gone:
		case o.kind == get && o.out > degraded && o.out != silent && o.out != old && !r.excused(o):
			bad.add("a read that fails: %v", o)
		case o.late() > r.slack+r.still(o):
			bad.add("answered %v late: %v", o.late(), o)
		}
		switch {
		case o.kind == flush:
			flushes = append(flushes, o)
		case o.kind != get:
			writes[o.key] = append(writes[o.key], o)
		case o.out == done:
			reads[o.key] = append(reads[o.key], o)
		}
	}
	for key, list := range reads {
		r.key(&bad, list, writes[key], flushes)
	}
	return bad.lines()
}

// excused reports whether a read failed because the origin was down, or because the
// machine stood still during the read and its load.
func (r rules) excused(o *op) bool {
	switch o.out {
	case failed, busy:
		return r.outage != nil && r.outage(o.end) || r.still(o) > 0
	case unknown:
		return r.still(o) > 0
	}
	return false
}

// key checks the reads of one key.
func (r rules) key(bad *list, reads, writes, flushes []*op) {
	slices.SortFunc(writes, func(a, b *op) int { return cmp.Compare(a.seq, b.seq) })
	at := map[int]int{}
	known := make([]time.Duration, len(writes)) // by when each has surely taken effect
	for i, w := range writes {
		at[w.seq] = i
		known[i] = never
		if w.ok() {
			known[i] = w.end
		}
	}
	for _, o := range reads {
		if i, ok := at[o.seq]; ok {
			known[i] = min(known[i], o.end)
		}
	}
	for _, o := range reads {
		i, ok := at[o.seq]
		switch {
		case !ok || writes[i].kind == del:
			bad.add("a value that nobody wrote: %v", o)
			continue
		case writes[i].start > o.end:
			bad.add("a value before it was written: %v; %v", o, writes[i])
			continue
		case writes[i].out == unavailable || writes[i].out == busy:
			bad.add("the value of a write that was refused: %v; %v", o, writes[i])
			continue
		}
		// Deadlines are whole milliseconds.
		if w := writes[i]; w.ttl > 0 && w.out == done && o.start > w.end+w.ttl+time.Millisecond {
			bad.add("expired, %v before: %v; it was %v", o.start-w.end-w.ttl, o, w)
			continue
		}
		for _, w := range append(writes[i+1:len(writes):len(writes)], flushes...) {
			if !w.ok() || w.start < known[i] {
				continue
			}
			same := w.node == o.node && w.life == o.life
			switch {
			case same && w.end <= o.start:
				bad.add("F1, %v after what ended it: %v; it was %v", o.start-w.end, o, w)
			case w.end+r.bound < o.start && (r.split == nil || !r.split(o.start)):
				bad.add("F2, %v after what ended it: %v; it was %v", o.start-w.end, o, w)
			default:
				continue
			}
			break
		}
	}
}

const never = time.Duration(1<<63 - 1)

// list keeps the first lines of each kind, and counts the rest.
type list struct {
	sorts  []string
	first  map[string][]string
	number map[string]int
}

func (l *list) add(format string, args ...any) {
	sort, _, _ := strings.Cut(format, ":")
	if l.first == nil {
		l.first, l.number = map[string][]string{}, map[string]int{}
	}
	if l.number[sort] == 0 {
		l.sorts = append(l.sorts, sort)
	}
	if l.number[sort]++; len(l.first[sort]) < 5 {
		l.first[sort] = append(l.first[sort], fmt.Sprintf(format, args...))
	}
}

func (l *list) lines() (out []string) {
	for _, s := range l.sorts {
		out = append(out, l.first[s]...)
		if more := l.number[s] - len(l.first[s]); more > 0 {
			out = append(out, fmt.Sprintf("... and %d more like it", more))
		}
	}
	return out
}

// counts returns the numbers of requests in a history by kind and outcome.
func counts(history []op) (n [flush + 1][outcomes]int) {
	for i := range history {
		n[history[i].kind][history[i].out]++
	}
	return n
}

func summary(history []op) string {
	var b strings.Builder
	for k, n := range counts(history) {
		fmt.Fprintf(&b, "%s:", [...]string{"get", "; set", "; delete", "; flush"}[k])
		for o, n := range n {
			if n > 0 {
				fmt.Fprintf(&b, " %d %v", n, outcome(o))
			}
		}
	}
	return b.String()
}
