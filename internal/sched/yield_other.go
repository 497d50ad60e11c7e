//go:build !linux

package sched

// Yield does nothing: the system ends the thread's turn.
func Yield() {}
