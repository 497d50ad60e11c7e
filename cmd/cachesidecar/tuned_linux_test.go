package main

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOneProcessor checks that run uses one processor if it may use one.
func TestOneProcessor(t *testing.T) {
	runtime.LockOSThread() // the process inherits from this thread
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for i := 0; one.Count() == 0; i++ {
		if all.IsSet(i) {
			one.Set(i)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	_, page := runTuned(t)
	if err := unix.SchedSetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	if n := metric(t, page, "go_sched_gomaxprocs_threads"); n != 1 {
		t.Errorf("on one processor Go uses %v, want 1", n)
	}
}
