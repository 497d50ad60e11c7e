package server

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// TestProcessors checks that there are two more of Go's processors from the moment when a reader
// is busy until none has been for a while.
func TestProcessors(t *testing.T) {
	runtime.SetDefaultGOMAXPROCS()
	n := runtime.GOMAXPROCS(0)
	if n == 1 {
		t.Skip("a single processor stays single: run this test on a machine with two or more")
	}
	synctest.Test(t, func(t *testing.T) {
		want := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if n := runtime.GOMAXPROCS(0); n != want {
				t.Errorf("%s: %d processors, want %d", when, n, want)
			}
		}
		busy()
		want("not varied", n)
		VaryProcessors()
		defer processors.vary.Store(false)
		for range 2 {
			busy()
			want("busy", n+2)
			time.Sleep(calm / 2)
			busy()
			time.Sleep(calm - 1)
			want("busy half a while ago", n+2)
			time.Sleep(1)
			want("calm", n)
		}
	})
}
