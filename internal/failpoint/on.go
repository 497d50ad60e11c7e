//go:build failpoint

package failpoint

import (
	"slices"
	"sync/atomic"
)

var (
	out [Guards]atomic.Bool
	at  [Points]atomic.Pointer[func()]
)

// Out says whether a guard has been taken out.
func Out(g Guard) bool { return out[g].Load() }

// Set takes out these guards and no others.
func Set(guards ...Guard) {
	for g := range Guards {
		out[g].Store(slices.Contains(guards, g))
	}
}

// At lets a test do something at a point.
func At(p Point) {
	if f := at[p].Load(); f != nil {
		(*f)()
	}
}

// Do sets what is done at a point: once, by the first goroutine that reaches it.
func Do(p Point, f func()) {
	var once func()
	once = func() {
		if at[p].CompareAndSwap(&once, nil) {
			f()
		}
	}
	at[p].Store(&once)
}
