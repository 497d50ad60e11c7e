// Package linear judges whether histories are linearizable, by porcupine: the fresh reads of a
// key together with its changes, and counters.
//
// Input is operations of package history. Output is the keys that are not linearizable. Only
// tests import the package, so that porcupine is in no program. What a read may return that is
// not fresh, package history judges.
package linear

import (
	"math"
	"slices"

	"github.com/anishathalye/porcupine"

	"github.com/cachesidecar/cachesidecar/internal/testing/history"
)

// change is the input of a step: to a value, or by one. A read is nil.
type change struct {
	number  int64 // what it stores; zero: nothing
	counts  bool
	initial int64
}

// model is a key. Its state is the value; zero: none.
var model = porcupine.Model{
	Init: func() any { return int64(0) },
	Step: func(state, input, output any) (bool, any) {
		now := state.(int64)
		c, changes := input.(change)
		switch {
		case !changes:
			return output == now, now
		case c.counts && now == 0:
			c.number = c.initial
		case c.counts:
			c.number = now + 1
		}
		return output == nil || output == c.number, c.number
	},
}

// Broken returns the keys whose fresh reads and changes are not linearizable, sorted. With
// losses a host that follows a dead owner begins with nothing: a miss says nothing, and
// counters, which may start again, are left to package history.
func Broken(ops []history.Op, losses bool) (keys []string) {
	of := map[string][]history.Op{}
	for _, o := range ops {
		if o.Kind != history.Flush && o.Kind != history.Touch {
			of[o.Key] = append(of[o.Key], o)
		}
	}
	for key, list := range of {
		for _, o := range ops {
			if o.Kind == history.Flush {
				list = append(list, o)
			}
		}
		if !linearizable(list, losses) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// linearizable reports whether the operations of one key are linearizable.
func linearizable(ops []history.Op, losses bool) bool {
	read := map[int64]bool{}
	counts := false
	for _, o := range ops {
		if counts = counts || o.Kind == history.Incr; counts && losses {
			return true
		}
		if o.Kind == history.Read && o.Fresh && o.Outcome == history.Done {
			read[o.Number] = true
		}
	}
	var list []porcupine.Operation
	for _, o := range ops {
		p := porcupine.Operation{Call: int64(o.Began), Return: int64(o.Ended)}
		known := o.Acked() || o.Kind == history.Read
		if !known && o.Refused() {
			continue
		}
		switch o.Kind {
		case history.Read:
			if miss := o.Outcome == history.Absent && !losses; !o.Fresh || o.Outcome != history.Done && !miss {
				continue
			}
			p.Output = o.Number
		case history.Set:
			if p.Input = (change{number: o.Number}); !known && !read[o.Number] {
				continue // it may never have taken effect, and no read has seen it
			}
		case history.Incr:
			if p.Input = (change{counts: true, initial: max(1, o.Initial)}); known {
				p.Output = o.Number
			}
		default:
			p.Input = change{}
			if !known && losses {
				continue // it may never have taken effect, and misses say nothing
			}
		}
		if !known {
			p.Return = math.MaxInt64
		}
		list = append(list, p)
	}
	return porcupine.CheckOperations(model, list)
}
