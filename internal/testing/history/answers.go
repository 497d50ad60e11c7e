package history

import "time"

// The rules of answers, whatever value they have.
const (
	// Strange: no answer is odd.
	Strange Rule = "an odd answer"
	// Fails: a read that cannot be answered is a miss and not an error, with two exceptions:
	// its origin is down, or its time was over while the machine stood still.
	Fails Rule = "a read that fails"
	// Tardy: each request is answered within its timeout, if the process lives.
	Tardy Rule = "answered late"
)

// Past returns how long after its timeout the answer came.
func (o *Op) Past() time.Duration {
	if o.Timeout == 0 {
		return 0
	}
	return o.Ended - o.Began - o.Timeout
}

// Answers judges how each request of a history was answered. An answer may be late by slack,
// and by as long as the machine stood still.
func (r Rules) Answers(ops []Op, slack time.Duration) (wrong []Verdict) {
	for i := range ops {
		o := &ops[i]
		v := Verdict{Op: *o}
		switch {
		case o.Outcome == Odd:
			v.Rule = Strange
		case o.Gone:
		case o.Kind == Read && r.fails(o):
			v.Rule = Fails
		case o.Past() > slack+r.Stalled(o.Began, o.Ended):
			v.Rule = Tardy
		}
		if v.Rule != "" {
			wrong = append(wrong, v)
		}
	}
	return wrong
}

// fails reports whether a read has failed without an excuse.
func (r Rules) fails(o *Op) bool {
	switch o.Outcome {
	case Done, Absent, Degraded, Silent, Old:
		return false
	case Failed, Busy:
		return !r.excused(Outage, o.Ended) && r.Stalled(o.Began, o.Ended) == 0
	case Unknown:
		return r.Stalled(o.Began, o.Ended) == 0
	}
	return true
}
