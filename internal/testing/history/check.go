package history

import (
	"cmp"
	"slices"
	"time"
)

// Check judges a whole history, in any order, and returns what is wrong with it. A key that
// has an Incr is a counter.
func Check(rules Rules, ops []Op) (wrong []Verdict) {
	counters := map[string][]Op{}
	for i := range ops {
		if ops[i].Kind == Incr {
			counters[ops[i].Key] = nil
		}
	}
	c := NewChecker(rules)
	running := make([]*Running, len(ops))
	for _, e := range inOrder(ops) {
		o := &ops[e.op]
		if _, counter := counters[o.Key]; counter && o.Kind != Flush {
			continue
		}
		if !e.ends {
			running[e.op] = c.Begin(*o)
			continue
		}
		if v := c.End(running[e.op]); v.Rule != "" {
			wrong = append(wrong, v)
		}
		running[e.op] = nil
	}
	for i := range ops {
		o := &ops[i]
		for name, list := range counters {
			if o.Kind == Flush || o.Key == name {
				counters[name] = append(list, *o)
			}
		}
	}
	for _, list := range counters {
		wrong = append(wrong, rules.counter(list)...)
	}
	slices.SortStableFunc(wrong, func(a, b Verdict) int { return cmp.Compare(a.Op.Began, b.Op.Began) })
	return wrong
}

// event is the begin or the end of an operation.
type event struct {
	at    time.Duration
	class int8 // at one moment: 0 first
	ends  bool
	op    int
}

// inOrder returns the begins and ends of a history in their order. What ends when another
// operation begins has ended before it. Operations that take no time are beside each other.
func inOrder(ops []Op) []event {
	events := make([]event, 0, 2*len(ops))
	for i := range ops {
		o := &ops[i]
		end := event{at: max(o.Began, o.Ended), ends: true, op: i}
		if end.at == o.Began {
			end.class = 2
		}
		events = append(events, event{at: o.Began, class: 1, op: i}, end)
	}
	slices.SortStableFunc(events, func(a, b event) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.class, b.class))
	})
	return events
}
