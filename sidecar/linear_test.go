package sidecar

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// Rule F6: the fresh reads of a key, together with its writes, are linearizable while its
// owner lives. In a history with faults a miss says nothing, because the host that
// follows a dead owner begins with nothing.

// freshRead is a read that was answered with a value, or with a plain miss.
type freshRead struct {
	began, ended time.Time
	got          int // number of the write; zero: a miss
}

// register is the model of a key: a write puts its number into it, a deletion zero.
var register = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		if output != nil {
			return state == output, state
		}
		return true, input
	},
}

// linearizable reports whether a key's fresh reads are linearizable. With losses, misses
// say nothing.
func (k *vkey) linearizable(losses bool) porcupine.CheckResult {
	read := map[int]bool{}
	var history []porcupine.Operation
	for _, r := range k.fresh {
		if r.got == 0 && losses {
			continue
		}
		read[r.got] = true
		history = append(history, porcupine.Operation{Call: r.began.UnixNano(), Return: r.ended.UnixNano(), Output: r.got})
	}
	for i, w := range k.writes {
		n := i + 1
		op := porcupine.Operation{Call: w.began.UnixNano(), Return: math.MaxInt64}
		if op.Input = n; w.del {
			op.Input = 0
		}
		switch {
		case !w.unknown:
			op.Return = w.acked.UnixNano()
		case !w.del && !read[n] || w.del && losses:
			continue // it may never have taken effect, and no read has seen it
		}
		history = append(history, op)
	}
	return porcupine.CheckOperationsTimeout(register, history, 0)
}
