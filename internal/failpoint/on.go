//go:build failpoint

package failpoint

import "sync/atomic"

var (
	out atomic.Uint64 // one bit for each guard
	at  [GapFound + 1]atomic.Pointer[func()]
)

// Out says whether a guard has been taken out.
func Out(g Guard) bool { return out.Load()&(1<<g) != 0 }

// Set takes out these guards and no others.
func Set(guards ...Guard) {
	var bits uint64
	for _, g := range guards {
		bits |= 1 << g
	}
	out.Store(bits)
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
