package sidecar

import (
	"math"
	"time"

	"github.com/anishathalye/porcupine"
)

// F6: the fresh reads of a key, with its writes, are linearizable while its
// holder lives. A history with faults has misses that say nothing: who follows a
// holder that is dead begins with nothing.

// freshRead is one that was answered with a value, or with a plain miss.
type freshRead struct {
	began, ended time.Time
	got          int // number of the write; zero is a miss
}

// register is a key: writes put a number into it, zero for a deletion.
var register = porcupine.Model{
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		if output != nil {
			return state == output, state
		}
		return true, input
	},
}

// linearizable says whether a key's fresh reads are. With losses, misses say
// nothing.
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
			continue // it may never have taken effect, and nobody has seen it
		}
		history = append(history, op)
	}
	return porcupine.CheckOperationsTimeout(register, history, 0)
}
