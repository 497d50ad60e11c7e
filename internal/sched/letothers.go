package sched

import "runtime"

// LetOthersRun runs the goroutines that are ready before the caller goes on: each of them that has a request for the
// same connection adds it to the caller's write.
func LetOthersRun() { runtime.Gosched() }
