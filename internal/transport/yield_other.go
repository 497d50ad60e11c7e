//go:build !linux

package transport

// Yield does nothing: the system ends the thread's turn.
func Yield() {}
