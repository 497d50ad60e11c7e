package main

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestOneProcessor checks that run uses one processor if it may use one.
func TestOneProcessor(t *testing.T) {
	runtime.LockOSThread() // the process inherits from this thread
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	testenv.Must(t, unix.SchedGetaffinity(0, &all))
	for i := 0; one.Count() == 0; i++ {
		if all.IsSet(i) {
			one.Set(i)
		}
	}
	testenv.Must(t, unix.SchedSetaffinity(0, &one))
	_, page := runTuned(t)
	testenv.Must(t, unix.SchedSetaffinity(0, &all))
	if n := metric(t, page, "go_sched_gomaxprocs_threads"); n != 1 {
		t.Errorf("on one processor Go uses %v, want 1", n)
	}
}
